// Attention whose products are of bf16 numbers: queries, keys, values and probabilities are rounded, sums and the
// softmax are in f32.

// From products to probabilities of what was seen so far: scores become powers of two, less the largest. What was summed
// before is scaled anew.
template <int W>
__device__ inline void weigh(float (&p)[4][2][4], float (&top)[2], float (&sum)[2], float (&acc)[W / 8][4]) {
    float high[2] = {top[0], top[1]}, shrink[2];
#pragma unroll
    for (u32 e = 0; e < 32; e++) {
        float y = p[e / 8][e / 4 % 2][e % 4];
        high[e / 2 % 2] = y > high[e / 2 % 2] ? y : high[e / 2 % 2];
    }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        high[half] = max_of_four(high[half]);
        // A query may see no key of its first tiles.
        float base = high[half] == minus_infinity() ? 0.0f : high[half];
        shrink[half] = two_to(top[half] - base);
        top[half] = high[half];
        high[half] = base;
        sum[half] *= shrink[half];
    }
#pragma unroll
    for (u32 e = 0; e < 32; e++) {
        float y = two_to(p[e / 8][e / 4 % 2][e % 4] - high[e / 2 % 2]);
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

// Products of a warp's queries with all keys of a tile.
template <int W> __device__ inline void multiply_tile(float (&p)[4][2][4], const u16* queries, const u16* keys) {
    queries += threadIdx.x / 32 * 16 * (W + 8) + down(W + 8);
    keys += across(W + 8);
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
        clear_fragments(p[c]);
    }
#pragma unroll
    for (u32 k = 0; k < W / 16; k++) {
        u32 a[4];
        load_fragments(a, queries + 16 * k);
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            u32 b[4];
            load_fragments(b, keys + 16 * c * (W + 8) + 16 * k);
            multiply_fragments(p[c][0], a, b[0], b[1]);
            multiply_fragments(p[c][1], a, b[2], b[3]);
        }
    }
}

// A block makes one tile of a head's queries; tiles of keys pass by.
template <int W>
__device__ inline void attend_in_bf16(const act* q, const act* k, const act* v, Sequence own, Place place, u32 first, const Draw& draw, act* o, float* lse, const Shape& x) {
    SHARED(shared);
    const u32 apart = W + 8;
    u16 *queries = (u16*)shared, *stages = queries + 64 * apart;
    u32 head = x.d / x.heads, h = place.h, key_width = head * x.shared_heads, key_column = h / (x.heads / x.shared_heads) * head;
    u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4, pair = lane % 4 * 2;
    u32 m = own.length - first < 64 ? own.length - first : 64, token = x.prefix + first;
    u32 n = x.fold > 0 ? end_seen(token + m - 1, x.mask.ahead, x.prefix + own.length) * x.fold : x.prefix;
    u64 query = own.start + first, key = (u64)own.start * x.fold + (u64)place.s * x.prefix;
    load_tile<W>(queries, q + query * x.d + h * head, x.d, head, m);
    u32 step = 0, position = 0, example = 0;
    if (draw.keys != 0) {
        u32 i = row + lane % 2 * 8;
        u64 at = 2 * (query + (i < m ? i : 0));
        step = draw.step[0];
        example = draw.keys[at];
        position = draw.keys[at + 1];
    }
    float top[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0f, 0.0f}, acc[W / 8][4];
    clear_fragments(acc);
    u32 from = first_seen(token, x.mask.behind) * x.fold / 64 * 64;
    k += key * key_width + key_column;
    v += key * key_width + key_column;
    fetch_pair<W>(stages, k, v, key_width, head, from, n);
    for (u32 turn = 0; from < n; from += 64, turn ^= 1) {
        u32 count = n - from < 64 ? n - from : 64;
        const u16 *keys = stages + turn * 128 * apart, *values = keys + 64 * apart;
        wait_for_copies();
        __syncthreads();
        // While these are worked on, the next are on their way to where the last were.
        fetch_pair<W>(stages + (turn ^ 1) * 128 * apart, k, v, key_width, head, from + 64, n);
        float p[4][2][4];
        bool all = all_seen(x, token, m, from, count);
        multiply_tile<W>(p, queries, keys);
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
#pragma unroll
            for (u32 e = 0; e < 8; e++) {
                float y = score_of(p[c][e / 4][e % 4], x).exponent;
                u32 i = row + e / 2 % 2 * 8, j = 16 * c + e / 4 * 8 + pair + e % 2;
                bool seen = all || (j < count && sees(x.mask, token + i, token_of(from + j, x)));
                p[c][e / 4][e % 4] = seen ? y : minus_infinity();
            }
        }
        weigh<W>(p, top, sum, acc);
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
            if (draw.keys != 0) {
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    u32 dropped = dropped_by_queries(draw, step, h, from + 16 * c + 8 * half, position, example);
#pragma unroll
                    for (u32 e = 0; e < 4; e++) {
                        p[c][half][e] = dropped >> e & 1 ? 0.0f : p[c][half][e];
                    }
                }
            }
            u32 weights[4];
            as_left(weights, p[c][0], p[c][1]);
            add_weighted<W>(acc, weights, values + 16 * c * apart);
        }
    }
    float factors[2];
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 i = row + 8 * half;
        float all = sum_of_four(sum[half]);
        factors[half] = (draw.keys != 0 ? draw.scale : 1.0f) / all;
        if (lane % 4 == 0 && i < m && lse != 0) {
            lse[(query + i) * x.heads + h] = top[half] * 0.693147180559945309417f + log_fast(all);
        }
    }
    store_rows<W>(o + query * x.d + h * head, acc, factors, x.d, head, m);
}

// The last tiles come first: where queries see what is behind them, these have the most to do.
#define ATTENTION(name, W, blocks)                                                                                                                      \
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
            attend_in_bf16<W>(q, k, v, own, place, first, draw, o, lse, shape);                                                                         \
        }                                                                                                                                               \
    }

ATTENTION(attention_bf16_64, 64, 4)
ATTENTION(attention_bf16_128, 128, 2)
