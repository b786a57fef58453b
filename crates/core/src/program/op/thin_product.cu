// Thin products of numbers rounded to bf16, which may be stored in f32 or so.

constexpr u32 THIN_NARROW = 1;

struct InBf16 {
    static constexpr u32 PER = 2;

    // Two numbers `apart` from each other; of them `count` are there.
    template <typename P> static __device__ inline u32 word(P x, u64 at, u64 apart, u32 count) {
        float first = count > 0 ? (float)x[at] : 0.0f, second = count > 1 ? (float)x[at + apart] : 0.0f;
        return two_bfloats(first, second);
    }

    static __device__ inline Near near(const Bfloat* x) {
        return *(const Near*)x;
    }

    static __device__ inline Near near(const float* x) {
        Floats low = ((const Floats*)x)[0], high = ((const Floats*)x)[1];
        return Near{{two_bfloats(low.x[0], low.x[1]), two_bfloats(low.x[2], low.x[3]), two_bfloats(high.x[0], high.x[1]), two_bfloats(high.x[2], high.x[3])}};
    }

    // The left fragment of two of eight columns, out of four rows that are added up over.
    static __device__ inline void turn(u32 (&a)[4], const Near (&rows)[4], u32 two) {
        a[0] = (rows[0].x[two] & 0xffff) | rows[1].x[two] << 16;
        a[1] = rows[0].x[two] >> 16 | (rows[1].x[two] & 0xffff0000u);
        a[2] = (rows[2].x[two] & 0xffff) | rows[3].x[two] << 16;
        a[3] = rows[2].x[two] >> 16 | (rows[3].x[two] & 0xffff0000u);
    }

    static __device__ inline void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_fragments(d, a, b0, b1);
    }
};

// `out[rows, width] = alpha x[rows, inner] thin (+ added)`; `thin` is `[inner, width]`, or turned.
extern "C" __launch_bounds__(256, 2) __global__ void NAMED(thin_inner)(const act* x, const void* thin, void* out, const void* added, u32 rows, u32 inner, u32 width, u32 stored, float alpha) {
    __shared__ float parts[8 * 32 * 16];
    Inner own = {(const Long*)x, out, added, rows, inner, width, stored, alpha};
    if (stored & THIN_NARROW) {
        inner_product_of<InBf16>(own, (const Bfloat*)thin, parts);
    } else {
        inner_product_of<InBf16>(own, (const float*)thin, parts);
    }
}

// `out[rows, columns] = alpha x[rows, inner] thin (+ added)` with an inner size of 16 at most; `thin` is `[inner, columns]`,
// or turned.
extern "C" __launch_bounds__(128) __global__ void NAMED(thin_outer)(const void* x, const void* thin, act* out, const act* added, u32 rows, u32 columns, u32 inner, u32 stored, u32 steps, float alpha) {
    Outer own = {x, (Long*)out, (const Long*)added, rows, columns, inner, stored, steps, alpha};
    if (stored & THIN_NARROW) {
        outer_product_of<InBf16, 1>(own, (const Bfloat*)thin);
    } else {
        outer_product_of<InBf16, 1>(own, (const float*)thin);
    }
}

// Sums over runs of rows of `x[rows, columns]` turned times `thin[rows, width]`, `[columns, width]` or turned.
extern "C" __launch_bounds__(256, 2) __global__ void NAMED(thin_rows)(const act* x, const void* thin, float* sums, u32 rows, u32 run, u32 columns, u32 width, u32 stored) {
    __shared__ float parts[8 * 64 * 16];
    Rows own = {(const Long*)x, sums, rows, run, columns, width, stored};
    if (stored & THIN_NARROW) {
        row_product_of<InBf16>(own, (const Bfloat*)thin, parts);
    } else {
        row_product_of<InBf16>(own, (const float*)thin, parts);
    }
}

extern "C" __global__ void NAMED(thin_runs)(const float* sums, void* out, const void* added, u64 n, u32 runs, u32 stored, float alpha) {
    sum_of_runs(sums, out, added, n, runs, stored & OUT_NARROW, alpha);
}
