// Reductions. Parts have a fixed size and are combined in order; a mean is a sum that is divided at the end.

struct Sum {
    __device__ static float start() {
        return 0.0f;
    }
    __device__ static float join(float own, float x) {
        return own + x;
    }
    __device__ static float of(float x) {
        return x;
    }
};

struct Squares : Sum {
    __device__ static float of(float x) {
        return x * x;
    }
};

struct Max {
    __device__ static float start() {
        return minus_infinity();
    }
    // What is no number stays.
    __device__ static float join(float own, float x) {
        return own >= x || own != own ? own : x;
    }
    __device__ static float of(float x) {
        return x;
    }
};

// A block a run of `length` elements.
template <typename F> __device__ inline void reduce(const act* x, float* out, u64 n, u64 length) {
    __shared__ float slots[32];
    u64 from = blockIdx.x * length, to = from + length < n ? from + length : n;
    float own = F::start();
    for (u64 i = from + threadIdx.x; i < to; i += blockDim.x) {
        own = F::join(own, F::of(x[i]));
    }
    for (int step = 16; step > 0; step >>= 1) {
        own = F::join(own, __shfl_xor_sync(0xffffffffu, own, step));
    }
    if (threadIdx.x % 32 == 0) {
        slots[threadIdx.x / 32] = own;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 warp = 1; warp < blockDim.x / 32; warp++) {
            own = F::join(own, slots[warp]);
        }
        out[blockIdx.x] = own;
    }
}

// A thread a column, a row of blocks a run of 64 rows.
template <typename F> __device__ inline void reduce_rows(const act* x, float* out, u32 n, u32 d) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x, from = blockIdx.y * 64, to = from + 64 < n ? from + 64 : n;
    if (column < d) {
        float own = F::start();
        for (u32 row = from; row < to; row++) {
            own = F::join(own, F::of(x[(u64)row * d + column]));
        }
        out[(u64)blockIdx.y * d + column] = own;
    }
}

extern "C" __global__ void NAMED(reduce_sum)(const act* x, float* out, u64 n, u64 length) {
    reduce<Sum>(x, out, n, length);
}

extern "C" __global__ void NAMED(reduce_sum_rows)(const act* x, float* out, u32 n, u32 d) {
    reduce_rows<Sum>(x, out, n, d);
}

extern "C" __global__ void NAMED(reduce_squares)(const act* x, float* out, u64 n, u64 length) {
    reduce<Squares>(x, out, n, length);
}

extern "C" __global__ void NAMED(reduce_squares_rows)(const act* x, float* out, u32 n, u32 d) {
    reduce_rows<Squares>(x, out, n, d);
}

extern "C" __global__ void NAMED(reduce_max)(const act* x, float* out, u64 n, u64 length) {
    reduce<Max>(x, out, n, length);
}

extern "C" __global__ void NAMED(reduce_max_rows)(const act* x, float* out, u32 n, u32 d) {
    reduce_rows<Max>(x, out, n, d);
}

extern "C" __global__ void NAMED(reduce_max_runs)(const float* runs, float* out, u32 count, u32 d) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column < d) {
        float own = runs[column];
        for (u32 run = 1; run < count; run++) {
            own = Max::join(own, runs[(u64)run * d + column]);
        }
        out[column] = own;
    }
}

extern "C" __global__ void NAMED(reduce_divide)(float* out, u64 n, float by) {
    EACH(i, n) {
        out[i] = out[i] / by;
    }
}
