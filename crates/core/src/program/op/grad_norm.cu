// A block sums the squares of a part of one gradient.
extern "C" __global__ void square_sums(const float* g, double* parts, u64 n, u64 part, u32 first) {
    __shared__ double slots[32];
    u64 from = blockIdx.x * part, to = from + part < n ? from + part : n;
    double sum = 0.0;
    bool whole = from % 4 == 0 && in_fours(to - from, (u64)g);
    for (u64 q = from / 4 + threadIdx.x; whole && q < to / 4; q += blockDim.x) {
        Floats own = ((const Floats*)g)[q];
        for (u32 k = 0; k < 4; k++) {
            sum += (double)own.x[k] * (double)own.x[k];
        }
    }
    for (u64 i = from + threadIdx.x; !whole && i < to; i += blockDim.x) {
        sum += (double)g[i] * (double)g[i];
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        parts[first + blockIdx.x] = sum;
    }
}

// One block.
extern "C" __global__ void root_of_sum(const double* parts, float* out, u32 count) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        sum += parts[i];
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)sqrt(sum);
    }
}
