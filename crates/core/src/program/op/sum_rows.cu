// Column sums: a thread a column, a row of blocks a run of 64 rows; then the runs, in order.
extern "C" __global__ void NAMED(sum_rows)(const act* x, float* sums, u32 n, u32 d) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x, from = blockIdx.y * 64, to = from + 64 < n ? from + 64 : n;
    if (column < d) {
        float sum = 0.0f;
        for (u32 row = from; row < to; row++) {
            sum += x[(u64)row * d + column];
        }
        sums[(u64)blockIdx.y * d + column] = sum;
    }
}

extern "C" __global__ void NAMED(sum_runs)(const float* sums, float* out, u32 runs, u32 d) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column < d) {
        float sum = 0.0f;
        for (u32 run = 0; run < runs; run++) {
            sum += sums[(u64)run * d + column];
        }
        out[column] = sum;
    }
}
