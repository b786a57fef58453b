// Products of bf16 numbers on tensor cores: a warp multiplies 16 by 16 by 16 by 8 with sums in f32. Blocks have 128
// threads, tiles 64 rows. A lane has, of a left fragment, the rows lane/4 and lane/4 + 8 and the columns
// 2 (lane % 4), the next, and these plus 8; of a result, the same rows and the first two of these columns.
//
// A test that compiles for the host has its own instructions.
#ifndef EMULATED
// d += a b.
__device__ inline void multiply_fragments(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 by 8; lanes 8 i .. 8 i + 7 say where the rows of matrix i begin. A lane gets of each the columns
// 2 (lane % 4) and the next in row lane/4.
__device__ inline void load_fragments(u32 (&x)[4], const u16* row) {
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}

// The same of the matrices' transposes.
__device__ inline void load_turned(u32 (&x)[4], const u16* row) {
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}

// Two numbers rounded to bf16, the first in the lower half.
__device__ inline u32 two_bfloats(float low, float high) {
    u32 x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

__device__ inline float wide_half(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

// Begins to copy 16 bytes, or 4, to shared memory, zeros where nothing is there. `wait_for_copies` waits for those of its
// own thread.
__device__ inline void copy_sixteen(void* to, const void* from, bool there) {
    u32 at = (u32)__cvta_generic_to_shared(to), bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(at), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void copy_four(void* to, const void* from, bool there) {
    u32 at = (u32)__cvta_generic_to_shared(to), bytes = there ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" : : "r"(at), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_all;" : : : "memory");
}

// 2^x to about two of f32's last places, and 0 where it is below the normal numbers.
__device__ inline float two_to(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

// Where a lane's row begins for a left fragment, and for a right one out of rows that are added up over: 16 rows, two
// times 8 columns.
__device__ inline u32 down(u32 apart) {
    u32 lane = threadIdx.x % 32;
    return lane % 16 * apart + lane / 16 * 8;
}

// The same for two right fragments out of 16 rows that are the result's columns.
__device__ inline u32 across(u32 apart) {
    u32 lane = threadIdx.x % 32;
    return (lane % 8 + lane / 16 * 8) * apart + lane / 8 % 2 * 8;
}

// Eight neighbouring numbers, aligned to 16 bytes, in bf16.
__device__ inline uint4 eight_bfloats(const act* from) {
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
    uint4 x = {two_bfloats(a.x, a.y), two_bfloats(a.z, a.w), two_bfloats(b.x, b.y), two_bfloats(b.z, b.w)};
    return x;
#endif
}

// Up to eight numbers that may begin anywhere, and zeros.
__device__ inline uint4 few_bfloats(const act* from, u32 n) {
    float x[8];
    for (u32 i = 0; i < 8; i++) {
        x[i] = i < n ? (float)from[i] : 0.0f;
    }
    uint4 y = {two_bfloats(x[0], x[1]), two_bfloats(x[2], x[3]), two_bfloats(x[4], x[5]), two_bfloats(x[6], x[7])};
    return y;
}

// Up to 64 rows of one head into a tile of W columns, rounded to bf16 and padded with zeros. Rows are W + 8 apart, so
// that eight of them meet all banks.
template <int W> __device__ inline void load_tile(u16* to, const act* from, u32 apart, u32 head, u32 rows) {
    const uint4 none = {0, 0, 0, 0};
    if (((u64)from & 15) != 0 || apart % 8 != 0 || head % 8 != 0) {
        for (u32 at = threadIdx.x; at < 8 * W; at += 128) {
            u32 i = at / (W / 8), c = at % (W / 8) * 8;
            *(uint4*)(to + i * (W + 8) + c) = i < rows && c < head ? few_bfloats(from + (u64)i * apart + c, head - c) : none;
        }
        return;
    }
    // All is read before any of it is written, so that a block waits once.
    uint4 x[W / 16];
#pragma unroll
    for (u32 e = 0; e < W / 16; e++) {
        u32 at = threadIdx.x + 128 * e, i = at / (W / 8), c = at % (W / 8) * 8;
        x[e] = i < rows && c < head ? eight_bfloats(from + (u64)i * apart + c) : none;
    }
#pragma unroll
    for (u32 e = 0; e < W / 16; e++) {
        u32 at = threadIdx.x + 128 * e, i = at / (W / 8), c = at % (W / 8) * 8;
        *(uint4*)(to + i * (W + 8) + c) = x[e];
    }
}

// The same, of which the block may only be sure once each thread has waited for its copies and for the others.
template <int W> __device__ inline void fetch_tile(u16* to, const act* from, u32 apart, u32 head, u32 rows) {
#if HELD == 2
    if (((u64)from & 15) == 0 && apart % 8 == 0 && head % 8 == 0) {
#pragma unroll
        for (u32 e = 0; e < W / 16; e++) {
            u32 at = threadIdx.x + 128 * e, i = at / (W / 8), c = at % (W / 8) * 8;
            bool there = i < rows && c < head;
            copy_sixteen(to + i * (W + 8) + c, there ? from + (u64)i * apart + c : from, there);
        }
        return;
    }
#endif
    load_tile<W>(to, from, apart, head, rows);
}

// Fetches a tile of each of two matrices, from row `from` of `n`, if there is one.
template <int W> __device__ inline void fetch_pair(u16* to, const act* a, const act* b, u32 apart, u32 head, u32 from, u32 n) {
    if (from < n) {
        u32 rows = n - from < 64 ? n - from : 64;
        fetch_tile<W>(to, a + (u64)from * apart, apart, head, rows);
        fetch_tile<W>(to + 64 * (W + 8), b + (u64)from * apart, apart, head, rows);
    }
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

// A warp's 16 rows of results, those above and below times a factor each; `rows` of the block's 64 are there.
template <int W> __device__ inline void store_rows(act* to, const float (&x)[W / 8][4], const float (&factors)[2], u32 apart, u32 head, u32 rows) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool whole = ((u64)to & 7) == 0 && apart % 2 == 0 && head % 2 == 0;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        u32 i = 16 * warp + lane / 4 + 8 * half;
#pragma unroll
        for (u32 n = 0; n < W / 8; n++) {
            u32 c = 8 * n + lane % 4 * 2;
            if (i < rows && c < head) {
                store_two(to + (u64)i * apart + c, x[n][2 * half] * factors[half], x[n][2 * half + 1] * factors[half], c + 1 < head, whole);
            }
        }
    }
}

// Two columns of results of 8 as the left fragment of a product over them.
__device__ inline void as_left(u32 (&a)[4], const float (&low)[4], const float (&high)[4]) {
    a[0] = two_bfloats(low[0], low[1]);
    a[1] = two_bfloats(low[2], low[3]);
    a[2] = two_bfloats(high[0], high[1]);
    a[3] = two_bfloats(high[2], high[3]);
}

// A warp's rows, whose left fragments these are, times 16 rows of a tile.
template <int W> __device__ inline void multiply_by_rows(float (&x)[2][4], const u32 (&a)[W / 16][4], const u16* rows) {
#pragma unroll
    for (u32 k = 0; k < W / 16; k++) {
        u32 b[4];
        load_fragments(b, rows + 16 * k + across(W + 8));
        multiply_fragments(x[0], a[k], b[0], b[1]);
        multiply_fragments(x[1], a[k], b[2], b[3]);
    }
}

// Adds a warp's 16 by 16 weights times 16 rows of a tile.
template <int W> __device__ inline void add_weighted(float (&x)[W / 8][4], const u32 (&a)[4], const u16* rows) {
#pragma unroll
    for (u32 n = 0; n < W / 16; n++) {
        u32 b[4];
        load_turned(b, rows + 16 * n + down(W + 8));
        multiply_fragments(x[2 * n], a, b[0], b[1]);
        multiply_fragments(x[2 * n + 1], a, b[2], b[3]);
    }
}

// The left fragments of a warp's 16 rows of a tile.
template <int W> __device__ inline void load_left(u32 (&a)[W / 16][4], const u16* tile) {
    const u16* own = tile + threadIdx.x / 32 * 16 * (W + 8) + down(W + 8);
#pragma unroll
    for (u32 k = 0; k < W / 16; k++) {
        load_fragments(a[k], own + 16 * k);
    }
}

template <int N> __device__ inline void clear_fragments(float (&x)[N][4]) {
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0.0f;
    }
}
