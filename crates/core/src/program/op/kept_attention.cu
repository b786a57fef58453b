#define ATTENTION(name, R, C)                                                                                                              \
    extern "C" __global__ void NAMED(name)(const act* q, const float* keys, const float* values, const u32* offsets, const u32* kept, act* o,   \
                                           u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest,     \
                                           u32 room, float scale) {                                                                        \
        Mask mask = {0xffffffffu, 0xffffffffu};                                                                                            \
        Draw none = {0, 0, 0, 0, 0, 0.0f};                                                                                                 \
        Beside nothing = {0, 0, 0, 0, 0};                                                                                                  \
        u32 s = blockIdx.x / tiles, first = blockIdx.x % tiles * 16 * R;                                                                   \
        Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);                                                           \
        u32 key = kept[2 * (u64)s], count = kept[2 * (u64)s + 1];                                                                          \
        bool good = own.length == 0 || (count > 0 && (u64)key + count <= room);                                                            \
        if (!good && threadIdx.x == 0) {                                                                                                   \
            raise_index(fault, key + count, count > 0 ? room : 0);                                                                         \
        }                                                                                                                                  \
        if (own.good && good && first < own.length) {                                                                                      \
            attend<R, C, float>(q, keys, values, own, first, count, (u64)key, none, o, 0, d, heads, shared_heads, 0, mask, scale, 0.0f, nothing); \
        }                                                                                                                                  \
    }

ATTENTION(kept_attention_64, 4, 4)
ATTENTION(kept_attention_128, 2, 8)
ATTENTION(kept_attention_256, 1, 16)
