__device__ inline double gate(float alpha, double temperature) {
    return 1.0 / (1.0 + exp(-(double)alpha / temperature));
}

// A block sums 8192 elements of the gate's gradient.
extern "C" __global__ void NAMED(mix_grad)(const act* up, const act* x, const act* y, const float* alpha, act* dx, act* dy, double* sums, u64 n,
                                    double temperature) {
    __shared__ float now[2];
    __shared__ double slots[32];
    if (threadIdx.x == 0) {
        double mu = gate(alpha[0], temperature);
        now[0] = (float)mu;
        now[1] = (float)(1.0 - mu);
    }
    __syncthreads();
    float a = now[0], b = now[1];
    u64 from = (u64)blockIdx.x * 8192, to = from + 8192 < n ? from + 8192 : n;
    double sum = 0.0;
    for (u64 i = from + threadIdx.x; i < to; i += blockDim.x) {
        float u = up[i];
        sum += (double)(u * (x[i] - y[i]));
        dx[i] = a * u;
        dy[i] = b * u;
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
    }
}

// One block.
extern "C" __global__ void NAMED(mix_grad_gate)(const double* sums, const float* alpha, float* dalpha, u32 count, double temperature) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        sum += sums[i];
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        double mu = gate(alpha[0], temperature);
        dalpha[0] = (float)(sum * mu * (1.0 - mu) / temperature);
    }
}
