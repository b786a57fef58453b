// The gradient in two walks, so that no sum is shared between blocks: one by queries for dq, one by keys
// for dk and dv. Both make the probabilities again from the log-sum-exps.

struct Shape {
    u32 rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix;
    Mask mask;
    float scale, cap;
    Beside beside;
};

// A sequence of a block, and its keys.
struct Own {
    Sequence tokens;
    Keys keys;
    bool good;
};

// Takes a block's sequence; across streams there are no keys but those of its source.
__device__ inline Own own_of(const u32* offsets, Shape& x, u32* fault) {
    u32 s = blockIdx.x / x.tiles;
    Own own;
    own.tokens = sequence_at(offsets, s, x.sequences, x.rows, x.longest, fault);
    own.keys = keys_of(x.beside, own.tokens, s, x.sequences, x.fold, x.prefix, fault);
    own.good = own.tokens.good && own.keys.good;
    x.prefix = own.keys.before;
    x.fold = x.beside.sources != 0 ? 0 : x.fold;
    return own;
}

// Σ up ⊙ o of each row and head; a warp each.
extern "C" __global__ void NAMED(attention_dots)(const act* up, const act* o, float* dots, u32 d, u32 heads, u64 count) {
    u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    u32 head = d / heads, lane = threadIdx.x % 32;
    float sum = 0.0f;
    if (at < count) {
        u64 from = at / heads * d + at % heads * head;
        for (u32 c = lane; c < head; c += 32) {
            sum += up[from + c] * o[from + c];
        }
    }
    sum = warp_sum(sum);
    if (at < count && lane == 0) {
        dots[at] = sum;
    }
}

// One pair of tiles: from products to the probabilities `p` (dropped) and `scale · dS` in their place.
// The factors of dropout, if any, are in `tile`. The first query is token `token` of its sequence, the first key `key`.
template <int R>
__device__ inline void score_tiles(float (&p)[R][R], float (&g)[R][R], const float* tile, bool dropped, const float* lse, const float* dots, u64 query, u32 h,
                                   Shape x, u32 m, u32 n, u32 token, u32 key) {
    u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    for (int r = 0; r < R; r++) {
        u32 i = ty + 16 * r;
        u64 at = (query + (i < m ? i : 0)) * x.heads + h;
        float shift = lse[at], dot = dots[at];
        for (int c = 0; c < R; c++) {
            u32 j = tx + 16 * c;
            float score = capped(p[r][c] * x.scale, x.cap), bent = score / x.cap;
            bool seen = i < m && j < n && sees(x.mask, token + i, (key + j) / (x.fold > 0 ? x.fold : 1));
            score += seen ? bias_of(x.beside, token + i, key + j, h, x.heads) : 0.0f;
            float own = seen ? exp_fast(score - shift) : 0.0f;
            float factor = dropped ? tile[i * (16 * R + 1) + j] : 1.0f, slope = x.cap > 0.0f ? 1.0f - bent * bent : 1.0f;
            g[r][c] = own * (g[r][c] * factor - dot) * x.scale * slope;
            p[r][c] = own * factor;
        }
    }
}

template <int R> __device__ inline void store_tile(float* tile, const float (&x)[R][R]) {
    u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < R; c++) {
            tile[(ty + 16 * r) * (16 * R + 1) + tx + 16 * c] = x[r][c];
        }
    }
}

// The caller has the block wait before the factors are read.
template <int R> __device__ inline void fill_factors(float* tile, Draw draw, u32 h, u32 query, u32 m, u32 key) {
    float ones[R][R];
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < R; c++) {
            ones[r][c] = 1.0f;
        }
    }
    store_tile<R>(tile, ones);
    __syncthreads();
    drop_tile<R>(tile, draw, h, query, m, key);
}

// acc[r][c] += Σ weight(row, k) · other(column, k) over `count` k; `by_row` says how the tile is read.
template <int R, int C>
__device__ inline void add_products(float (&acc)[R][C], const float* tile, bool by_row, const float* other, u32 head, u32 count) {
    const u32 stride = 16 * R + 1;
    u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    for (u32 k = 0; k < count; k++) {
        float weights[R];
        for (int r = 0; r < R; r++) {
            weights[r] = by_row ? tile[(ty + 16 * r) * stride + k] : tile[k * stride + ty + 16 * r];
        }
        for (int c = 0; c < C; c++) {
            if (tx + 16 * c < head) {
                float value = other[(tx + 16 * c) * stride + k];
                for (int r = 0; r < R; r++) {
                    acc[r][c] = fmaf(weights[r], value, acc[r][c]);
                }
            }
        }
    }
}

template <int R, int C> __device__ inline void clear(float (&acc)[R][C]) {
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) {
            acc[r][c] = 0.0f;
        }
    }
}

template <int R, int C> __device__ inline void write_rows(act* to, const float (&acc)[R][C], u32 d, u32 head, u32 rows) {
    u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < C; c++) {
            if (ty + 16 * r < rows && tx + 16 * c < head) {
                to[(u64)(ty + 16 * r) * d + tx + 16 * c] = acc[r][c];
            }
        }
    }
}

template <int R, int C>
__device__ inline void by_queries(const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, const u32* offsets,
                                  Draw draw, act* dq, u32* fault, Shape x) {
    SHARED(shared);
    const u32 width = 16 * R, stride = width + 1;
    u32 head = x.d / x.heads, h = blockIdx.y, key_width = head * x.shared_heads, key_column = h / (x.heads / x.shared_heads) * head;
    Own both = own_of(offsets, x, fault);
    Sequence own = both.tokens;
    u32 first = blockIdx.x % x.tiles * width;
    if (!both.good || first >= own.length) {
        return;
    }
    u32 m = own.length - first < width ? own.length - first : width, token = x.prefix + first;
    u32 n = x.fold > 0 ? end_seen(token + m - 1, x.mask.ahead, x.prefix + own.length) * x.fold : x.prefix;
    float *queries = shared, *ups = queries + head * stride, *keys = ups + head * stride, *values = keys + head * stride, *tile = values + head * stride;
    u64 query = own.start + first, key = both.keys.first;
    load_rows<R>(queries, q + query * x.d + h * head, x.d, head, m);
    load_rows<R>(ups, up + query * x.d + h * head, x.d, head, m);
    float acc[R][C];
    clear(acc);
    for (u32 from = first_seen(token, x.mask.behind) * x.fold / width * width; from < n; from += width) {
        u32 count = n - from < width ? n - from : width;
        u64 at = (key + from) * key_width + key_column;
        __syncthreads();
        load_rows<R>(keys, k + at, key_width, head, count);
        load_rows<R>(values, v + at, key_width, head, count);
        if (draw.keys != 0) {
            fill_factors<R>(tile, draw, h, (u32)query, m, from);
        }
        __syncthreads();
        float p[R][R], g[R][R];
        multiply_rows<R>(p, queries, keys, head);
        multiply_rows<R>(g, ups, values, head);
        score_tiles<R>(p, g, tile, draw.keys != 0, lse, dots, query, h, x, m, count, token, from);
        store_tile<R>(tile, g);
        __syncthreads();
        add_products<R, C>(acc, tile, true, keys, head, count);
    }
    write_rows(dq + query * x.d + h * head, acc, x.d, head, m);
}

template <int R, int C>
__device__ inline void by_keys(const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, const u32* offsets,
                               Draw draw, act* dk, act* dv, u32* fault, Shape x) {
    SHARED(shared);
    const u32 width = 16 * R, stride = width + 1;
    u32 head = x.d / x.heads, group = x.heads / x.shared_heads, key_width = head * x.shared_heads;
    Own both = own_of(offsets, x, fault);
    Sequence own = both.tokens;
    u32 first = blockIdx.x % x.tiles * width, n = own.length * x.fold + x.prefix, per = x.fold > 0 ? x.fold : 1;
    if (!both.good || first >= n) {
        return;
    }
    u32 count = n - first < width ? n - first : width;
    float *queries = shared, *ups = queries + head * stride, *keys = ups + head * stride, *values = keys + head * stride, *tile = values + head * stride;
    u64 at = (both.keys.first + first) * key_width + blockIdx.y * head;
    load_rows<R>(keys, k + at, key_width, head, count);
    load_rows<R>(values, v + at, key_width, head, count);
    float keys_acc[R][C], values_acc[R][C];
    clear(keys_acc);
    clear(values_acc);
    // The queries that see some of these keys: the mask turned round.
    u32 begin = first_seen(first / per, x.mask.ahead), end = end_seen((first + count - 1) / per, x.mask.behind, x.prefix + own.length);
    begin = (begin > x.prefix ? begin - x.prefix : 0) / width * width;
    end = end > x.prefix ? end - x.prefix : 0;
    for (u32 h = blockIdx.y * group; h < (blockIdx.y + 1) * group; h++) {
        for (u32 from = begin; from < end; from += width) {
            u32 m = own.length - from < width ? own.length - from : width;
            u64 query = own.start + from;
            __syncthreads();
            load_rows<R>(queries, q + query * x.d + h * head, x.d, head, m);
            load_rows<R>(ups, up + query * x.d + h * head, x.d, head, m);
            if (draw.keys != 0) {
                fill_factors<R>(tile, draw, h, (u32)query, m, first);
            }
            __syncthreads();
            float p[R][R], g[R][R];
            multiply_rows<R>(p, queries, keys, head);
            multiply_rows<R>(g, ups, values, head);
            score_tiles<R>(p, g, tile, draw.keys != 0, lse, dots, query, h, x, m, count, x.prefix + from, first);
            store_tile<R>(tile, p);
            __syncthreads();
            add_products<R, C>(values_acc, tile, false, ups, head, m);
            __syncthreads();
            store_tile<R>(tile, g);
            __syncthreads();
            add_products<R, C>(keys_acc, tile, false, queries, head, m);
        }
    }
    write_rows(dk + at, keys_acc, key_width, head, count);
    write_rows(dv + at, values_acc, key_width, head, count);
}

#define ATTENTION_GRAD(columns, R, C)                                                                                                                   \
    extern "C" __global__ void NAMED(attention_grad_queries_##columns)(                                                                                 \
        const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, const u32* offsets, const u32* keys,              \
        const u32* step, act* dq, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, u32 prefix, \
        u32 behind, u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept, const u32* sources, const float* bias, u32 key_rows,      \
        u32 longest_source, u32 middle) {                                                                                                               \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                  \
        Shape shape = {rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix, {behind, ahead}, scale, cap,                               \
                       {sources, bias, key_rows, longest_source, middle}};                                                                              \
        by_queries<R, C>(up, q, k, v, lse, dots, offsets, draw, dq, fault, shape);                                                                      \
    }                                                                                                                                                   \
    extern "C" __global__ void NAMED(attention_grad_keys_##columns)(                                                                                    \
        const act* up, const act* q, const act* k, const act* v, const float* lse, const float* dots, const u32* offsets, const u32* keys,              \
        const u32* step, act* dk, act* dv, u32* fault, u32 rows, u32 d, u32 heads, u32 shared_heads, u32 sequences, u32 tiles, u32 longest, u32 fold, u32 prefix, \
        u32 behind, u32 ahead, float scale, float cap, u32 k0, u32 k1, u32 limit, float kept, const u32* sources, const float* bias, u32 key_rows,      \
        u32 longest_source, u32 middle) {                                                                                                               \
        Draw draw = {keys, step, k0, k1, limit, kept};                                                                                                  \
        Shape shape = {rows, d, heads, shared_heads, sequences, tiles, longest, fold, prefix, {behind, ahead}, scale, cap,                               \
                       {sources, bias, key_rows, longest_source, middle}};                                                                              \
        by_keys<R, C>(up, q, k, v, lse, dots, offsets, draw, dk, dv, fault, shape);                                                                     \
    }

ATTENTION_GRAD(64, 4, 4)
ATTENTION_GRAD(128, 2, 8)
ATTENTION_GRAD(256, 1, 16)
