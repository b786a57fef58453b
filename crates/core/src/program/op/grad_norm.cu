// A thread's part of a sum of squares.
__device__ inline double squares_of(const float* g, u64 from, u64 to) {
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
    return sum;
}

// A block sums the squares of a part of one gradient.
extern "C" __global__ void square_sums(const float* g, double* parts, u64 n, u64 part, u32 first) {
    __shared__ double slots[32];
    u64 from = blockIdx.x * part, to = from + part < n ? from + part : n;
    double sum = block_sum(squares_of(g, from, to), slots);
    if (threadIdx.x == 0) {
        parts[first + blockIdx.x] = sum;
    }
}

// A gradient a row of blocks: its address, its elements and the place of its first part are a row of the table.
extern "C" __global__ void square_sums_together(const u64* table, double* parts, u64 part) {
    __shared__ double slots[32];
    const u64* row = table + (u64)blockIdx.y * 3;
    u64 from = blockIdx.x * part, to = from + part < row[1] ? from + part : row[1];
    if (from >= to) {
        return;
    }
    double sum = block_sum(squares_of((const float*)row[0], from, to), slots);
    if (threadIdx.x == 0) {
        parts[row[2] + blockIdx.x] = sum;
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
