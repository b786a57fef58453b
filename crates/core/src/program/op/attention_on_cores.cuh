// Attention whose products are formed on tensor cores in a format's numbers: queries, keys, values and probabilities are
// narrowed, sums and the softmax are in f32.

// From products to probabilities of what was seen so far: products become powers of two by a factor, less the largest.
// What was summed before is scaled anew.
template <int N, int W>
__device__ inline void weigh(float (&p)[N][2][4], float factor, float (&top)[2], float (&sum)[2], float (&acc)[W / 8][4]) {
    float high[2] = {top[0], top[1]}, shrink[2];
#pragma unroll
    for (u32 e = 0; e < 8 * N; e++) {
        high[e / 2 % 2] = fmaxf(high[e / 2 % 2], p[e / 8][e / 4 % 2][e % 4]);
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        high[half] = max_of_four(high[half]);
        // A query may see no key of its first tiles.
        float base = high[half] == minus_infinity() ? 0.0f : high[half] * factor;
        shrink[half] = two_to(fmaf(top[half], factor, -base));
        top[half] = high[half];
        high[half] = base;
        sum[half] *= shrink[half];
    }
#pragma unroll
    for (u32 e = 0; e < 8 * N; e++) {
        float y = two_to(fmaf(p[e / 8][e / 4 % 2][e % 4], factor, -high[e / 2 % 2]));
        p[e / 8][e / 4 % 2][e % 4] = y;
        sum[e / 2 % 2] += y;
    }
#pragma unroll
    for (u32 n = 0; n < W / 8; n++) {
        acc[n][0] *= shrink[0];
        acc[n][1] *= shrink[0];
        acc[n][2] *= shrink[1];
        acc[n][3] *= shrink[1];
    }
}

// What is no plain product becomes a score, and what is not seen nothing: `seen` are the keys of a lane's two queries, `at`
// the key of its first number.
template <int N> __device__ inline void mask_scores(float (&p)[N][2][4], bool plain, bool all, const Run (&seen)[2], u32 at, const Shape& x) {
    if (!plain) {
#pragma unroll
        for (u32 e = 0; e < 8 * N; e++) {
            p[e / 8][e / 4 % 2][e % 4] = score_of(p[e / 8][e / 4 % 2][e % 4], x);
        }
    }
    if (!all) {
#pragma unroll
        for (u32 e = 0; e < 8 * N; e++) {
            float& y = p[e / 8][e / 4 % 2][e % 4];
            y = seen[e / 2 % 2].has(at + e / 4 * 8 + e % 2) ? y : minus_infinity();
        }
    }
}

// What dropout takes of a lane's probabilities becomes 0; `key` is the first of the tile.
template <int N> __device__ inline void drop_scores(float (&p)[N][2][4], const Draw& draw, const Drawn& by, u32 h, u32 key) {
#pragma unroll
    for (u32 c = 0; c < 2 * N; c++) {
        u32 dropped = dropped_by_queries(draw, by, h, key + 8 * c);
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            p[c / 2][c % 2][e] = dropped >> e & 1 ? 0.0f : p[c / 2][c % 2][e];
        }
    }
}

// A block makes one tile of a head's queries; tiles of STEP keys pass by, of which one is worked on while the next is fetched.
template <typename F, int W, int STEP>
__device__ inline void attend_on_cores(const act* q, const act* k, const act* v, Sequence own, Place place, u32 first, const Draw& draw, act* o, float* lse, const Shape& x) {
    SHARED(shared);
    typedef typename F::Number Number;
    constexpr u32 apart = apart_in<F, W>, N = STEP / 16;
    constexpr bool lies = !Left<F, W>::AT_HAND;
    // Queries that are at hand leave their place to the second stage.
    Number *stages = (Number*)shared + (lies ? 64 * apart : 0), *queries = lies ? (Number*)shared : stages + 2 * STEP * apart;
    u32 head = x.d / x.heads, h = place.h, key_width = head * x.shared_heads, key_column = h / (x.heads / x.shared_heads) * head;
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, pair = lane % 4 * 2;
    u32 m = own.length - first < 64 ? own.length - first : 64, token = x.prefix + first, length = x.prefix + own.length;
    u32 n = x.fold > 0 ? end_seen(token + m - 1, x.mask.ahead, length) * x.fold : x.prefix;
    u64 query = own.start + first, key = (u64)own.start * x.fold + (u64)place.s * x.prefix;
    u32 from = first_seen(token, x.mask.behind) * x.fold / STEP * STEP;
    k += key * key_width + key_column;
    v += key * key_width + key_column;
    fetch_pair<F, W, STEP>(stages, k, v, key_width, head, from, n);
    load_tile<F, W, 64>(queries, q + query * x.d + h * head, x.d, head, m);
    Drawn by = drawn_by(draw, query, row, m);
    float top[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0f, 0.0f}, acc[W / 8][4];
    clear_fragments(acc);
    Scores scores = scores_of(x);
    Run seen[2] = {keys_seen(token + row, length, n, x), keys_seen(token + row + 8, length, n, x)};
    Run by_all = both(keys_seen(token, length, n, x), keys_seen(token + m - 1, length, n, x));
    __syncthreads();
    Left<F, W> left;
    left.load(queries);
    for (u32 turn = 0; from < n; from += STEP, turn ^= 1) {
        const Number *keys = stages + turn * 2 * STEP * apart, *values = keys + STEP * apart;
        wait_for_copies();
        __syncthreads();
        // While these are worked on, the next are on their way to where the last were.
        fetch_pair<F, W, STEP>(stages + (turn ^ 1) * 2 * STEP * apart, k, v, key_width, head, from + STEP, n);
        float p[N][2][4];
        left.multiply(p, keys);
        mask_scores(p, scores.plain, by_all.has_all(from, STEP), seen, from + pair, x);
        weigh<N, W>(p, scores.factor, top, sum, acc);
        if (draw.keys != 0) {
            drop_scores(p, draw, by, h, from);
        }
#pragma unroll
        for (u32 c = 0; c < N; c++) {
            add_products<F, W>(acc, p[c], values + 16 * c * apart);
        }
    }
    float factors[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 i = row + 8 * half;
        float all = sum_of_four(sum[half]);
        factors[half] = (draw.keys != 0 ? draw.scale : 1.0f) / all;
        if (lane % 4 == 0 && i < m && lse != 0) {
            lse[(query + i) * x.heads + h] = top[half] * scores.natural + log_fast(all);
        }
    }
    store_rows<F, W>(o + query * x.d + h * head, acc, factors, x.d, head, m);
}

// The last tiles come first: where queries see what is behind them, these have the most to do.
#define ATTENTION(name, format, W, STEP, blocks)                                                                                                        \
    extern "C" __launch_bounds__(128, blocks) __global__ void NAMED(name)(                                                                              \
        const act* q, const act* k, const act* v, const u32* offsets, const u32* keys, const u32* step, act* o, float* lse, u32* fault, u32 rows,       \
        u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, u32 prefix, u32 behind, u32 ahead, float scale, float cap, \
        u32 k0, u32 k1, u32 limit, float kept) {                                                                                                        \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                  \
        Shape shape = {rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix, {behind, ahead}, scale, cap};                             \
        Place place = place_of(tiles);                                                                                                                  \
        Sequence own = sequence_at(offsets, place.s, sequences, rows, longest, fault);                                                                  \
        u32 first = (tiles - 1 - place.tile) * 64;                                                                                                      \
        if (own.good && first < own.length) {                                                                                                           \
            attend_on_cores<format, W, STEP>(q, k, v, own, place, first, draw, o, lse, shape);                                                          \
        }                                                                                                                                               \
    }
