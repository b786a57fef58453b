// What attention and its gradient share where their products are formed on tensor cores. A block has 64 queries or keys, a
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

// How a product of a query and a key becomes a power of two: `plain` ones need no more than the factor, others are made a
// score first, which is `natural`.
struct Scores {
    bool plain;
    float natural, factor;
};

__device__ inline Scores scores_of(const Shape& x) {
    bool plain = x.cap <= 0.0f && x.scale > 0.0f;
    float natural = plain ? x.scale : 1.0f;
    Scores scores = {plain, natural, natural * LOG2_E};
    return scores;
}

// The score of a product, within the soft cap if there is one, and how steep the cap is there.
__device__ inline float score_of(float x, const Shape& shape) {
    return shape.cap > 0.0f ? shape.cap * tanh_fast(x * shape.scale / shape.cap) : x * shape.scale;
}

__device__ inline float slope_at(float score, const Shape& shape) {
    float bent = score / shape.cap;
    return shape.cap > 0.0f ? 1.0f - bent * bent : 1.0f;
}

// A run of keys that a query sees, or of queries that see a key.
struct Run {
    u32 first, count;
    __device__ bool has(u32 at) const {
        return at - first < count;
    }
    __device__ bool has_all(u32 at, u32 n) const {
        return at >= first && at + n <= first + count;
    }
};

// The keys that the query at a token sees, of `n`; without keys of their own, queries see all that stand before.
__device__ inline Run keys_seen(u32 token, u32 length, u32 n, const Shape& x) {
    u32 first = first_seen(token, x.mask.behind) * x.fold;
    u32 end = x.fold > 0 ? end_seen(token, x.mask.ahead, length) * x.fold : n;
    end = end < n ? end : n;
    Run run = {first, end > first ? end - first : 0};
    return run;
}

// The queries that see a key, of a sequence whose queries begin behind the prefix.
__device__ inline Run queries_seeing(u32 key, u32 length, const Shape& x) {
    u32 token = x.fold > 1 ? key / x.fold : key;
    u32 first = first_seen(token, x.mask.ahead), end = end_seen(token, x.mask.behind, length);
    first = first > x.prefix ? first - x.prefix : 0;
    end = end > x.prefix ? end - x.prefix : 0;
    Run run = {first, end > first ? end - first : 0};
    return run;
}

// What two runs have in common.
__device__ inline Run both(Run a, Run b) {
    u32 first = a.first > b.first ? a.first : b.first, x = a.first + a.count, y = b.first + b.count, end = x < y ? x : y;
    Run run = {first, end > first ? end - first : 0};
    return run;
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

// What a lane draws its query's keys by, where there is dropout: of the query above if it is even, else of that below.
struct Drawn {
    u32 step, position, example;
};

__device__ inline Drawn drawn_by(const Draw& draw, u64 query, u32 row, u32 m) {
    Drawn own = {0, 0, 0};
    if (draw.keys != 0) {
        u32 i = row + threadIdx.x % 2 * 8;
        u64 at = 2 * (query + (i < m ? i : 0));
        own.step = draw.step[0];
        own.example = draw.keys[at];
        own.position = draw.keys[at + 1];
    }
    return own;
}

// Of a product whose rows are queries: whether dropout takes its lane's four numbers, a bit each. The lane's own draw is
// of the query above if it is even, else of that below; its neighbour has the other.
__device__ inline u32 dropped_by_queries(const Draw& draw, const Drawn& by, u32 head, u32 key) {
    u32 odd = threadIdx.x % 2;
    u32 own = dropped_four(draw, by.step, head, key / 4 + threadIdx.x % 4 / 2, by.position, by.example);
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
