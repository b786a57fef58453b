// What attention and its gradient share. A block has 256 threads, seen as 16 by 16: thread (ty, tx) holds
// the rows ty + 16 r and the columns tx + 16 c of a tile of 16 R by 16 R.

// A sequence as the offsets say, and whether they can be so: within the rows, no longer than the launch
// was made for, starting at 0 and ending with the rows.
struct Sequence {
    u32 start;
    u32 length;
    bool good;
};

__device__ inline Sequence sequence_at(const u32* offsets, u32 s, u32 sequences, u32 rows, u32 longest, u32* fault) {
    u32 start = offsets[s], end = offsets[s + 1];
    bool good = start <= end && end <= rows && end - start <= longest && (s > 0 || start == 0) && (s + 1 < sequences || end == rows);
    if (!good && threadIdx.x == 0) {
        raise_index(fault, end, rows);
    }
    Sequence own;
    own.start = start;
    own.length = end - start;
    own.good = good;
    return own;
}

// Rows of one head into shared memory, transposed and padded with zeros: column c of row i at
// c (16 R + 1) + i, so that neighbouring threads meet different banks both ways.
template <int R> __device__ inline void load_rows(float* to, const act* from, u32 d, u32 head, u32 rows) {
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

// A score within the soft cap, if there is one.
__device__ inline float capped(float x, float cap) {
    return cap > 0.0f ? cap * tanh_fast(x / cap) : x;
}
