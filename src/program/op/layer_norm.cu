// A block a row.
extern "C" __global__ void layer_norm(const float* x, const float* gamma, const float* beta, float* y, float* mean, float* rstd, u32 d, double eps) {
    __shared__ float slots[32];
    __shared__ float inverse;
    u64 at = (u64)blockIdx.x * d;
    float sum = 0.0f;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        sum += x[at + c];
    }
    float m = block_sum(sum, slots) / (float)d;
    float squares = 0.0f;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        float off = x[at + c] - m;
        squares += off * off;
    }
    float var = block_sum(squares, slots) / (float)d;
    if (threadIdx.x == 0) {
        float r = (float)(1.0 / sqrt((double)var + eps));
        inverse = r;
        mean[blockIdx.x] = m;
        rstd[blockIdx.x] = r;
    }
    __syncthreads();
    float r = inverse;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        y[at + c] = (x[at + c] - m) * r * gamma[c] + beta[c];
    }
}
