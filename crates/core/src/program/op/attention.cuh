// What attention and its gradient share. A block has 256 threads, seen as 16 by 16: thread (ty, tx) holds
// the rows ty + 16 r and the columns tx + 16 c of a tile of 16 R by 16 R.

// Rows of one head into shared memory, transposed and padded with zeros: column c of row i at
// c (16 R + 1) + i, so that neighbouring threads meet different banks both ways.
template <int R, typename K> __device__ inline void load_rows(float* to, const K* from, u32 d, u32 head, u32 rows) {
    for (u32 e = threadIdx.x; e < 16 * R * head; e += 256) {
        u32 i = e / head, c = e % head;
        to[c * (16 * R + 1) + i] = i < rows ? from[(u64)i * d + c] : 0.0f;
    }
}

// products[r][c] = row ty + 16 r of `a` times row tx + 16 c of `b`.
template <int R> __device__ inline void multiply_rows(float (&products)[R][R], const float* a, const float* b, u32 head) {
    u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    for (int r = 0; r < R; r++) {
        for (int c = 0; c < R; c++) {
            products[r][c] = 0.0f;
        }
    }
    for (u32 k = 0; k < head; k++) {
        float left[R], right[R];
        for (int r = 0; r < R; r++) {
            left[r] = a[k * (16 * R + 1) + ty + 16 * r];
            right[r] = b[k * (16 * R + 1) + tx + 16 * r];
        }
        for (int r = 0; r < R; r++) {
            for (int c = 0; c < R; c++) {
                products[r][c] = fmaf(left[r], right[c], products[r][c]);
            }
        }
    }
}

// Dropout's draw: the mask of query and key depends on the stream, the step, the query's example and
// position, the head and the key.
struct Draw {
    const u32* keys;
    const u32* step;
    u32 k0, k1, limit;
    float scale;
};

// Multiplies a tile of probabilities by the factors of dropout, 0 or the scale. `rows` queries from row
// `query`, keys from `key`, which is a multiple of 16.
template <int R> __device__ inline void drop_tile(float* tile, Draw draw, u32 head, u32 query, u32 rows, u32 key) {
    u32 ty = threadIdx.x / 16, tx = threadIdx.x % 16, step = draw.step[0];
    for (int r = 0; r < R; r++) {
        u32 i = ty + 16 * r;
        if (i >= rows) {
            continue;
        }
        u32 example = draw.keys[2 * (u64)(query + i)], position = draw.keys[2 * (u64)(query + i) + 1];
        for (u32 four = tx; four < 4 * R; four += 16) {
            Words words = philox(draw.k0, draw.k1, (head << 20) + key / 4 + four, position, example, step);
            for (u32 j = 0; j < 4; j++) {
                float* x = &tile[i * (16 * R + 1) + 4 * four + j];
                *x = words.word[j] < draw.limit ? 0.0f : *x * draw.scale;
            }
        }
    }
}

// Which tokens of its sequence a query sees: so many behind and ahead; the largest number is no bound.
struct Mask {
    u32 behind, ahead;
};

__device__ inline u32 first_seen(u32 token, u32 behind) {
    return token > behind ? token - behind : 0;
}

__device__ inline u32 end_seen(u32 token, u32 ahead, u32 length) {
    return length - 1 - token <= ahead ? length : token + ahead + 1;
}

// Whether a query at a token sees a key of another.
__device__ inline bool sees(Mask mask, u32 query, u32 key) {
    return key > query ? key - query <= mask.ahead : query - key <= mask.behind;
}

// What else an attention may read: the sources' offsets, whose tokens are the keys then, and a bias by distance, a row of
// numbers of all heads each, of which `middle` is that of distance 0.
struct Beside {
    const u32* sources;
    const float* bias;
    u32 rows, longest, middle;
};

// A sequence's keys: the first one's row, and how many there are that are not its own.
struct Keys {
    u64 first;
    u32 before;
    bool good;
};

__device__ inline Keys keys_of(Beside beside, Sequence own, u32 s, u32 sequences, u32 fold, u32 prefix, u32* fault) {
    Keys keys = {(u64)own.start * fold + (u64)s * prefix, prefix, true};
    if (beside.sources != 0) {
        Sequence source = sequence_at(beside.sources, s, sequences, beside.rows, beside.longest, fault);
        keys.first = source.start;
        keys.before = source.length;
        keys.good = source.good;
        if (source.good && source.length == 0 && own.length > 0) {
            keys.good = false;
            if (threadIdx.x == 0) {
                raise_index(fault, s, 0);
            }
        }
    }
    return keys;
}

// What the bias adds to the score of a query and a key of a sequence.
__device__ inline float bias_of(Beside beside, u32 query, u32 key, u32 h, u32 heads) {
    return beside.bias != 0 ? beside.bias[(u64)(beside.middle + key - query) * heads + h] : 0.0f;
}

// A score within the soft cap, if there is one.
__device__ inline float capped(float x, float cap) {
    return cap > 0.0f ? cap * tanh_fast(x / cap) : x;
}

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
// is scaled anew whenever a larger score turns up (Dao et al. 2022). A head has at most 16 C columns. `first` of the
// sequence's rows is the tile's first query; `before` tokens of the sequence have keys and no query here, and `key` is the
// first row of its keys.
template <int R, int C, typename K>
__device__ inline void attend(const act* q, const K* k, const K* v, Sequence own, u32 first, u32 before, u64 key, Draw draw, act* o, float* lse,
                              u32 d, u32 heads, u32 shared_heads, u32 fold, Mask mask, float scale, float cap, Beside beside) {
    SHARED(shared);
    const u32 width = 16 * R, stride = width + 1;
    u32 head = d / heads, h = blockIdx.y, key_width = head * shared_heads, key_column = h / (heads / shared_heads) * head, ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    u32 m = own.length - first < width ? own.length - first : width, token = before + first, length = before + own.length;
    // Without keys of their own, queries see all that stand before.
    u32 n = fold > 0 ? end_seen(token + m - 1, mask.ahead, length) * fold : before, per = fold > 0 ? fold : 1;
    float *queries = shared, *other = queries + head * stride, *tile = other + head * stride;
    u64 query = own.start + first;
    load_rows<R>(queries, q + query * d + h * head, d, head, m);
    float top[R], sum[R], acc[R][C];
    for (int r = 0; r < R; r++) {
        top[r] = minus_infinity();
        sum[r] = 0.0f;
        for (int c = 0; c < C; c++) {
            acc[r][c] = 0.0f;
        }
    }
    for (u32 from = first_seen(token, mask.behind) * fold / width * width; from < n; from += width) {
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
                u32 i = ty + 16 * r;
                seen[c] = j < count && sees(mask, token + i, (from + j) / per);
                float more = seen[c] && i < m ? bias_of(beside, token + i, from + j, h, heads) : 0.0f;
                float x = seen[c] ? capped(scores[r][c] * scale, cap) + more : minus_infinity();
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
        if (tx == 0 && lse != 0) {
            lse[(query + i) * heads + h] = top[r] + (float)log((double)sum[r]);
        }
    }
}
