// Products of bf16 numbers where one size is 16 at most, as LoRA's are: of such cuBLAS makes few blocks, which wait for
// memory. What is long is read where it is stored, 16 bytes a lane, and a thin operand from f32 without a copy of it in
// bf16. In the sum of a fragment its sixteen places may be any: a lane takes neighbours, and the same on both sides.
//
// Activations are f32 or bf16 here: no product is of f16.

struct Bfloat {
    u16 bits;
    __device__ operator float() const {
        return bfloat_to_float(bits);
    }
};

#if HELD == 0
typedef float Long;
#else
typedef Bfloat Long;
#endif

// How operands are stored, and results.
constexpr u32 THIN_NARROW = 1, TURNED = 2, OUT_NARROW = 4, LEFT_NARROW = 8;

// Numbers of either type, where speed does not matter.
struct Either {
    const void* x;
    bool is_narrow;
    __device__ float operator[](u64 i) const {
        return is_narrow ? (float)((const Bfloat*)x)[i] : ((const float*)x)[i];
    }
};

// Eight neighbours in bf16.
struct alignas(16) Eight {
    u32 x[4];
};

__device__ inline bool in_eights(u32 width, u64 addresses) {
    return width % 8 == 0 && addresses % 16 == 0;
}

// Eight neighbours of `x`, from `at` on, zeros unless they are there. What is read in that case is the beginning, so that
// nothing branches between loads.
__device__ inline Eight eight_at(const Bfloat* x, u64 at, bool there) {
    Eight own = *(const Eight*)(x + (there ? at : 0));
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        own.x[i] = there ? own.x[i] : 0;
    }
    return own;
}

__device__ inline Eight eight_at(const float* x, u64 at, bool there) {
    const Floats* from = (const Floats*)(x + (there ? at : 0));
    Floats low = from[0], high = from[1];
    Eight own = {{two_bfloats(low.x[0], low.x[1]), two_bfloats(low.x[2], low.x[3]), two_bfloats(high.x[0], high.x[1]), two_bfloats(high.x[2], high.x[3])}};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        own.x[i] = there ? own.x[i] : 0;
    }
    return own;
}

// Two numbers `apart` from each other; of them `count` are there.
template <typename P> __device__ inline u32 two_at(P x, u64 at, u64 apart, u32 count) {
    float first = count > 0 ? (float)x[at] : 0.0f, second = count > 1 ? (float)x[at + apart] : 0.0f;
    return two_bfloats(first, second);
}

// Eight numbers `apart` from each other; of them `count` are there.
template <typename P> __device__ inline Eight eight_apart(P x, u64 at, u64 apart, u32 count) {
    Eight own;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        own.x[i] = two_at(x, at + 2 * i * apart, apart, count > 2 * i ? count - 2 * i : 0);
    }
    return own;
}

__device__ inline u32 count_from(u32 at, u32 end) {
    return at < end ? end - at : 0;
}

__device__ inline void put_number(void* out, const void* added, u64 i, float x, bool is_narrow) {
    if (is_narrow) {
        x = added ? x + (float)((const Bfloat*)added)[i] : x;
        ((u16*)out)[i] = float_to_bfloat(x);
    } else {
        ((float*)out)[i] = added ? x + ((const float*)added)[i] : x;
    }
}

// Sums of 16 rows and 8 thin columns a tile over a warp's share of the inner size. `FAST`: in eights; a thin operand that
// is not turned is read number by number anyway.
template <bool FAST, u32 TILES, typename P>
__device__ inline void inner_sums(const Long* x, P thin, u32 rows, u32 inner, u32 width, bool is_turned, float (&sum)[TILES][4]) {
    u32 lane = threadIdx.x % 32, across = lane / 4, along = lane % 4 * 8, row = blockIdx.x * 16 + across;
    u32 end[2] = {row < rows ? inner : 0, row + 8 < rows ? inner : 0};
    for (u32 first = threadIdx.x / 32 * 64; first < inner; first += blockDim.x / 32 * 64) {
#pragma unroll
        for (u32 step = 0; step < 2; step++) {
            u32 at = first + step * 32 + along;
            Eight left[2], right[TILES];
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u64 from = (u64)(row + 8 * i) * inner + at;
                left[i] = FAST ? eight_at(x, from, at < end[i]) : eight_apart(x, from, 1, count_from(at, end[i]));
            }
#pragma unroll
            for (u32 t = 0; t < TILES; t++) {
                u32 column = t * 8 + across, last = column < width ? inner : 0;
                u64 from = is_turned ? (u64)column * inner + at : (u64)at * width + column;
                if constexpr (FAST) {
                    right[t] = is_turned ? eight_at(thin, from, at < last) : eight_apart(thin, from, width, count_from(at, last));
                } else {
                    right[t] = eight_apart(thin, from, is_turned ? 1 : width, count_from(at, last));
                }
            }
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 a[4] = {left[0].x[2 * half], left[1].x[2 * half], left[0].x[2 * half + 1], left[1].x[2 * half + 1]};
#pragma unroll
                for (u32 t = 0; t < TILES; t++) {
                    multiply_fragments(sum[t], a, right[t].x[2 * half], right[t].x[2 * half + 1]);
                }
            }
        }
    }
}

template <bool FAST, u32 TILES, typename P>
__device__ inline void inner_product(const Long* x, P thin, void* out, const void* added, u32 rows, u32 inner, u32 width, u32 stored, float alpha, float* parts) {
    float sum[TILES][4] = {};
    if (FAST && stored & TURNED) {
        inner_sums<FAST>(x, thin, rows, inner, width, true, sum);
    } else {
        inner_sums<FAST>(x, thin, rows, inner, width, !FAST && stored & TURNED, sum);
    }
    const u32 across = TILES * 8;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (u32 t = 0; t < TILES; t++) {
#pragma unroll
        for (u32 e = 0; e < 4; e++) {
            u32 row = lane / 4 + e / 2 * 8, column = t * 8 + lane % 4 * 2 + e % 2;
            parts[(warp * 16 + row) * across + column] = sum[t][e];
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 16 * across; i += blockDim.x) {
        u32 row = blockIdx.x * 16 + i / across, column = i % across;
        if (row < rows && column < width) {
            float all = 0.0f;
            for (u32 w = 0; w < blockDim.x / 32; w++) {
                all += parts[w * 16 * across + i];
            }
            put_number(out, added, (u64)row * width + column, alpha * all, stored & OUT_NARROW);
        }
    }
}

// `out[rows, width] = alpha x[rows, inner] thin (+ added)`: a block 16 rows, its warps the inner size in parts that do not
// depend on the rows. `thin` is `[inner, width]`, or turned.
extern "C" __launch_bounds__(512) __global__ void NAMED(thin_inner)(const act* x, const void* thin, void* out, const void* added, u32 rows, u32 inner, u32 width, u32 stored, float alpha) {
    __shared__ float parts[16 * 16 * 16];
    bool is_narrow = stored & THIN_NARROW;
    if (!in_eights(inner, (u64)x | (stored & TURNED ? (u64)thin : 0))) {
        inner_product<false, 2>((const Long*)x, Either{thin, is_narrow}, out, added, rows, inner, width, stored, alpha, parts);
    } else if (is_narrow && width <= 8) {
        inner_product<true, 1>((const Long*)x, (const Bfloat*)thin, out, added, rows, inner, width, stored, alpha, parts);
    } else if (is_narrow) {
        inner_product<true, 2>((const Long*)x, (const Bfloat*)thin, out, added, rows, inner, width, stored, alpha, parts);
    } else if (width <= 8) {
        inner_product<true, 1>((const Long*)x, (const float*)thin, out, added, rows, inner, width, stored, alpha, parts);
    } else {
        inner_product<true, 2>((const Long*)x, (const float*)thin, out, added, rows, inner, width, stored, alpha, parts);
    }
}

// Eight neighbours of a result, as they are stored.
struct Results {
#if HELD == 0
    Floats x[2];
    __device__ float at(u32 i) const {
        return x[i / 4].x[i % 4];
    }
#else
    Eight x;
    __device__ float at(u32 i) const {
        return bfloat_to_float((u16)(x.x[i / 2] >> (i % 2 * 16)));
    }
#endif
};

__device__ inline void put_results(Long* out, const float (&x)[8]) {
#if HELD == 0
    ((Floats*)out)[0] = Floats{{x[0], x[1], x[2], x[3]}};
    ((Floats*)out)[1] = Floats{{x[4], x[5], x[6], x[7]}};
#else
    *(Eight*)out = Eight{{two_bfloats(x[0], x[1]), two_bfloats(x[2], x[3]), two_bfloats(x[4], x[5]), two_bfloats(x[6], x[7])}};
#endif
}

// A lane's rows of a left fragment whose inner size is all of it.
template <typename T> __device__ inline void left_fragment(u32 (&a)[4], const T* x, const u32 (&row)[2], u32 along, u32 rows, u32 inner) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 at = along + i / 2 * 8;
        a[i] = two_at(x, (u64)row[i % 2] * inner + at, 1, row[i % 2] < rows ? count_from(at, inner) : 0);
    }
}

// 16 rows and 64 columns by a warp, from `from` on.
template <bool FAST>
__device__ inline void outer_tile(const u32 (&a)[4], const u32 (&right)[2][4][2], Long* out, const Long* added, const u32 (&row)[2], u32 from, u32 rows, u32 columns, float alpha) {
    u32 column = from + threadIdx.x % 4 * 8;
    Results there[2][2];
    if (FAST && added) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            bool within = row[i % 2] < rows && column + i / 2 * 32 < columns;
            u64 at = (u64)row[i % 2] * columns + column + i / 2 * 32;
            there[i / 2][i % 2] = *(const Results*)(added + (within ? at : 0));
        }
    }
#pragma unroll
    for (u32 c = 0; c < 2; c++) {
        float sum[4][4] = {};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            multiply_fragments(sum[i], a, right[c][i][0], right[c][i][1]);
        }
#pragma unroll
        for (u32 below = 0; below < 2; below++) {
            u32 count = row[below] < rows ? count_from(column + c * 32, columns) : 0;
            u64 at = (u64)row[below] * columns + column + c * 32;
            float own[8];
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                own[i] = alpha * sum[i / 2][below * 2 + i % 2];
                if (FAST && added) {
                    own[i] += there[c][below].at(i);
                }
                if (!FAST && i < count) {
                    put_number(out, added, at + i, own[i], sizeof(Long) == 2);
                }
            }
            if (FAST && count > 0) {
                put_results(out + at, own);
            }
        }
    }
}

// The fragments of a warp's 64 columns: in a tile of 32 a lane gets the results of eight neighbours.
template <typename T> __device__ inline void right_fragments(u32 (&right)[2][4][2], const T* thin, u32 from, u32 columns, u32 inner, bool is_turned) {
    u32 across = threadIdx.x % 32 / 4, along = threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        u32 column = from + i / 8 * 32 + across / 2 * 8 + 2 * (i / 2 % 4) + across % 2, at = along + i % 2 * 8;
        u32 count = column < columns ? count_from(at, inner) : 0;
        u64 place = is_turned ? (u64)column * inner + at : (u64)at * columns + column;
        right[i / 8][i / 2 % 4][i % 2] = two_at(thin, place, is_turned ? 1 : columns, count);
    }
}

// `out[rows, columns] = alpha x[rows, inner] thin (+ added)` with an inner size of 16 at most. A warp keeps 64 columns of
// `thin` and goes down `tiles` times 16 rows. `thin` is `[inner, columns]`, or turned.
extern "C" __launch_bounds__(128) __global__ void NAMED(thin_outer)(const void* x, const void* thin, act* out, const act* added, u32 rows, u32 columns, u32 inner, u32 stored, u32 tiles, float alpha) {
    u32 lane = threadIdx.x % 32, wide = (columns + 255) / 256;
    u32 from = blockIdx.x % wide * 256 + threadIdx.x / 32 * 64, top = blockIdx.x / wide * tiles * 16;
    bool fast = in_eights(columns, (u64)out | (u64)added);
    u32 right[2][4][2];
    if (stored & THIN_NARROW) {
        right_fragments(right, (const Bfloat*)thin, from, columns, inner, stored & TURNED);
    } else {
        right_fragments(right, (const float*)thin, from, columns, inner, stored & TURNED);
    }
    for (u32 tile = 0; tile < tiles && top + tile * 16 < rows; tile++) {
        u32 row[2] = {top + tile * 16 + lane / 4, top + tile * 16 + lane / 4 + 8}, a[4];
        if (stored & LEFT_NARROW) {
            left_fragment(a, (const Bfloat*)x, row, lane % 4 * 2, rows, inner);
        } else {
            left_fragment(a, (const float*)x, row, lane % 4 * 2, rows, inner);
        }
        if (fast) {
            outer_tile<true>(a, right, (Long*)out, (const Long*)added, row, from, rows, columns, alpha);
        } else {
            outer_tile<false>(a, right, (Long*)out, (const Long*)added, row, from, rows, columns, alpha);
        }
    }
}

// Sums of 64 columns and 8 thin ones a tile over a warp's share of the rows from `begin` to `end`, 16 at a time.
template <bool FAST, u32 TILES, typename P>
__device__ inline void row_sums(const Long* x, P thin, u32 begin, u32 end, u32 columns, u32 width, float (&sum)[4][TILES][4]) {
    u32 lane = threadIdx.x % 32, across = lane / 4, along = lane % 4 * 4, column = blockIdx.x * 64 + across * 8;
    for (u32 first = begin + threadIdx.x / 32 * 16; first < end; first += blockDim.x / 32 * 16) {
        u32 row = first + along, right[TILES][2];
        Eight own[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u64 at = (u64)(row + i) * columns + column;
            u32 count = row + i < end ? count_from(column, columns) : 0;
            own[i] = FAST ? eight_at(x, at, count > 0) : eight_apart(x, at, 1, count);
        }
#pragma unroll
        for (u32 t = 0; t < TILES; t++) {
            u32 last = t * 8 + across < width ? end : 0;
            u64 at = (u64)row * width + t * 8 + across;
            right[t][0] = two_at(thin, at, width, count_from(row, last));
            right[t][1] = two_at(thin, at + 2 * width, width, count_from(row + 2, last));
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 a[4] = {
                (own[0].x[i] & 0xffff) | own[1].x[i] << 16,
                own[0].x[i] >> 16 | (own[1].x[i] & 0xffff0000u),
                (own[2].x[i] & 0xffff) | own[3].x[i] << 16,
                own[2].x[i] >> 16 | (own[3].x[i] & 0xffff0000u),
            };
#pragma unroll
            for (u32 t = 0; t < TILES; t++) {
                multiply_fragments(sum[i][t], a, right[t][0], right[t][1]);
            }
        }
    }
}

template <bool FAST, u32 TILES, typename P>
__device__ inline void row_product(const Long* x, P thin, float* sums, u32 rows, u32 run, u32 columns, u32 width, u32 stored, float* parts) {
    float sum[4][TILES][4] = {};
    u32 begin = blockIdx.y * run, end = begin + run < rows ? begin + run : rows;
    row_sums<FAST>(x, thin, begin, end, columns, width, sum);
    const u32 across = TILES * 8, size = 64 * across;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool turned = stored & TURNED;
#pragma unroll
    for (u32 i = 0; i < 4 * TILES * 4; i++) {
        u32 four = i / (4 * TILES), t = i / 4 % TILES, e = i % 4;
        u32 column = lane / 4 * 8 + 2 * four + e / 2, own = t * 8 + lane % 4 * 2 + e % 2;
        parts[warp * size + (turned ? own * 64 + column : column * across + own)] = sum[four][t][e];
    }
    __syncthreads();
    sums += (u64)blockIdx.y * columns * width;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        u32 column = blockIdx.x * 64 + (turned ? i % 64 : i / across), own = turned ? i / 64 : i % across;
        if (column < columns && own < width) {
            float all = 0.0f;
            for (u32 w = 0; w < blockDim.x / 32; w++) {
                all += parts[w * size + i];
            }
            sums[turned ? (u64)own * columns + column : (u64)column * width + own] = all;
        }
    }
}

// Sums over runs of rows of `x[rows, columns]` turned times `thin[rows, width]`, `[columns, width]` or turned: a block 64
// columns and one run, whose rows its warps share.
extern "C" __launch_bounds__(256, 2) __global__ void NAMED(thin_rows)(const act* x, const void* thin, float* sums, u32 rows, u32 run, u32 columns, u32 width, u32 stored) {
    __shared__ float parts[8 * 64 * 16];
    bool is_narrow = stored & THIN_NARROW;
    if (!in_eights(columns, (u64)x)) {
        row_product<false, 2>((const Long*)x, Either{thin, is_narrow}, sums, rows, run, columns, width, stored, parts);
    } else if (is_narrow && width <= 8) {
        row_product<true, 1>((const Long*)x, (const Bfloat*)thin, sums, rows, run, columns, width, stored, parts);
    } else if (is_narrow) {
        row_product<true, 2>((const Long*)x, (const Bfloat*)thin, sums, rows, run, columns, width, stored, parts);
    } else if (width <= 8) {
        row_product<true, 1>((const Long*)x, (const float*)thin, sums, rows, run, columns, width, stored, parts);
    } else {
        row_product<true, 2>((const Long*)x, (const float*)thin, sums, rows, run, columns, width, stored, parts);
    }
}

// The sums of all runs in order, times `alpha` (+ added).
extern "C" __global__ void NAMED(thin_runs)(const float* sums, void* out, const void* added, u64 n, u32 runs, u32 stored, float alpha) {
    EACH(i, n) {
        float sum = 0.0f;
        for (u32 run = 0; run < runs; run++) {
            sum += sums[run * n + i];
        }
        put_number(out, added, i, alpha * sum, stored & OUT_NARROW);
    }
}
