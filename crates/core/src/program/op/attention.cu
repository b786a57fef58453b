#define ATTENTION(name, R, C)                                                                                                                           \
    extern "C" __global__ void NAMED(name)(const act* q, const act* k, const act* v, const u32* offsets, const u32* keys, const u32* step, act* o,      \
                                    float* lse, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest,        \
                                    u32 fold, u32 prefix, u32 behind, u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept) {                   \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                  \
        Mask mask = {behind, ahead};                                                                                                                    \
        u32 s = blockIdx.x / tiles;                                                                                                                     \
        Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);                                                       \
        u32 first = blockIdx.x % tiles * 16 * R;                                                                                                        \
        if (own.good && first < own.length) {                                                                                                           \
            attend<R, C, act>(q, k, v, own, first, prefix, (u64)own.start * fold + (u64)s * prefix, draw, o, lse, d, heads, shared_heads, fold, mask, scale, cap);             \
        }                                                                                                                                               \
    }

ATTENTION(attention_64, 4, 4)
ATTENTION(attention_128, 2, 8)
ATTENTION(attention_256, 1, 16)
