// The gradient of attention whose products are of bf16 numbers, in the two walks of the one in f32: that by queries makes
// the rows' Σ up ⊙ o as well. Operands, probabilities and their gradients are rounded, sums are in f32.

// A pair of fragments: from products to the probabilities `p`, not dropped, and their gradients in `g`, each less its
// row's `dot`, as steep as the soft cap is. `shift` is the row's log-sum-exp as a power of two, `dropped` the lane's four
// bits.
__device__ inline void slopes(float& p, float& g, bool seen, bool drops, bool dropped, float shift, float dot, const Draw& draw, const Shape& x) {
    Score score = score_of(p, x);
    float own = seen ? two_to(score.exponent - shift) : 0.0f;
    float factor = dropped ? 0.0f : drops ? draw.scale : 1.0f;
    g = own * (g * factor - dot) * score.slope;
    p = dropped ? 0.0f : own;
}

// Of a warp's 16 queries: Σ up ⊙ o, of those above and below of each lane, also written down.
__device__ inline void dots_of(float (&mine)[2], const act* up, const act* o, float* dots, u32 d, u32 heads, u32 head, u32 m) {
    u32 lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;
    mine[0] = mine[1] = 0.0f;
    for (u32 i = 0; i < 16; i++) {
        float sum = 0.0f;
        if (first + i < m) {
            u64 from = (u64)(first + i) * d;
            for (u32 c = lane; c < head; c += 32) {
                sum = fmaf((float)up[from + c], (float)o[from + c], sum);
            }
        }
        sum = warp_sum(sum);
        mine[0] = i == lane / 4 ? sum : mine[0];
        mine[1] = i == lane / 4 + 8 ? sum : mine[1];
        if (lane == 0 && first + i < m) {
            dots[(u64)(first + i) * heads] = sum;
        }
    }
}

// Products of 16 of a tile's rows with a warp's, whose left fragments are at hand for narrow heads.
template <int W> struct Left {
    u32 own[W <= 64 ? W / 16 : 1][4];
    const u16* tile;

    __device__ void load(const u16* from) {
        tile = from;
        if constexpr (W <= 64) {
            load_left<W>(own, from);
        }
    }
    __device__ void multiply(float (&x)[2][4], const u16* rows) const {
        if constexpr (W <= 64) {
            multiply_by_rows<W>(x, own, rows);
        } else {
            u32 left[W / 16][4];
            load_left<W>(left, tile);
            multiply_by_rows<W>(x, left, rows);
        }
    }
};

// Of what passes by, one tile is fetched while another is worked on, where shared memory holds both.
template <int W, int STAGES = (W <= 64 ? 2 : 1)>
__device__ inline void by_queries(const act* up, const act* q, const act* k, const act* v, const act* o, const float* lse, float* dots, Sequence own, Place place, u32 first,
                                  const Draw& draw, act* dq, const Shape& x) {
    SHARED(shared);
    const u32 apart = W + 8;
    u16 *queries = (u16*)shared, *ups = queries + 64 * apart, *stages = ups + 64 * apart;
    u32 head = x.d / x.heads, h = place.h, key_width = head * x.shared_heads, key_column = h / (x.heads / x.shared_heads) * head;
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, pair = lane % 4 * 2;
    u32 m = own.length - first < 64 ? own.length - first : 64, token = x.prefix + first;
    u32 n = x.fold > 0 ? end_seen(token + m - 1, x.mask.ahead, x.prefix + own.length) * x.fold : x.prefix;
    u64 query = own.start + first, key = (u64)own.start * x.fold + (u64)place.s * x.prefix, begin = query * x.d + h * head;
    load_tile<W>(queries, q + begin, x.d, head, m);
    load_tile<W>(ups, up + begin, x.d, head, m);
    float shift[2], dot[2], acc[W / 8][4];
    dots_of(dot, up + begin, o + begin, dots + query * x.heads + h, x.d, x.heads, head, m);
    for (u32 half = 0; half < 2; half++) {
        u32 i = row + 8 * half;
        shift[half] = i < m ? lse[(query + i) * x.heads + h] * LOG2_E : 0.0f;
    }
    u32 step = 0, position = 0, example = 0;
    if (draw.keys != 0) {
        u32 i = row + lane % 2 * 8;
        u64 at = 2 * (query + (i < m ? i : 0));
        step = draw.step[0];
        example = draw.keys[at];
        position = draw.keys[at + 1];
    }
    __syncthreads();
    u32 left[W / 16][4];
    load_left<W>(left, queries);
    Left<W> left_ups;
    left_ups.load(ups);
    clear_fragments(acc);
    u32 from = first_seen(token, x.mask.behind) * x.fold / 64 * 64;
    k += key * key_width + key_column;
    v += key * key_width + key_column;
    if (STAGES == 2) {
        fetch_pair<W>(stages, k, v, key_width, head, from, n);
    }
    for (u32 turn = 0; from < n; from += 64, turn ^= STAGES - 1) {
        u32 count = n - from < 64 ? n - from : 64;
        const u16 *keys = stages + turn * 128 * apart, *values = keys + 64 * apart;
        if (STAGES == 1) {
            __syncthreads();
            fetch_pair<W>(stages, k, v, key_width, head, from, n);
        }
        wait_for_copies();
        __syncthreads();
        // While these are worked on, the next are on their way to where the last were.
        if (STAGES == 2) {
            fetch_pair<W>(stages + (turn ^ 1) * 128 * apart, k, v, key_width, head, from + 64, n);
        }
        bool all = all_seen(x, token, m, from, count);
#pragma unroll 1
        for (u32 c = 0; c < 4; c++) {
            u32 dropped[2] = {0, 0};
            if (draw.keys != 0) {
                dropped[0] = dropped_by_queries(draw, step, h, from + 16 * c, position, example);
                dropped[1] = dropped_by_queries(draw, step, h, from + 16 * c + 8, position, example);
            }
            float p[2][4], g[2][4];
            clear_fragments(p);
            clear_fragments(g);
            multiply_by_rows<W>(p, left, keys + 16 * c * apart);
            left_ups.multiply(g, values + 16 * c * apart);
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
#pragma unroll
                for (u32 e = 0; e < 4; e++) {
                    u32 i = row + e / 2 * 8, j = 16 * c + 8 * half + pair + e % 2;
                    bool seen = all || (i < m && j < count && sees(x.mask, token + i, token_of(from + j, x)));
                    slopes(p[half][e], g[half][e], seen, draw.keys != 0, dropped[half] >> e & 1, shift[e / 2], dot[e / 2], draw, x);
                }
            }
            u32 weights[4];
            as_left(weights, g[0], g[1]);
            add_weighted<W>(acc, weights, keys + 16 * c * apart);
        }
    }
    float factors[2] = {x.scale, x.scale};
    store_rows<W>(dq + begin, acc, factors, x.d, head, m);
}

// What the queries of a tile bring along in shared memory.
struct Rows {
    float lse[64], dot[64];
    u32 place[128];
};

__device__ inline void fetch_rows(Rows* to, const float* lse, const float* dots, const Draw& draw, u64 query, u32 h, u32 heads, u32 m) {
    u32 i = threadIdx.x;
    if (i < 64) {
        u64 at = (query + (i < m ? i : 0)) * heads + h;
        copy_four(&to->lse[i], lse + at, i < m);
        copy_four(&to->dot[i], dots + at, i < m);
    }
    if (draw.keys != 0) {
        copy_four(&to->place[i], draw.keys + 2 * query + (i / 2 < m ? i : 0), i / 2 < m);
    }
}

// The queries of a tile and the gradients of what they gave, and what belongs to them.
struct Passing {
    const act *q, *up;
    const float *lse, *dots;
    u64 start;
    u32 length;
};

template <int W> __device__ inline void fetch_queries(u16* to, const Passing& of, const Draw& draw, u32 from, u32 h, const Shape& x) {
    u32 head = x.d / x.heads, m = of.length - from < 64 ? of.length - from : 64;
    u64 query = of.start + from;
    fetch_tile<W>(to, of.q + query * x.d + h * head, x.d, head, m);
    fetch_tile<W>(to + 64 * (W + 8), of.up + query * x.d + h * head, x.d, head, m);
    fetch_rows((Rows*)(to + 128 * (W + 8)), of.lse, of.dots, draw, query, h, x.heads, m);
}

// Of what passes by, one tile is fetched while another is worked on, where shared memory holds both.
template <int W, int STAGES = (W <= 64 ? 2 : 1)>
__device__ inline void by_keys(const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, Sequence own, Place place, u32 first,
                               const Draw& draw, act* dk, act* dv, const Shape& x) {
    SHARED(shared);
    const u32 apart = W + 8;
    const u32 stage = 128 * apart + sizeof(Rows) / 2;
    u16 *keys = (u16*)shared, *values = keys + 64 * apart, *stages = values + 64 * apart;
    u32 head = x.d / x.heads, group = x.heads / x.shared_heads, key_width = head * x.shared_heads, n = own.length * x.fold + x.prefix;
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, pair = lane % 4 * 2, count = n - first < 64 ? n - first : 64;
    u64 at = ((u64)own.start * x.fold + (u64)place.s * x.prefix + first) * key_width + place.h * head;
    load_tile<W>(keys, k + at, key_width, head, count);
    load_tile<W>(values, v + at, key_width, head, count);
    u32 step = draw.keys != 0 ? draw.step[0] : 0;
    __syncthreads();
    Left<W> left_keys, left_values;
    left_keys.load(keys);
    left_values.load(values);
    float keys_acc[W / 8][4], values_acc[W / 8][4];
    clear_fragments(keys_acc);
    clear_fragments(values_acc);
    // The queries that see some of these keys: the mask turned round.
    u32 begin = first_seen(token_of(first, x), x.mask.ahead), end = end_seen(token_of(first + count - 1, x), x.mask.behind, x.prefix + own.length);
    begin = (begin > x.prefix ? begin - x.prefix : 0) / 64 * 64;
    end = end > x.prefix ? end - x.prefix : 0;
    Passing passing = {q, up, lse, dots, own.start, own.length};
    if (STAGES == 2 && begin < end) {
        fetch_queries<W>(stages, passing, draw, begin, place.h * group, x);
    }
    for (u32 h = place.h * group, last = h + group - 1, turn = 0; h <= last; h++) {
        for (u32 from = begin; from < end; from += 64, turn ^= STAGES - 1) {
            u32 m = own.length - from < 64 ? own.length - from : 64;
            const u16 *queries = stages + turn * stage, *ups = queries + 64 * apart;
            const Rows* of = (const Rows*)(queries + 128 * apart);
            if (STAGES == 1) {
                __syncthreads();
                fetch_queries<W>(stages, passing, draw, from, h, x);
            }
            wait_for_copies();
            __syncthreads();
            bool ends = from + 64 >= end;
            if (STAGES == 2 && !(ends && h == last)) {
                fetch_queries<W>(stages + (turn ^ 1) * stage, passing, draw, ends ? begin : from + 64, h + ends, x);
            }
            bool all = all_seen(x, x.prefix + from, m, first, count);
#pragma unroll 1
            for (u32 c = 0; c < 4; c++) {
                u32 dropped[2] = {0, 0}, first_key = first + threadIdx.x / 32 * 16;
                if (draw.keys != 0) {
                    dropped[0] = dropped_by_keys(draw, step, h, first_key, of->place + 2 * (16 * c + pair));
                    dropped[1] = dropped_by_keys(draw, step, h, first_key, of->place + 2 * (16 * c + pair + 8));
                }
                float p[2][4], g[2][4];
                clear_fragments(p);
                clear_fragments(g);
                left_keys.multiply(p, queries + 16 * c * apart);
                left_values.multiply(g, ups + 16 * c * apart);
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    u32 i = 16 * c + 8 * half + pair;
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        u32 own_i = i + e % 2, j = row + e / 2 * 8;
                        bool seen = all || (own_i < m && j < count && sees(x.mask, x.prefix + from + own_i, token_of(first + j, x)));
                        slopes(p[half][e], g[half][e], seen, draw.keys != 0, dropped[half] >> e & 1, of->lse[own_i] * LOG2_E, of->dot[own_i], draw, x);
                    }
                }
                u32 weights[4];
                as_left(weights, p[0], p[1]);
                add_weighted<W>(values_acc, weights, ups + 16 * c * apart);
                as_left(weights, g[0], g[1]);
                add_weighted<W>(keys_acc, weights, queries + 16 * c * apart);
            }
        }
    }
    float scale = draw.keys != 0 ? draw.scale : 1.0f, factors[2] = {x.scale, x.scale}, kept[2] = {scale, scale};
    store_rows<W>(dk + at, keys_acc, factors, key_width, head, count);
    store_rows<W>(dv + at, values_acc, kept, key_width, head, count);
}

// Of queries the last tiles come first, of keys the first: those that most tiles of the other kind see.
#define ATTENTION_GRAD(columns, W, blocks)                                                                                                                   \
    extern "C" __launch_bounds__(128, blocks) __global__ void NAMED(attention_grad_queries_##columns)(                                                       \
        const act* up, const act* q, const act* k, const act* v, const act* o, const float* lse, float* dots, const u32* offsets, const u32* keys,           \
        const u32* step, act* dq, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, u32 prefix,     \
        u32 behind, u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept) {                                                              \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                       \
        Shape shape = {rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix, {behind, ahead}, scale, cap};                                  \
        Place place = place_of(tiles);                                                                                                                       \
        Sequence own = sequence_at(offsets, place.s, sequences, rows, longest, fault);                                                                       \
        u32 first = (tiles - 1 - place.tile) * 64;                                                                                                           \
        if (own.good && first < own.length) {                                                                                                                \
            by_queries<W>(up, q, k, v, o, lse, dots, own, place, first, draw, dq, shape);                                                                    \
        }                                                                                                                                                    \
    }                                                                                                                                                        \
    extern "C" __launch_bounds__(128, HELD == 0 ? 2 : blocks) __global__ void NAMED(attention_grad_keys_##columns)(                                          \
        const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, const u32* offsets, const u32* keys, const u32* step,  \
        act* dk, act* dv, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, u32 prefix, u32 behind, \
        u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept) {                                                                          \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                       \
        Shape shape = {rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix, {behind, ahead}, scale, cap};                                  \
        Place place = place_of(tiles);                                                                                                                       \
        Sequence own = sequence_at(offsets, place.s, sequences, rows, longest, fault);                                                                       \
        u32 first = place.tile * 64;                                                                                                                         \
        if (own.good && first < own.length * fold + prefix) {                                                                                                \
            by_keys<W>(up, q, k, v, lse, dots, own, place, first, draw, dk, dv, shape);                                                                      \
        }                                                                                                                                                    \
    }

ATTENTION_GRAD(bf16_64, 64, 3)
ATTENTION_GRAD(bf16_128, 128, 2)
