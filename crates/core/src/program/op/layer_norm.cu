// One row, by a block; `slots` has 33 elements of shared memory.
__device__ inline void normalise(const act* x, const float* gamma, const float* beta, act* y, float* mean, float* rstd, u32 d, double eps, float* slots) {
    u64 at = (u64)blockIdx.x * d;
    bool whole = in_fours(d, (u64)x | (u64)gamma | (u64)beta | (u64)y);
    float sum = 0.0f;
    for (u32 q = threadIdx.x; whole && q < d / 4; q += blockDim.x) {
        Floats own = four_at(x + at, q);
        sum += own.x[0] + own.x[1] + own.x[2] + own.x[3];
    }
    for (u32 c = threadIdx.x; !whole && c < d; c += blockDim.x) {
        sum += x[at + c];
    }
    float m = block_sum(sum, slots) / (float)d;
    float squares = 0.0f;
    for (u32 q = threadIdx.x; whole && q < d / 4; q += blockDim.x) {
        Floats own = four_at(x + at, q);
        for (u32 k = 0; k < 4; k++) {
            float off = own.x[k] - m;
            squares += off * off;
        }
    }
    for (u32 c = threadIdx.x; !whole && c < d; c += blockDim.x) {
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
    for (u32 q = threadIdx.x; whole && q < d / 4; q += blockDim.x) {
        Floats own = four_at(x + at, q), scale = ((const Floats*)gamma)[q], shift = ((const Floats*)beta)[q];
        for (u32 k = 0; k < 4; k++) {
            own.x[k] = (own.x[k] - m) * r * scale.x[k] + shift.x[k];
        }
        put_four(y + at, q, own);
    }
    for (u32 c = threadIdx.x; !whole && c < d; c += blockDim.x) {
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
    bool whole = in_fours(d, (u64)x | (u64)bias | (u64)biased | (u64)dropped | (u64)residual | (u64)sum);
    for (u32 four = threadIdx.x; 4 * four < d; four += blockDim.x) {
        Words words;
        if (keys != 0) {
            words = philox(k0, k1, four, keys[2 * row + 1], keys[2 * row], step[0]);
        }
        if (whole) {
            Four own = ((const Four*)(x + at))[four], more = ((const Four*)(residual + at))[four];
            if (bias != 0) {
                Floats by = ((const Floats*)bias)[four];
                for (u32 i = 0; i < 4; i++) {
                    own.x[i] = own.x[i] + by.x[i];
                }
                if (biased != 0) {
                    ((Four*)(biased + at))[four] = own;
                }
            }
            if (keys != 0) {
                for (u32 i = 0; i < 4; i++) {
                    own.x[i] = words.word[i] < limit ? 0.0f : own.x[i] * scale;
                }
                if (dropped != 0) {
                    ((Four*)(dropped + at))[four] = own;
                }
            }
            for (u32 i = 0; i < 4; i++) {
                own.x[i] = own.x[i] + more.x[i];
            }
            ((Four*)(sum + at))[four] = own;
            continue;
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
