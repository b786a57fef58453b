// What attention and its gradient share where their products are of bf16 numbers. A block has 64 queries or keys, a
// warp 16 of them; of a product a lane has rows lane/4 and 8 more, so that four lanes share a row.

struct Shape {
    u32 rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix;
    Mask mask;
    float scale, cap;
};

// A block's sequence, head and tile. Blocks of one tile of all sequences and heads follow each other, so that tiles with
// much to do, where a mask makes them differ, can be first and are not left over at the end.
struct Place {
    u32 s, h, tile;
};

__device__ inline Place place_of(u32 tiles) {
    u32 own = blockIdx.y * gridDim.x + blockIdx.x, each = gridDim.x / tiles * gridDim.y, rest = own % each;
    Place place = {rest / gridDim.y, rest % gridDim.y, own / each};
    return place;
}

#define LOG2_E 1.44269504088896340736f

// A score as a power of two, and how steep the soft cap is there.
struct Score {
    float exponent, slope;
};

// The score of a product of a query and a key.
__device__ inline Score score_of(float x, const Shape& shape) {
    if (shape.cap > 0.0f) {
        float bent = tanh_fast(x * shape.scale / shape.cap);
        Score score = {shape.cap * bent * LOG2_E, 1.0f - bent * bent};
        return score;
    }
    Score score = {x * (shape.scale * LOG2_E), 1.0f};
    return score;
}

// The token of its sequence that a key belongs to.
__device__ inline u32 token_of(u32 key, const Shape& shape) {
    return shape.fold > 1 ? key / shape.fold : key;
}

// Whether each of 64 queries sees each of 64 keys, all being there.
__device__ inline bool all_seen(const Shape& shape, u32 token, u32 m, u32 key, u32 count) {
    return m == 64 && count == 64 && sees(shape.mask, token, token_of(key + 63, shape)) && sees(shape.mask, token + 63, token_of(key, shape));
}

// Which of four neighbouring keys dropout takes from a query, a bit each.
__device__ inline u32 dropped_four(const Draw& draw, u32 step, u32 head, u32 four, u32 position, u32 example) {
    Words words = philox(draw.k0, draw.k1, (head << 20) + four, position, example, step);
    u32 bits = 0;
    for (u32 i = 0; i < 4; i++) {
        bits |= (u32)(words.word[i] < draw.limit) << i;
    }
    return bits;
}

// Of a product whose rows are queries: whether dropout takes its lane's four numbers, a bit each. The lane's own draw is
// of the query above if it is even, else of that below; its neighbour has the other.
__device__ inline u32 dropped_by_queries(const Draw& draw, u32 step, u32 head, u32 key, u32 position, u32 example) {
    u32 odd = threadIdx.x % 2;
    u32 own = dropped_four(draw, step, head, key / 4 + threadIdx.x % 4 / 2, position, example);
    u32 other = __shfl_xor_sync(0xffffffffu, own, 1);
    return odd ? other >> 2 | (own >> 2 & 3) << 2 : (own & 3) | (other & 3) << 2;
}

// The same of a product whose rows are keys. Four lanes share four keys, above and below, and two queries; each draws for
// one of these four. `places` are example and position of the two, by turns.
__device__ inline u32 dropped_by_keys(const Draw& draw, u32 step, u32 head, u32 key, const u32* places) {
    u32 lane = threadIdx.x % 32, turn = lane / 4 % 4;
    u32 own = dropped_four(draw, step, head, key / 4 + lane / 16 + turn / 2 * 2, places[turn % 2 * 2 + 1], places[turn % 2 * 2]);
    u32 all = own << 4 * turn;
    all |= __shfl_xor_sync(0xffffffffu, all, 4);
    all |= __shfl_xor_sync(0xffffffffu, all, 8);
    all >>= turn;
    return (all & 1) | (all >> 3 & 2) | (all >> 6 & 4) | (all >> 9 & 8);
}

// Over the four lanes that share a row.
__device__ inline float max_of_four(float x) {
    for (int step = 2; step > 0; step >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, x, step);
        x = other > x ? other : x;
    }
    return x;
}

__device__ inline float sum_of_four(float x) {
    for (int step = 2; step > 0; step >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}
