// Of a sequence: its first token in the cache, and the tokens it has there. Whether all of its tokens, the new ones
// among them, are inside.
struct Place {
    u32 first;
    u32 before;
    bool good;
};

__device__ inline Place place_of(const u32* cached, u32 s, u32 length, u32 room, u32* fault) {
    Place own;
    own.first = cached[2 * (u64)s];
    own.before = cached[2 * (u64)s + 1];
    u64 end = (u64)own.first + own.before + length;
    own.good = end <= room;
    if (!own.good && threadIdx.x == 0) {
        raise_index(fault, (u32)(end < 0xffffffffu ? end : 0xffffffffu), room);
    }
    return own;
}

// A block puts the keys and values of `side` new tokens of one sequence behind those it has in the cache.
extern "C" __global__ void NAMED(cache_rows)(const act* k, const act* v, float* keys, float* values, const u32* offsets, const u32* cached,
                                             u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest,
                                             u32 fold, u32 room, u32 side) {
    u32 s = blockIdx.x / tiles, first = blockIdx.x % tiles * side, width = d / heads * shared_heads * fold;
    Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);
    Place place = place_of(cached, s, own.length, room, fault);
    if (!own.good || !place.good || first >= own.length) {
        return;
    }
    u32 m = own.length - first < side ? own.length - first : side;
    u64 from = (u64)(own.start + first) * width, to = ((u64)place.first + place.before + first) * width;
    for (u64 i = threadIdx.x; i < (u64)m * width; i += 256) {
        keys[to + i] = k[from + i];
        values[to + i] = v[from + i];
    }
}

#define ATTENTION(name, R, C)                                                                                                              \
    extern "C" __global__ void NAMED(name)(const act* q, const float* keys, const float* values, const u32* offsets, const u32* cached, act* o,   \
                                           u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest,       \
                                           u32 fold, u32 room, u32 behind, u32 ahead, float scale, float cap, const float* bias, u32 biased) {    \
        Mask mask = {behind, ahead};                                                                                                              \
        Draw none = {0, 0, 0, 0, 0, 0.0f};                                                                                                        \
        Beside beside = {0, bias, 0, 0, biased - 1};                                                                                              \
        u32 s = blockIdx.x / tiles, first = blockIdx.x % tiles * 16 * R;                                                                          \
        Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);                                                                  \
        Place place = place_of(cached, s, own.length, room, fault);                                                                               \
        bool far = bias != 0 && (u64)place.before + own.length > biased;                                                                          \
        if (far && threadIdx.x == 0) {                                                                                                            \
            raise_index(fault, place.before + own.length, biased);                                                                                \
        }                                                                                                                                         \
        if (own.good && place.good && !far && first < own.length) {                                                                               \
            u64 key = (u64)place.first * fold;                                                                                                    \
            attend<R, C, float>(q, keys, values, own, first, place.before, key, none, o, 0, d, heads, shared_heads, fold, mask, scale, cap,       \
                                    beside);                                                                                                      \
        }                                                                                                                                         \
    }

ATTENTION(cached_attention_64, 4, 4)
ATTENTION(cached_attention_128, 2, 8)
ATTENTION(cached_attention_256, 1, 16)
