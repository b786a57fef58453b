// One row, by a block; `slots` has 33 elements of shared memory.
__device__ inline void normalise(const act* x, const float* gamma, const float* beta, act* y, float* mean, float* rstd, u32 d, double eps, float* slots) {
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
        slots[32] = r;
        mean[blockIdx.x] = m;
        rstd[blockIdx.x] = r;
    }
    __syncthreads();
    float r = slots[32];
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        y[at + c] = (x[at + c] - m) * r * gamma[c] + beta[c];
    }
}

// A block a row.
extern "C" __global__ void NAMED(layer_norm)(const act* x, const float* gamma, const float* beta, act* y, float* mean, float* rstd, u32 d, double eps) {
    __shared__ float slots[33];
    normalise(x, gamma, beta, y, mean, rstd, d, eps, slots);
}

// A block a row: bias and dropout where there are such, the residual, then the norm of the sum. What else reads
// of the steps between is written; each is rounded as if a kernel of its own had made it. Any of `biased`,
// `dropped` and `sum` may be `x`, and `sum` the residual.
extern "C" __global__ void NAMED(residual_layer_norm)(const act* x, const float* bias, act* biased, const u32* keys, const u32* step, act* dropped,
                                                      const act* residual, act* sum, const float* gamma, const float* beta, act* y, float* mean, float* rstd,
                                                      u32 d, double eps, u32 k0, u32 k1, u32 limit, float scale) {
    __shared__ float slots[33];
    u64 row = blockIdx.x, at = row * d;
    for (u32 four = threadIdx.x; 4 * four < d; four += blockDim.x) {
        Words words;
        if (keys != 0) {
            words = philox(k0, k1, four, keys[2 * row + 1], keys[2 * row], step[0]);
        }
        for (u32 i = 0; i < 4 && 4 * four + i < d; i++) {
            u64 e = at + 4 * four + i;
            act own;
            own = (float)x[e];
            if (bias != 0) {
                own = own + bias[4 * four + i];
                if (biased != 0) {
                    biased[e] = (float)own;
                }
            }
            if (keys != 0) {
                own = words.word[i] < limit ? 0.0f : own * scale;
                if (dropped != 0) {
                    dropped[e] = (float)own;
                }
            }
            sum[e] = own + residual[e];
        }
    }
    __syncthreads();
    normalise(sum, gamma, beta, y, mean, rstd, d, eps, slots);
}
