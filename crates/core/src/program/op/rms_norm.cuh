// The reciprocal of a run's root mean square, the same in every thread; `slots` has 33 elements of shared memory.
__device__ inline float reciprocal(const act* x, u64 at, u32 w, double eps, float* slots) {
    float squares = 0.0f;
    if (in_fours(w, (u64)x)) {
        for (u32 q = threadIdx.x; q < w / 4; q += blockDim.x) {
            Floats own = four_at(x + at, q);
            for (u32 k = 0; k < 4; k++) {
                squares += own.x[k] * own.x[k];
            }
        }
    } else {
        for (u32 c = threadIdx.x; c < w; c += blockDim.x) {
            float own = x[at + c];
            squares += own * own;
        }
    }
    float mean = block_sum(squares, slots) / (float)w;
    if (threadIdx.x == 0) {
        slots[32] = (float)(1.0 / sqrt((double)mean + eps));
    }
    __syncthreads();
    return slots[32];
}

