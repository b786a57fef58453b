// Products on tensor cores of which one size is 16 at most, as LoRA's are: of such cuBLAS makes few blocks, which wait for
// memory. What is long is read where it is stored, 16 bytes a lane and many of them before the first is used; a thin
// operand without a rounded copy of it.
//
// `N` says in what numbers: a word of a fragment holds `PER` of them, rounded. In the sum of a fragment its places may be
// any: a lane takes neighbours, and the same on both sides.

struct Bfloat {
    u16 bits;
    __device__ operator float() const {
        return bfloat_to_float(bits);
    }
};

// Activations are f32 or bf16 here: no product is of f16.
#if HELD == 0
typedef float Long;
#else
typedef Bfloat Long;
#endif

// How operands are stored, and results; a thin one in bf16 is 1.
constexpr u32 TURNED = 2, OUT_NARROW = 4, LEFT_NARROW = 8;

// Numbers of either type, where speed does not matter.
struct Either {
    const void* x;
    bool is_narrow;
    __device__ float operator[](u64 i) const {
        return is_narrow ? (float)((const Bfloat*)x)[i] : ((const float*)x)[i];
    }
};

// Four words of neighbours.
struct alignas(16) Near {
    u32 x[4];
};

// Whether rows can be taken by so many neighbours.
__device__ inline bool in_parts(u32 width, u32 of, u64 addresses) {
    return width % of == 0 && addresses % 16 == 0;
}

__device__ inline u32 count_from(u32 at, u32 end) {
    return at < end ? end - at : 0;
}

// Four words of neighbours of `x`, from `at` on, zeros unless they are there. What is read in that case is the beginning,
// so that nothing branches between loads.
template <typename N, typename T> __device__ inline Near near_at(const T* x, u64 at, bool there) {
    Near own = N::near(x + (there ? at : 0));
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        own.x[i] = there ? own.x[i] : 0;
    }
    return own;
}

// The same of numbers `apart` from each other; of them `count` are there.
template <typename N, typename P> __device__ inline Near near_apart(P x, u64 at, u64 apart, u32 count) {
    Near own;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        own.x[i] = N::word(x, at + i * N::PER * apart, apart, count_from(i * N::PER, count));
    }
    return own;
}

__device__ inline void put_number(void* out, const void* added, u64 i, float x, bool is_narrow) {
    if (is_narrow) {
        x = added ? x + (float)((const Bfloat*)added)[i] : x;
        ((u16*)out)[i] = float_to_bfloat(x);
    } else {
        ((float*)out)[i] = added ? x + ((const float*)added)[i] : x;
    }
}

// A product over a long inner size: a block has 32 rows, so that the thin operand is not read as often as the long one.
struct Inner {
    const Long* x;
    void* out;
    const void* added;
    u32 rows, inner, width, stored;
    float alpha;
};

// A block's first row. The last rows are read first: they are what a kernel before, which wrote or read all of them, left
// in the cache.
__device__ inline u32 inner_top() {
    return (gridDim.x - 1 - blockIdx.x) * 32;
}

// Sums of 16 rows by 8 thin columns a tile over a warp's share of the inner size. `FAST`: in neighbours; a thin operand
// that is not turned is read number by number anyway. The order of a row's sum does not depend on the rows.
template <typename N, bool FAST, u32 TILES, typename P>
__device__ inline void inner_sums(const Inner& own, P thin, bool is_turned, float (&sum)[2][TILES][4]) {
    constexpr u32 WIDE = 16 * N::PER, STEPS = FAST ? 4 / TILES : 1;
    u32 lane = threadIdx.x % 32, across = lane / 4, row = inner_top() + across;
    for (u32 first = threadIdx.x / 32 * STEPS * WIDE; first < own.inner; first += blockDim.x / 32 * STEPS * WIDE) {
        Near left[STEPS][4], right[STEPS][TILES];
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            u32 at = first + step * WIDE + lane % 4 * 4 * N::PER;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                u64 from = (u64)(row + 8 * i) * own.inner + at;
                u32 count = row + 8 * i < own.rows ? count_from(at, own.inner) : 0;
                left[step][i] = FAST ? near_at<N>(own.x, from, count > 0) : near_apart<N>(own.x, from, 1, count);
            }
        }
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            u32 at = first + step * WIDE + lane % 4 * 4 * N::PER;
#pragma unroll
            for (u32 t = 0; t < TILES; t++) {
                u32 column = t * 8 + across, count = column < own.width ? count_from(at, own.inner) : 0;
                u64 from = is_turned ? (u64)column * own.inner + at : (u64)at * own.width + column;
                if constexpr (FAST) {
                    right[step][t] = is_turned ? near_at<N>(thin, from, count > 0) : near_apart<N>(thin, from, own.width, count);
                } else {
                    right[step][t] = near_apart<N>(thin, from, is_turned ? 1 : own.width, count);
                }
            }
        }
#pragma unroll
        for (u32 i = 0; i < STEPS * 2 * TILES * 2; i++) {
            u32 step = i / (4 * TILES), half = i / (2 * TILES) % 2, t = i / 2 % TILES, high = i % 2;
            const Near &above = left[step][2 * high], &below = left[step][2 * high + 1], &by = right[step][t];
            u32 a[4] = {above.x[2 * half], below.x[2 * half], above.x[2 * half + 1], below.x[2 * half + 1]};
            N::multiply(sum[high][t], a, by.x[2 * half], by.x[2 * half + 1]);
        }
    }
}

// Blocks have 256 threads.
template <typename N, bool FAST, u32 TILES, typename P> __device__ inline void inner_product(const Inner& own, P thin, float* parts) {
    float sum[2][TILES][4] = {};
    if (FAST && own.stored & TURNED) {
        inner_sums<N, FAST>(own, thin, true, sum);
    } else {
        inner_sums<N, FAST>(own, thin, !FAST && own.stored & TURNED, sum);
    }
    const u32 across = TILES * 8;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (u32 i = 0; i < 2 * TILES * 4; i++) {
        u32 high = i / (TILES * 4), t = i / 4 % TILES, e = i % 4;
        u32 row = high * 16 + lane / 4 + e / 2 * 8, column = t * 8 + lane % 4 * 2 + e % 2;
        parts[(warp * 32 + row) * across + column] = sum[high][t][e];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 32 * across; i += blockDim.x) {
        u32 row = inner_top() + i / across, column = i % across;
        if (row < own.rows && column < own.width) {
            float all = 0.0f;
            for (u32 w = 0; w < blockDim.x / 32; w++) {
                all += parts[w * 32 * across + i];
            }
            put_number(own.out, own.added, (u64)row * own.width + column, own.alpha * all, own.stored & OUT_NARROW);
        }
    }
}

template <typename N, typename T> __device__ inline void inner_product_of(const Inner& own, const T* thin, float* parts) {
    if (!in_parts(own.inner, 4 * N::PER, (u64)own.x | (own.stored & TURNED ? (u64)thin : 0))) {
        inner_product<N, false, 2>(own, thin, parts);
    } else if (own.width <= 8) {
        inner_product<N, true, 1>(own, thin, parts);
    } else {
        inner_product<N, true, 2>(own, thin, parts);
    }
}

// A product over a short inner size. A warp keeps 64 columns of the thin operand and goes down `steps` times the rows that
// are on their way at once.
struct Outer {
    const void* x;
    Long* out;
    const Long* added;
    u32 rows, columns, inner, stored, steps;
    float alpha;
};

// Neighbours of a result, as they are stored.
constexpr u32 NEAR = 16 / sizeof(Long);

struct alignas(16) Results {
    Long x[NEAR];
};

__device__ inline void put_results(float* out, const float (&x)[4]) {
    *(Floats*)out = Floats{{x[0], x[1], x[2], x[3]}};
}

__device__ inline void put_results(Bfloat* out, const float (&x)[8]) {
    *(Near*)out = Near{{two_bfloats(x[0], x[1]), two_bfloats(x[2], x[3]), two_bfloats(x[4], x[5]), two_bfloats(x[6], x[7])}};
}

// A lane's rows of a left fragment whose inner size is all of it.
template <typename N, u32 STEPS, typename T> __device__ inline void left_fragment(u32 (&a)[STEPS][4], const T* x, u32 top, const Outer& own) {
    u32 row = top + threadIdx.x % 32 / 4;
#pragma unroll
    for (u32 i = 0; i < STEPS * 4; i++) {
        u32 at = (i / 2 * 4 + threadIdx.x % 4) * N::PER, down = row + i % 2 * 8;
        a[i / 4][i % 4] = N::word(x, (u64)down * own.inner + at, 1, down < own.rows ? count_from(at, own.inner) : 0);
    }
}

// The fragments of a warp's 64 columns: of a tile of four times `NEAR` a lane gets the results of neighbours.
template <typename N, u32 STEPS, typename T> __device__ inline void right_fragments(u32 (&right)[STEPS][8][2], const T* thin, u32 from, const Outer& own) {
    u32 across = threadIdx.x % 32 / 4;
    bool is_turned = own.stored & TURNED;
#pragma unroll
    for (u32 i = 0; i < STEPS * 16; i++) {
        u32 n = i / 2 % 8, at = ((i / 16 * 2 + i % 2) * 4 + threadIdx.x % 4) * N::PER;
        u32 column = from + n / (NEAR / 2) * 4 * NEAR + across / 2 * NEAR + n % (NEAR / 2) * 2 + across % 2;
        u32 count = column < own.columns ? count_from(at, own.inner) : 0;
        u64 place = is_turned ? (u64)column * own.inner + at : (u64)at * own.columns + column;
        right[i / 16][n][i % 2] = N::word(thin, place, is_turned ? 1 : own.columns, count);
    }
}

// 16 rows by 64 columns by a warp; `there` is what is added.
template <typename N, bool FAST, u32 STEPS>
__device__ inline void outer_tile(const u32 (&a)[STEPS][4], const u32 (&right)[STEPS][8][2], const Results (&there)[16 / NEAR][2], u32 top, u32 from, const Outer& own) {
#pragma unroll
    for (u32 part = 0; part < 16 / NEAR; part++) {
        float sum[NEAR / 2][4] = {};
#pragma unroll
        for (u32 i = 0; i < STEPS * NEAR / 2; i++) {
            u32 step = i / (NEAR / 2), n = i % (NEAR / 2);
            const u32(&by)[2] = right[step][part * (NEAR / 2) + n];
            N::multiply(sum[n], a[step], by[0], by[1]);
        }
        u32 column = from + part * 4 * NEAR + threadIdx.x % 4 * NEAR;
#pragma unroll
        for (u32 below = 0; below < 2; below++) {
            u32 row = top + threadIdx.x % 32 / 4 + below * 8;
            u32 count = row < own.rows ? count_from(column, own.columns) : 0;
            u64 at = (u64)row * own.columns + column;
            float x[NEAR];
#pragma unroll
            for (u32 i = 0; i < NEAR; i++) {
                x[i] = own.alpha * sum[i / 2][below * 2 + i % 2];
                if (FAST && own.added) {
                    x[i] += (float)there[part][below].x[i];
                }
                if (!FAST && i < count) {
                    put_number(own.out, own.added, at + i, x[i], sizeof(Long) == 2);
                }
            }
            if (FAST && count > 0) {
                put_results(own.out + at, x);
            }
        }
    }
}

// These rows, in tiles: 32 rows in bf16, 16 in f32.
constexpr u32 AT_ONCE = NEAR / 4;

// What a warp adds to these rows from `top` on.
__device__ inline void load_added(Results (&there)[AT_ONCE][16 / NEAR][2], u32 top, u32 from, const Outer& own) {
#pragma unroll
    for (u32 i = 0; i < AT_ONCE * 32 / NEAR; i++) {
        u32 row = top + i / (32 / NEAR) * 16 + threadIdx.x % 32 / 4 + i % 2 * 8;
        u32 part = i / 2 % (16 / NEAR), column = from + part * 4 * NEAR + threadIdx.x % 4 * NEAR;
        bool within = row < own.rows && column < own.columns;
        there[i / (32 / NEAR)][part][i % 2] = *(const Results*)(own.added + (within ? (u64)row * own.columns + column : 0));
    }
}

template <typename N, bool FAST, u32 STEPS, typename T> __device__ inline void outer_product(const Outer& own, const T* thin) {
    u32 wide = (own.columns + 255) / 256, from = blockIdx.x % wide * 256 + threadIdx.x / 32 * 64;
    u32 top = blockIdx.x / wide * own.steps * AT_ONCE * 16, right[STEPS][8][2];
    Results there[AT_ONCE][16 / NEAR][2];
    bool adds = FAST && own.added;
    // It comes while the thin operand does.
    if (adds) {
        load_added(there, top, from, own);
    }
    right_fragments<N>(right, thin, from, own);
    for (u32 step = 0; step < own.steps && top < own.rows; step++, top += AT_ONCE * 16) {
        u32 a[AT_ONCE][STEPS][4];
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; i++) {
            if (own.stored & LEFT_NARROW) {
                left_fragment<N>(a[i], (const Bfloat*)own.x, top + i * 16, own);
            } else {
                left_fragment<N>(a[i], (const float*)own.x, top + i * 16, own);
            }
        }
#pragma unroll
        for (u32 i = 0; i < AT_ONCE; i++) {
            outer_tile<N, FAST>(a[i], right, there[i], top + i * 16, from, own);
        }
        if (adds && step + 1 < own.steps) {
            load_added(there, top + AT_ONCE * 16, from, own);
        }
    }
}

template <typename N, u32 STEPS, typename T> __device__ inline void outer_product_of(const Outer& own, const T* thin) {
    if (in_parts(own.columns, NEAR, (u64)own.out | (u64)own.added)) {
        outer_product<N, true, STEPS>(own, thin);
    } else {
        outer_product<N, false, STEPS>(own, thin);
    }
}

// Sums over a run of rows: a block has 64 columns, whose rows its warps share.
struct Rows {
    const Long* x;
    float* sums;
    u32 rows, run, columns, width, stored;
};

// Sums of 64 columns by 8 thin ones a tile over a warp's share of the rows from `begin` to `end`.
template <typename N, bool FAST, u32 TILES, typename P>
__device__ inline void row_sums(const Rows& own, P thin, u32 begin, u32 end, float (&sum)[4][TILES][4]) {
    constexpr u32 HIGH = 8 * N::PER, STEPS = FAST ? 4 / TILES : 1, PARTS = 2 / N::PER;
    u32 across = threadIdx.x % 32 / 4, column = blockIdx.x * 64 + across * 4 * N::PER;
    for (u32 first = begin + threadIdx.x / 32 * STEPS * HIGH; first < end; first += blockDim.x / 32 * STEPS * HIGH) {
        Near left[STEPS][PARTS][2 * N::PER];
        u32 right[STEPS][TILES][2], top = first + threadIdx.x % 4 * 2 * N::PER;
#pragma unroll
        for (u32 i = 0; i < STEPS * 4; i++) {
            u32 step = i / 4, part = i / (2 * N::PER) % PARTS, down = i % (2 * N::PER);
            u32 row = top + step * HIGH + down, to = column + part * 32;
            u64 at = (u64)row * own.columns + to;
            u32 count = row < end ? count_from(to, own.columns) : 0;
            left[step][part][down] = FAST ? near_at<N>(own.x, at, count > 0) : near_apart<N>(own.x, at, 1, count);
        }
#pragma unroll
        for (u32 i = 0; i < STEPS * TILES * 2; i++) {
            u32 row = top + i / (2 * TILES) * HIGH + i % 2 * N::PER, to = i / 2 % TILES * 8 + across;
            u32 count = to < own.width ? count_from(row, end) : 0;
            right[i / (2 * TILES)][i / 2 % TILES][i % 2] = N::word(thin, (u64)row * own.width + to, own.width, count);
        }
#pragma unroll
        for (u32 i = 0; i < STEPS * 4; i++) {
            u32 step = i / 4, part = i / (2 * N::PER) % PARTS, a[4];
            N::turn(a, left[step][part], i % (2 * N::PER));
#pragma unroll
            for (u32 t = 0; t < TILES; t++) {
                N::multiply(sum[i % 4][t], a, right[step][t][0], right[step][t][1]);
            }
        }
    }
}

// `parts` has place for eight warps.
template <typename N, bool FAST, u32 TILES, typename P> __device__ inline void row_product(const Rows& own, P thin, float* parts) {
    float sum[4][TILES][4] = {};
    u32 begin = blockIdx.y * own.run, end = begin + own.run < own.rows ? begin + own.run : own.rows;
    row_sums<N, FAST>(own, thin, begin, end, sum);
    const u32 across = TILES * 8, size = 64 * across;
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool turned = own.stored & TURNED;
#pragma unroll
    for (u32 i = 0; i < 4 * TILES * 4; i++) {
        u32 four = i / (4 * TILES), t = i / 4 % TILES, e = i % 4;
        u32 column = four / (2 * N::PER) * 32 + lane / 4 * 4 * N::PER + four % (2 * N::PER) * 2 + e / 2;
        u32 to = t * 8 + lane % 4 * 2 + e % 2;
        parts[warp * size + (turned ? to * 64 + column : column * across + to)] = sum[four][t][e];
    }
    __syncthreads();
    float* sums = own.sums + (u64)blockIdx.y * own.columns * own.width;
    for (u32 i = threadIdx.x; i < size; i += blockDim.x) {
        u32 column = blockIdx.x * 64 + (turned ? i % 64 : i / across), to = turned ? i / 64 : i % across;
        if (column < own.columns && to < own.width) {
            float all = 0.0f;
            for (u32 w = 0; w < blockDim.x / 32; w++) {
                all += parts[w * size + i];
            }
            sums[turned ? (u64)to * own.columns + column : (u64)column * own.width + to] = all;
        }
    }
}

template <typename N, typename T> __device__ inline void row_product_of(const Rows& own, const T* thin, float* parts) {
    if (!in_parts(own.columns, 4 * N::PER, (u64)own.x)) {
        row_product<N, false, 2>(own, thin, parts);
    } else if (own.width <= 8) {
        row_product<N, true, 1>(own, thin, parts);
    } else {
        row_product<N, true, 2>(own, thin, parts);
    }
}

// The sums of all runs in order, times `alpha` (+ added).
__device__ inline void sum_of_runs(const float* sums, void* out, const void* added, u64 n, u32 runs, bool is_narrow, float alpha) {
    EACH(i, n) {
        float sum = 0.0f;
        for (u32 run = 0; run < runs; run++) {
            sum += sums[run * n + i];
        }
        put_number(out, added, i, alpha * sum, is_narrow);
    }
}
