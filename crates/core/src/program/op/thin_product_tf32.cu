// Thin products of numbers rounded to TF32; all is stored in f32.

struct InTf32 {
    static constexpr u32 PER = 1;

    template <typename P> static __device__ inline u32 word(P x, u64 at, u64, u32 count) {
        return to_tf32(count > 0 ? (float)x[at] : 0.0f);
    }

    static __device__ inline Near near(const float* x) {
        Floats own = *(const Floats*)x;
        return Near{{to_tf32(own.x[0]), to_tf32(own.x[1]), to_tf32(own.x[2]), to_tf32(own.x[3])}};
    }

    // The left fragment of two of four columns, out of two rows that are added up over.
    static __device__ inline void turn(u32 (&a)[4], const Near (&rows)[2], u32 two) {
        a[0] = rows[0].x[2 * two];
        a[1] = rows[0].x[2 * two + 1];
        a[2] = rows[1].x[2 * two];
        a[3] = rows[1].x[2 * two + 1];
    }

    static __device__ inline void multiply(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_in_tf32(d, a, b0, b1);
    }
};

// `out[rows, width] = alpha x[rows, inner] thin (+ added)`; `thin` is `[inner, width]`, or turned.
extern "C" __launch_bounds__(256, 2) __global__ void thin_inner_tf32(const float* x, const float* thin, float* out, const float* added, u32 rows, u32 inner, u32 width, u32 stored, float alpha) {
    __shared__ float parts[8 * 32 * 16];
    inner_product_of<InTf32>(Inner{x, out, added, rows, inner, width, stored, alpha}, thin, parts);
}

// `out[rows, columns] = alpha x[rows, inner] thin (+ added)` with an inner size of 16 at most; `thin` is `[inner, columns]`,
// or turned.
extern "C" __launch_bounds__(128) __global__ void thin_outer_tf32(const float* x, const float* thin, float* out, const float* added, u32 rows, u32 columns, u32 inner, u32 stored, u32 steps, float alpha) {
    Outer own = {x, out, added, rows, columns, inner, stored, steps, alpha};
    if (inner <= 8) {
        outer_product_of<InTf32, 1>(own, thin);
    } else {
        outer_product_of<InTf32, 2>(own, thin);
    }
}

// Sums over runs of rows of `x[rows, columns]` turned times `thin[rows, width]`, `[columns, width]` or turned.
extern "C" __launch_bounds__(256, 2) __global__ void thin_rows_tf32(const float* x, const float* thin, float* sums, u32 rows, u32 run, u32 columns, u32 width, u32 stored) {
    __shared__ float parts[8 * 64 * 16];
    row_product_of<InTf32>(Rows{x, sums, rows, run, columns, width, stored}, thin, parts);
}

extern "C" __global__ void thin_runs_tf32(const float* sums, float* out, const float* added, u64 n, u32 runs, u32 stored, float alpha) {
    sum_of_runs(sums, out, added, n, runs, stored & OUT_NARROW, alpha);
}
