// The gradient of attention whose products are formed on tensor cores in a format's numbers, in the two walks of the one in
// f32: that by queries makes the rows' Σ up ⊙ o as well. Operands, probabilities and their gradients are narrowed, sums are
// in f32.

// Turns products of queries and keys into their probabilities `p`, not dropped, and products of `up` and values into their
// gradients `g`, each less its row's dot, as steep as the soft cap is. Of number `e` of a half of a group, `line(group, half,
// e)` gives the row's log-sum-exp as a power of two, and its dot; `seen(at, e)` says whether the pair is seen that is `at`
// behind the lane's first, unless all are; `dropped(group, half)` has the lane's four bits.
template <int G, typename Line, typename Seen, typename Dropped>
__device__ inline void slopes(float (&p)[G][2][4], float (&g)[G][2][4], const Scores& scores, bool all, const Draw& draw, const Shape& x, Line line, Seen seen, Dropped dropped) {
    // Most tiles are plain ones, in which nothing is to stand between the units' work.
    if (scores.plain && draw.keys == 0) {
#pragma unroll
        for (u32 i = 0; i < 8 * G; i++) {
            float &own = p[i / 8][i / 4 % 2][i % 4], &slope = g[i / 8][i / 4 % 2][i % 4];
            float2 of = line(i / 8, i / 4 % 2, i % 4);
            own = two_to(fmaf(own, scores.factor, -of.x));
            slope = own * (slope - of.y);
        }
        if (!all) {
#pragma unroll
            for (u32 i = 0; i < 8 * G; i++) {
                float &own = p[i / 8][i / 4 % 2][i % 4], &slope = g[i / 8][i / 4 % 2][i % 4];
                bool there = seen(i / 4 * 8 + i % 2, i % 4);
                own = there ? own : 0.0f;
                slope = there ? slope : 0.0f;
            }
        }
        return;
    }
#pragma unroll
    for (u32 half = 0; half < 2 * G; half++) {
        u32 bits = draw.keys != 0 ? dropped(half / 2, half % 2) : 0;
        float steep[4] = {1.0f, 1.0f, 1.0f, 1.0f}, kept = draw.keys != 0 ? draw.scale : 1.0f;
        if (!scores.plain) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                float& own = p[half / 2][half % 2][e];
                own = score_of(own, x);
                steep[e] = slope_at(own, x);
            }
        }
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            float &own = p[half / 2][half % 2][e], &slope = g[half / 2][half % 2][e];
            float2 of = line(half / 2, half % 2, e);
            float whole = seen(8 * half + e % 2, e) ? two_to(fmaf(own, scores.factor, -of.x)) : 0.0f;
            bool drops = bits >> e & 1;
            slope = whole * ((drops ? 0.0f : slope * kept) - of.y) * steep[e];
            own = drops ? 0.0f : whole;
        }
    }
}

// Σ up ⊙ o of a row, by the four lanes that share it, each with every fourth 16 bytes.
template <int W> __device__ inline float dot_of(const act* up, const act* o, u32 head) {
    const u32 n = 16 / sizeof(act);
    struct alignas(16) Chunk {
        act x[16 / sizeof(act)];
    };
    float sum = 0.0f;
    u32 own = threadIdx.x % 4;
    if ((((u64)up | (u64)o) & 15) != 0 || head % n != 0) {
        for (u32 c = own; c < head; c += 4) {
            sum = fmaf((float)up[c], (float)o[c], sum);
        }
        return sum;
    }
#pragma unroll
    for (u32 e = 0; e < W / n / 4; e++) {
        u32 c = (own + 4 * e) * n;
        if (c < head) {
            Chunk a = *(const Chunk*)(up + c), b = *(const Chunk*)(o + c);
#pragma unroll
            for (u32 i = 0; i < n; i++) {
                sum = fmaf((float)a.x[i], (float)b.x[i], sum);
            }
        }
    }
    return sum;
}

// Of a lane's two rows the log-sum-exp as a power of two, and the dot, which is also written down; `m` rows are there.
template <int W> __device__ inline void own_lines(float2 (&lines)[2], const act* up, const act* o, const float* lse, float* dots, u32 row, u32 m, const Shape& x) {
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 i = row + 8 * half;
        u64 at = i < m ? i : 0;
        lines[half].x = lse[at * x.heads] * LOG2_E;
        lines[half].y = sum_of_four(dot_of<W>(up + at * x.d, o + at * x.d, x.d / x.heads));
        if (threadIdx.x % 4 == 0 && i < m) {
            dots[at * x.heads] = lines[half].y;
        }
    }
}

// Of what passes by, one tile is fetched while another is worked on, where shared memory holds both. Rows that are at hand
// leave their place to the second stage.
template <typename F, int W, int STEP, int G>
__device__ inline void by_queries(const act* up, const act* q, const act* k, const act* v, const act* o, const float* lse, float* dots, Sequence own, Place place, u32 first,
                                  const Draw& draw, act* dq, const Shape& x) {
    SHARED(shared);
    typedef typename F::Number Number;
    constexpr u32 apart = apart_in<F, W>;
    constexpr bool twice = Left<F, W>::AT_HAND;
    Number *stages = (Number*)shared + (twice ? 0 : 128 * apart), *queries = twice ? stages + 2 * STEP * apart : (Number*)shared, *ups = queries + 64 * apart;
    u32 head = x.d / x.heads, h = place.h, key_width = head * x.shared_heads, key_column = h / (x.heads / x.shared_heads) * head;
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, pair = lane % 4 * 2;
    u32 m = own.length - first < 64 ? own.length - first : 64, token = x.prefix + first, length = x.prefix + own.length;
    u32 n = x.fold > 0 ? end_seen(token + m - 1, x.mask.ahead, length) * x.fold : x.prefix;
    u64 query = own.start + first, key = (u64)own.start * x.fold + (u64)place.s * x.prefix, begin = query * x.d + h * head;
    u32 from = first_seen(token, x.mask.behind) * x.fold / STEP * STEP;
    k += key * key_width + key_column;
    v += key * key_width + key_column;
    if (twice) {
        fetch_pair<F, W, STEP>(stages, k, v, key_width, head, from, n);
    }
    load_tile<F, W, 64>(queries, q + begin, x.d, head, m);
    load_tile<F, W, 64>(ups, up + begin, x.d, head, m);
    float2 lines[2];
    own_lines<W>(lines, up + begin, o + begin, lse + query * x.heads + h, dots + query * x.heads + h, row, m, x);
    Run seen[2] = {keys_seen(token + row, length, n, x), keys_seen(token + row + 8, length, n, x)};
    Run by_all = both(keys_seen(token, length, n, x), keys_seen(token + m - 1, length, n, x));
    Scores scores = scores_of(x);
    Drawn by = drawn_by(draw, query, row, m);
    __syncthreads();
    Left<F, W> left_queries, left_ups;
    left_queries.load(queries);
    left_ups.load(ups);
    float acc[W / 8][4];
    clear_fragments(acc);
    for (u32 turn = 0; from < n; from += STEP, turn ^= twice) {
        const Number *keys = stages + turn * 2 * STEP * apart, *values = keys + STEP * apart;
        if (!twice) {
            __syncthreads();
            fetch_pair<F, W, STEP>(stages, k, v, key_width, head, from, n);
        }
        wait_for_copies();
        __syncthreads();
        // While these are worked on, the next are on their way to where the last were.
        if (twice) {
            fetch_pair<F, W, STEP>(stages + (turn ^ 1) * 2 * STEP * apart, k, v, key_width, head, from + STEP, n);
        }
        bool all = by_all.has_all(from, STEP);
#pragma unroll 1
        for (u32 c = 0; c < STEP / 16; c += G) {
            float p[G][2][4], g[G][2][4];
            left_queries.multiply(p, keys + 16 * c * apart);
            left_ups.multiply(g, values + 16 * c * apart);
            u32 at = from + 16 * c;
            slopes(
                p, g, scores, all, draw, x, [&](u32, u32, u32 e) { return lines[e / 2]; }, [&](u32 i, u32 e) { return seen[e / 2].has(at + pair + i); },
                [&](u32 part, u32 half) { return dropped_by_queries(draw, by, h, at + 16 * part + 8 * half); });
#pragma unroll
            for (u32 e = 0; e < G; e++) {
                add_products<F, W>(acc, g[e], keys + 16 * (c + e) * apart);
            }
        }
    }
    float factors[2] = {x.scale, x.scale};
    store_rows<F, W>(dq + begin, acc, factors, x.d, head, m);
}

// What the queries of a tile bring along in shared memory.
struct Rows {
    float lse[64], dot[64];
    u32 place[128];

    // The log-sum-exps as powers of two and the dots of two neighbours from `at` on, and of those every eight further on.
    template <int G> __device__ void lines(float2 (&to)[G][2][2], u32 at) const {
#pragma unroll
        for (u32 i = 0; i < 4 * G; i++) {
            float2& own = to[i / 4][i / 2 % 2][i % 2];
            own.x = lse[at + i / 2 * 8 + i % 2] * LOG2_E;
            own.y = dot[at + i / 2 * 8 + i % 2];
        }
    }
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

template <typename F, int W, int STEP>
__device__ inline void fetch_queries(typename F::Number* to, const Passing& of, const Draw& draw, u32 from, u32 h, const Shape& x) {
    constexpr u32 apart = apart_in<F, W>;
    u32 head = x.d / x.heads, m = of.length - from < STEP ? of.length - from : STEP;
    u64 query = of.start + from;
    fetch_tile<F, W, STEP>(to, of.q + query * x.d + h * head, x.d, head, m);
    fetch_tile<F, W, STEP>(to + STEP * apart, of.up + query * x.d + h * head, x.d, head, m);
    fetch_rows((Rows*)(to + 2 * STEP * apart), of.lse, of.dots, draw, query, h, x.heads, m);
}

// Tiles pass by as they do by queries.
template <typename F, int W, int STEP, int G>
__device__ inline void by_keys(const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, Sequence own, Place place, u32 first,
                               const Draw& draw, act* dk, act* dv, const Shape& x) {
    SHARED(shared);
    typedef typename F::Number Number;
    constexpr u32 apart = apart_in<F, W>, stage = 2 * STEP * apart + sizeof(Rows) / sizeof(Number);
    constexpr bool twice = Left<F, W>::AT_HAND;
    Number *stages = (Number*)shared + (twice ? 0 : 128 * apart), *keys = twice ? stages + stage : (Number*)shared, *values = keys + 64 * apart;
    u32 head = x.d / x.heads, group = x.heads / x.shared_heads, key_width = head * x.shared_heads, n = own.length * x.fold + x.prefix;
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, pair = lane % 4 * 2, count = n - first < 64 ? n - first : 64;
    u32 length = x.prefix + own.length;
    u64 at = ((u64)own.start * x.fold + (u64)place.s * x.prefix + first) * key_width + place.h * head;
    // The queries that see some of these keys: the mask turned round.
    Run early = queries_seeing(first, length, x), late = queries_seeing(first + count - 1, length, x), by_all = both(early, late);
    Run seen[2] = {queries_seeing(first + row, length, x), queries_seeing(first + row + 8, length, x)};
    u32 begin = early.first / STEP * STEP, end = late.first + late.count;
    Passing passing = {q, up, lse, dots, own.start, own.length};
    if (twice && begin < end) {
        fetch_queries<F, W, STEP>(stages, passing, draw, begin, place.h * group, x);
    }
    load_tile<F, W, 64>(keys, k + at, key_width, head, count);
    load_tile<F, W, 64>(values, v + at, key_width, head, count);
    u32 step = draw.keys != 0 ? draw.step[0] : 0;
    Scores scores = scores_of(x);
    __syncthreads();
    Left<F, W> left_keys, left_values;
    left_keys.load(keys);
    left_values.load(values);
    float keys_acc[W / 8][4], values_acc[W / 8][4];
    clear_fragments(keys_acc);
    clear_fragments(values_acc);
    for (u32 h = place.h * group, last = h + group - 1, turn = 0; h <= last; h++) {
        for (u32 from = begin; from < end; from += STEP, turn ^= twice) {
            const Number *queries = stages + turn * stage, *ups = queries + STEP * apart;
            const Rows* of = (const Rows*)(queries + 2 * STEP * apart);
            if (!twice) {
                __syncthreads();
                fetch_queries<F, W, STEP>(stages, passing, draw, from, h, x);
            }
            wait_for_copies();
            __syncthreads();
            bool ends = from + STEP >= end, all = by_all.has_all(from, STEP);
            if (twice && !(ends && h == last)) {
                fetch_queries<F, W, STEP>(stages + (turn ^ 1) * stage, passing, draw, ends ? begin : from + STEP, h + ends, x);
            }
#pragma unroll 1
            for (u32 c = 0; c < STEP / 16; c += G) {
                float p[G][2][4], g[G][2][4];
                left_keys.multiply(p, queries + 16 * c * apart);
                left_values.multiply(g, ups + 16 * c * apart);
                u32 at = 16 * c + pair, first_key = first + threadIdx.x / 32 * 16;
                float2 lines[G][2][2];
                of->lines(lines, at);
                slopes(
                    p, g, scores, all, draw, x, [&](u32 part, u32 half, u32 e) { return lines[part][half][e % 2]; },
                    [&](u32 i, u32 e) { return seen[e / 2].has(from + at + i); },
                    [&](u32 part, u32 half) { return dropped_by_keys(draw, step, h, first_key, of->place + 2 * (at + 16 * part + 8 * half)); });
#pragma unroll
                for (u32 e = 0; e < G; e++) {
                    add_products<F, W>(values_acc, p[e], ups + 16 * (c + e) * apart);
                    add_products<F, W>(keys_acc, g[e], queries + 16 * (c + e) * apart);
                }
            }
        }
    }
    float scale = draw.keys != 0 ? draw.scale : 1.0f, factors[2] = {x.scale, x.scale}, kept[2] = {scale, scale};
    store_rows<F, W>(dk + at, keys_acc, factors, key_width, head, count);
    store_rows<F, W>(dv + at, values_acc, kept, key_width, head, count);
}

// Of queries the last tiles come first, of keys the first: those that most tiles of the other kind see.
#define ATTENTION_GRAD(columns, format, W, STEP, G, blocks, key_G, key_blocks)                                                                               \
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
            by_queries<format, W, STEP, G>(up, q, k, v, o, lse, dots, own, place, first, draw, dq, shape);                                                   \
        }                                                                                                                                                    \
    }                                                                                                                                                        \
    extern "C" __launch_bounds__(128, key_blocks) __global__ void NAMED(attention_grad_keys_##columns)(                                                      \
        const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, const u32* offsets, const u32* keys, const u32* step,  \
        act* dk, act* dv, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, u32 prefix, u32 behind, \
        u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept) {                                                                          \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                       \
        Shape shape = {rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix, {behind, ahead}, scale, cap};                                  \
        Place place = place_of(tiles);                                                                                                                       \
        Sequence own = sequence_at(offsets, place.s, sequences, rows, longest, fault);                                                                       \
        u32 first = place.tile * 64;                                                                                                                         \
        if (own.good && first < own.length * fold + prefix) {                                                                                                \
            by_keys<format, W, STEP, key_G>(up, q, k, v, lse, dots, own, place, first, draw, dk, dv, shape);                                                 \
        }                                                                                                                                                    \
    }
