// The factor of a run, a block a run.
extern "C" __global__ void NAMED(rms_norm_scales)(const act* x, float* scales, u32 w, double eps) {
    __shared__ float slots[33];
    float r = reciprocal(x, (u64)blockIdx.x * w, w, eps, slots);
    if (threadIdx.x == 0) {
        scales[blockIdx.x] = r;
    }
}

// As `sum_rows`, of rows that are runs.
extern "C" __global__ void NAMED(rms_norm_grad_weight)(const act* up, const act* x, const float* scales, float* sums, u32 n, u32 w) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x, from = blockIdx.y * 64, to = from + 64 < n ? from + 64 : n;
    if (column < w) {
        float sum = 0.0f;
        for (u32 run = from; run < to; run++) {
            u64 at = (u64)run * w + column;
            sum += up[at] * (x[at] * scales[run]);
        }
        sums[(u64)blockIdx.y * w + column] = sum;
    }
}
