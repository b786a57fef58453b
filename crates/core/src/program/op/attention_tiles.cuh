// Tiles of a head's rows in shared memory, and products of them on tensor cores. Blocks have 128 threads; a warp makes 16
// rows of results. What a number of a tile is, and how it is multiplied, is a format's.

// Which 16 bytes of 16 rows a lane names, for a left fragment, or for a right one out of rows that are added up over: 16 rows,
// two times 16 bytes.
__device__ inline u32 down(u32 apart, u32 chunk) {
    u32 lane = threadIdx.x % 32;
    return lane % 16 * apart + lane / 16 * chunk;
}

// The same for two right fragments out of 16 rows that are the result's columns.
__device__ inline u32 across(u32 apart, u32 chunk) {
    u32 lane = threadIdx.x % 32;
    return (lane % 8 + lane / 16 * 8) * apart + lane / 8 % 2 * chunk;
}

// Two neighbouring numbers, at once where they can be.
__device__ inline void store_two(act* to, float x, float y, bool second, bool whole) {
#if HELD == 2
    if (whole) {
        *(u32*)to = two_bfloats(x, y);
        return;
    }
#elif HELD == 0
    if (whole) {
        float2 both = {x, y};
        *(float2*)to = both;
        return;
    }
#endif
    to[0] = x;
    if (second) {
        to[1] = y;
    }
}

// Four neighbouring numbers of a row, of which `n` are there, at once where they can be.
__device__ inline void store_four(act* to, float x, float y, float z, float w, u32 n, bool whole) {
#if HELD == 0
    if (whole) {
        float4 all = {x, y, z, w};
        *(float4*)to = all;
        return;
    }
#endif
    float all[4] = {x, y, z, w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (i < n) {
            to[i] = all[i];
        }
    }
}

// Numbers rounded to bf16.
struct Bf16 {
    typedef u16 Number;
    // Numbers in 16 bytes; registers of a left fragment of 16 columns.
    static constexpr u32 CHUNK = 8, WEIGHTS = 4;
    // Whether activations are held so.
    static constexpr bool AS_HELD = HELD == 2;

    // A chunk of neighbours, aligned to what they take.
    static __device__ uint4 chunk(const act* from) {
#if HELD == 2
        return *(const uint4*)from;
#elif HELD == 1
        uint4 x = *(const uint4*)from;
        x.x = two_bfloats(wide_half((u16)x.x), wide_half((u16)(x.x >> 16)));
        x.y = two_bfloats(wide_half((u16)x.y), wide_half((u16)(x.y >> 16)));
        x.z = two_bfloats(wide_half((u16)x.z), wide_half((u16)(x.z >> 16)));
        x.w = two_bfloats(wide_half((u16)x.w), wide_half((u16)(x.w >> 16)));
        return x;
#else
        float4 a = ((const float4*)from)[0], b = ((const float4*)from)[1];
        return pack(a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
#endif
    }
    // Up to a chunk of numbers that may begin anywhere, and zeros.
    static __device__ uint4 few(const act* from, u32 n) {
        float x[8];
        for (u32 i = 0; i < 8; i++) {
            x[i] = i < n ? (float)from[i] : 0.0f;
        }
        return pack(x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]);
    }
    static __device__ uint4 pack(float a, float b, float c, float d, float e, float f, float g, float h) {
        uint4 x = {two_bfloats(a, b), two_bfloats(c, d), two_bfloats(e, f), two_bfloats(g, h)};
        return x;
    }
    static __device__ void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_fragments(d, a, b0, b1);
    }
    // Two columns of results of 8 as the left fragment of a product over them.
    static __device__ void as_left(u32 (&a)[WEIGHTS], const float (&low)[4], const float (&high)[4]) {
        a[0] = two_bfloats(low[0], low[1]);
        a[1] = two_bfloats(low[2], low[3]);
        a[2] = two_bfloats(high[0], high[1]);
        a[3] = two_bfloats(high[2], high[3]);
    }
    // Adds a warp's 16 by 16 weights times 16 rows of a tile.
    template <int W> static __device__ void add_weighted(float (&x)[W / 8][4], const u32 (&a)[WEIGHTS], const u16* rows) {
        rows += down(W + CHUNK, CHUNK);
#pragma unroll
        for (u32 n = 0; n < W / 16; n++) {
            u32 b[4];
            load_turned(b, rows + 16 * n);
            multiply_fragments(x[2 * n], a, b[0], b[1]);
            multiply_fragments(x[2 * n + 1], a, b[2], b[3]);
        }
    }
    // A lane's part of a row of such sums, those above or below, times a factor.
    template <int W> static __device__ void store(act* to, const float (&x)[W / 8][4], u32 half, float factor, u32 head, bool whole) {
#pragma unroll
        for (u32 n = 0; n < W / 8; n++) {
            u32 c = 8 * n + threadIdx.x % 4 * 2;
            if (c < head) {
                store_two(to + c, x[n][2 * half] * factor, x[n][2 * half + 1] * factor, c + 1 < head, whole);
            }
        }
    }
};

// Numbers in f32, as tensor cores read them in TF32: the bits behind the first ten are dropped, so that tiles are copied as
// they are. Weights are rounded.
struct Tf32 {
    typedef float Number;
    static constexpr u32 CHUNK = 4, WEIGHTS = 8;
    static constexpr bool AS_HELD = HELD == 0;

    static __device__ uint4 chunk(const act* from) {
        Four x = *(const Four*)from;
        return pack(x.x[0], x.x[1], x.x[2], x.x[3]);
    }
    static __device__ uint4 few(const act* from, u32 n) {
        float x[4];
        for (u32 i = 0; i < 4; i++) {
            x[i] = i < n ? (float)from[i] : 0.0f;
        }
        return pack(x[0], x[1], x[2], x[3]);
    }
    static __device__ uint4 pack(float a, float b, float c, float d) {
        uint4 x = {__float_as_uint(a), __float_as_uint(b), __float_as_uint(c), __float_as_uint(d)};
        return x;
    }
    static __device__ void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_in_tf32(d, a, b0, b1);
    }
    // Two fragments of eight columns each. The order of what is added up over is free: a lane's two neighbours of a result
    // stand for the columns lane % 4 and 4 more, here and in the rows that they weigh.
    static __device__ void as_left(u32 (&a)[WEIGHTS], const float (&low)[4], const float (&high)[4]) {
        a[0] = to_tf32(low[0]);
        a[1] = to_tf32(low[2]);
        a[2] = to_tf32(low[1]);
        a[3] = to_tf32(low[3]);
        a[4] = to_tf32(high[0]);
        a[5] = to_tf32(high[2]);
        a[6] = to_tf32(high[1]);
        a[7] = to_tf32(high[3]);
    }
    // So is the order of columns: column `lane / 4` of fragment 4 m + j is column 4 (lane / 4) + j of 32, so that a lane reads
    // four at once.
    template <int W> static __device__ void add_weighted(float (&x)[W / 8][4], const u32 (&a)[WEIGHTS], const float* rows) {
        u32 lane = threadIdx.x % 32;
        rows += lane % 4 * 2 * (W + CHUNK) + lane / 4 * 4;
#pragma unroll
        for (u32 s = 0; s < 2; s++) {
            u32 own[4] = {a[4 * s], a[4 * s + 1], a[4 * s + 2], a[4 * s + 3]};
#pragma unroll
            for (u32 m = 0; m < W / 32; m++) {
                const float* from = rows + 8 * s * (W + CHUNK) + 32 * m;
                uint4 b0 = *(const uint4*)from, b1 = *(const uint4*)(from + W + CHUNK);
                multiply_in_tf32(x[4 * m], own, b0.x, b1.x);
                multiply_in_tf32(x[4 * m + 1], own, b0.y, b1.y);
                multiply_in_tf32(x[4 * m + 2], own, b0.z, b1.z);
                multiply_in_tf32(x[4 * m + 3], own, b0.w, b1.w);
            }
        }
    }
    template <int W> static __device__ void store(act* to, const float (&x)[W / 8][4], u32 half, float factor, u32 head, bool whole) {
#pragma unroll
        for (u32 e = 0; e < W / 16; e++) {
            u32 c = e / 2 * 32 + threadIdx.x % 4 * 8 + e % 2 * 4, n = e / 2 * 4, i = 2 * half + e % 2;
            if (c < head) {
                store_four(to + c, x[n][i] * factor, x[n + 1][i] * factor, x[n + 2][i] * factor, x[n + 3][i] * factor, head - c, whole);
            }
        }
    }
};

// Rows of a tile of W columns are so far apart that eight of them meet all banks.
template <typename F, int W> constexpr u32 apart_in = W + F::CHUNK;

// Up to R rows of one head into a tile of W columns, padded with zeros.
template <typename F, int W, int R> __device__ inline void load_tile(typename F::Number* to, const act* from, u32 apart, u32 head, u32 rows) {
    const uint4 none = {0, 0, 0, 0};
    const u32 n = F::CHUNK, across = W / n;
    if (((u64)from & (n * sizeof(act) - 1)) != 0 || apart % n != 0 || head % n != 0) {
        for (u32 at = threadIdx.x; at < R * across; at += 128) {
            u32 i = at / across, c = at % across * n;
            *(uint4*)(to + i * apart_in<F, W> + c) = i < rows && c < head ? F::few(from + (u64)i * apart + c, head - c) : none;
        }
        return;
    }
    // All is read before any of it is written, so that a block waits once.
    uint4 x[R * across / 128];
#pragma unroll
    for (u32 e = 0; e < R * across / 128; e++) {
        u32 at = threadIdx.x + 128 * e, i = at / across, c = at % across * n;
        x[e] = i < rows && c < head ? F::chunk(from + (u64)i * apart + c) : none;
    }
#pragma unroll
    for (u32 e = 0; e < R * across / 128; e++) {
        u32 at = threadIdx.x + 128 * e, i = at / across, c = at % across * n;
        *(uint4*)(to + i * apart_in<F, W> + c) = x[e];
    }
}

// The same, of which the block may only be sure once each thread has waited for its copies and for the others.
template <typename F, int W, int R> __device__ inline void fetch_tile(typename F::Number* to, const act* from, u32 apart, u32 head, u32 rows) {
    if constexpr (F::AS_HELD) {
        const u32 n = F::CHUNK, across = W / n;
        if (((u64)from & 15) == 0 && apart % n == 0 && head % n == 0) {
#pragma unroll
            for (u32 e = 0; e < R * across / 128; e++) {
                u32 at = threadIdx.x + 128 * e, i = at / across, c = at % across * n;
                bool there = i < rows && c < head;
                copy_sixteen(to + i * apart_in<F, W> + c, there ? from + (u64)i * apart + c : from, there);
            }
            return;
        }
    }
    load_tile<F, W, R>(to, from, apart, head, rows);
}

// Fetches a tile of each of two matrices, from row `from` of `n`, if there is one.
template <typename F, int W, int R> __device__ inline void fetch_pair(typename F::Number* to, const act* a, const act* b, u32 apart, u32 head, u32 from, u32 n) {
    if (from < n) {
        u32 rows = n - from < R ? n - from : R;
        fetch_tile<F, W, R>(to, a + (u64)from * apart, apart, head, rows);
        fetch_tile<F, W, R>(to + R * apart_in<F, W>, b + (u64)from * apart, apart, head, rows);
    }
}

// A warp's 16 rows of results, those above and below times a factor each; `rows` of the block's 64 are there.
template <typename F, int W> __device__ inline void store_rows(act* to, const float (&x)[W / 8][4], const float (&factors)[2], u32 apart, u32 head, u32 rows) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool whole = ((u64)to & 15) == 0 && apart % 4 == 0 && head % 4 == 0;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 i = 16 * warp + lane / 4 + 8 * half;
        if (i < rows) {
            F::template store<W>(to + (u64)i * apart, x, half, factors[half], head, whole);
        }
    }
}

template <int N> __device__ inline void clear_fragments(float (&x)[N][4]) {
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0.0f;
    }
}

// The left fragments of a warp's 16 rows of a tile, at hand for narrow heads; of wide ones they stay in the tile.
template <typename F, int W> struct Left {
    static constexpr u32 STEPS = W / (2 * F::CHUNK);
    static constexpr bool AT_HAND = W <= 64;
    u32 own[AT_HAND ? STEPS : 1][4];
    const typename F::Number* tile;

    __device__ void load(const typename F::Number* from) {
        tile = from + threadIdx.x / 32 * 16 * apart_in<F, W> + down(apart_in<F, W>, F::CHUNK);
        if constexpr (AT_HAND) {
#pragma unroll
            for (u32 k = 0; k < STEPS; k++) {
                load_fragments(own[k], tile + 2 * F::CHUNK * k);
            }
        }
    }
    // Products with G times 16 rows of another tile.
    template <int G> __device__ void multiply(float (&x)[G][2][4], const typename F::Number* rows) const {
        rows += across(apart_in<F, W>, F::CHUNK);
#pragma unroll
        for (u32 c = 0; c < G; c++) {
            clear_fragments(x[c]);
        }
#pragma unroll
        for (u32 k = 0; k < STEPS; k++) {
            u32 a[4];
            if constexpr (AT_HAND) {
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    a[i] = own[k][i];
                }
            } else {
                load_fragments(a, tile + 2 * F::CHUNK * k);
            }
#pragma unroll
            for (u32 c = 0; c < G; c++) {
                u32 b[4];
                load_fragments(b, rows + 16 * c * apart_in<F, W> + 2 * F::CHUNK * k);
                F::multiply(x[c][0], a, b[0], b[1]);
                F::multiply(x[c][1], a, b[2], b[3]);
            }
        }
    }
};

// Adds a warp's 16 by 16 weights, as a product left them, times 16 rows of a tile.
template <typename F, int W> __device__ inline void add_products(float (&x)[W / 8][4], const float (&weights)[2][4], const typename F::Number* rows) {
    u32 left[F::WEIGHTS];
    F::as_left(left, weights[0], weights[1]);
    F::template add_weighted<W>(x, left, rows);
}
