// The reciprocal of a run's root mean square, the same in every thread; `slots` has 33 elements of shared memory.
__device__ inline float reciprocal(const act* x, u64 at, u32 w, double eps, float* slots) {
    float squares = 0.0f;
    for (u32 c = threadIdx.x; c < w; c += blockDim.x) {
        float own = x[at + c];
        squares += own * own;
    }
    float mean = block_sum(squares, slots) / (float)w;
    if (threadIdx.x == 0) {
        slots[32] = (float)(1.0 / sqrt((double)mean + eps));
    }
    __syncthreads();
    return slots[32];
}

