// Over 16 lanes that share ty.
__device__ inline float max_over_tx(float x) {
    for (int step = 8; step > 0; step >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, x, step);
        x = other > x ? other : x;
    }
    return x;
}

__device__ inline float sum_over_tx(float x) {
    for (int step = 8; step > 0; step >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

// A block makes one tile of a head's queries of one sequence; tiles of keys pass by, and what was summed
// is scaled anew whenever a larger score turns up (Dao et al. 2022). A head has at most 16 C columns.
template <int R, int C>
__device__ inline void attend(const act* q, const act* k, const act* v, const u32* offsets, Draw draw, act* o, float* lse, u32* fault, u32 rows,
                              u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, Mask mask, float scale, float cap) {
    SHARED(shared);
    const u32 width = 16 * R, stride = width + 1;
    u32 head = d / heads, h = blockIdx.y, key_width = head * shared_heads, key_column = h / (heads / shared_heads) * head, ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    Sequence own = sequence_at(offsets, blockIdx.x / tiles, sequences, rows, longest, fault);
    u32 first = blockIdx.x % tiles * width;
    if (!own.good || first >= own.length) {
        return;
    }
    u32 m = own.length - first < width ? own.length - first : width, n = end_seen(first + m - 1, mask.ahead, own.length) * fold;
    float *queries = shared, *other = queries + head * stride, *tile = other + head * stride;
    u64 query = own.start + first, key = (u64)own.start * fold;
    load_rows<R>(queries, q + query * d + h * head, d, head, m);
    float top[R], sum[R], acc[R][C];
    for (int r = 0; r < R; r++) {
        top[r] = minus_infinity();
        sum[r] = 0.0f;
        for (int c = 0; c < C; c++) {
            acc[r][c] = 0.0f;
        }
    }
    for (u32 from = first_seen(first, mask.behind) * fold / width * width; from < n; from += width) {
        u32 count = n - from < width ? n - from : width;
        u64 at = (key + from) * key_width + key_column;
        __syncthreads();
        load_rows<R>(other, k + at, key_width, head, count);
        __syncthreads();
        float scores[R][R];
        multiply_rows<R>(scores, queries, other, head);
        for (int r = 0; r < R; r++) {
            float high = top[r];
            bool seen[R];
            for (int c = 0; c < R; c++) {
                u32 j = tx + 16 * c;
                seen[c] = j < count && sees(mask, first + ty + 16 * r, (from + j) / fold);
                float x = seen[c] ? capped(scores[r][c] * scale, cap) : minus_infinity();
                scores[r][c] = x;
                high = x > high ? x : high;
            }
            high = max_over_tx(high);
            float total = 0.0f;
            for (int c = 0; c < R; c++) {
                float p = seen[c] ? exp_fast(scores[r][c] - high) : 0.0f;
                tile[(ty + 16 * r) * stride + tx + 16 * c] = p;
                total += p;
            }
            // A query may see no key of its first tiles.
            float shrink = high == minus_infinity() ? 1.0f : exp_fast(top[r] - high);
            sum[r] = sum[r] * shrink + sum_over_tx(total);
            top[r] = high;
            for (int c = 0; c < C; c++) {
                acc[r][c] *= shrink;
            }
        }
        __syncthreads();
        load_rows<R>(other, v + at, key_width, head, count);
        if (draw.keys != 0) {
            drop_tile<R>(tile, draw, h, (u32)query, m, from);
        }
        __syncthreads();
        for (u32 j = 0; j < count; j++) {
            float weights[R];
            for (int r = 0; r < R; r++) {
                weights[r] = tile[(ty + 16 * r) * stride + j];
            }
            for (int c = 0; c < C; c++) {
                if (tx + 16 * c < head) {
                    float value = other[(tx + 16 * c) * stride + j];
                    for (int r = 0; r < R; r++) {
                        acc[r][c] = fmaf(weights[r], value, acc[r][c]);
                    }
                }
            }
        }
    }
    for (int r = 0; r < R; r++) {
        u32 i = ty + 16 * r;
        if (i >= m) {
            continue;
        }
        float inverse = 1.0f / sum[r];
        for (int c = 0; c < C; c++) {
            if (tx + 16 * c < head) {
                o[(query + i) * d + h * head + tx + 16 * c] = acc[r][c] * inverse;
            }
        }
        if (tx == 0) {
            lse[(query + i) * heads + h] = top[r] + (float)log((double)sum[r]);
        }
    }
}

#define ATTENTION(name, R, C)                                                                                                                           \
    extern "C" __global__ void NAMED(name)(const act* q, const act* k, const act* v, const u32* offsets, const u32* keys, const u32* step, act* o,      \
                                    float* lse, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest,        \
                                    u32 fold, u32 behind, u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept) {                   \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                  \
        Mask mask = {behind, ahead};                                                                                                                    \
        attend<R, C>(q, k, v, offsets, draw, o, lse, fault, rows, d, heads, shared_heads, sequences, tiles, longest, fold, mask, scale, cap);           \
    }

ATTENTION(attention_64, 4, 4)
ATTENTION(attention_128, 2, 8)
ATTENTION(attention_256, 1, 16)
