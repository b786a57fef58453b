__device__ inline double gate(float alpha, double temperature) {
    return 1.0 / (1.0 + exp(-(double)alpha / temperature));
}

extern "C" __global__ void NAMED(mix)(const act* x, const act* y, const float* alpha, act* out, u64 n, double temperature) {
    __shared__ float now[2];
    if (threadIdx.x == 0) {
        double mu = gate(alpha[0], temperature);
        now[0] = (float)mu;
        now[1] = (float)(1.0 - mu);
    }
    __syncthreads();
    float a = now[0], b = now[1];
    map(x, y, out, n, [a, b](float left, float right) { return a * left + b * right; });
}
