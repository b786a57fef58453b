// As `sum_rows`, for scale and shift at once.
extern "C" __global__ void NAMED(layer_norm_grad_weight)(const act* up, const act* x, const float* mean, const float* rstd, float* scales, float* shifts,
                                                  u32 n, u32 d) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x, from = blockIdx.y * 64, to = from + 64 < n ? from + 64 : n;
    if (column < d) {
        float scale = 0.0f, shift = 0.0f;
        for (u32 row = from; row < to; row++) {
            u64 at = (u64)row * d + column;
            float u = up[at];
            scale += u * ((x[at] - mean[row]) * rstd[row]);
            shift += u;
        }
        scales[(u64)blockIdx.y * d + column] = scale;
        shifts[(u64)blockIdx.y * d + column] = shift;
    }
}
