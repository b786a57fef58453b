#define ATTENTION(name, R, C)                                                                                                                           \
    extern "C" __global__ void NAMED(name)(const act* q, const act* k, const act* v, const u32* offsets, const u32* keys, const u32* step, act* o,      \
                                    float* lse, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest,        \
                                    u32 fold, u32 prefix, u32 behind, u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept,         \
                                    const u32* sources, const float* bias, u32 key_rows, u32 longest_source, u32 middle) {                              \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                  \
        Mask mask = {behind, ahead};                                                                                                                    \
        Beside beside = {sources, bias, key_rows, longest_source, middle};                                                                              \
        u32 s = blockIdx.x / tiles;                                                                                                                     \
        Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);                                                                        \
        Keys of = keys_of(beside, own, s, sequences, fold, prefix, fault);                                                                              \
        u32 first = blockIdx.x % tiles * 16 * R;                                                                                                        \
        if (own.good && of.good && first < own.length) {                                                                                                \
            attend<R, C, act>(q, k, v, own, first, of.before, of.first, draw, o, lse, d, heads, shared_heads, sources != 0 ? 0 : fold, mask, scale,     \
                              cap, beside);                                                                                                             \
        }                                                                                                                                               \
    }

ATTENTION(attention_64, 4, 4)
ATTENTION(attention_128, 2, 8)
ATTENTION(attention_256, 1, 16)
