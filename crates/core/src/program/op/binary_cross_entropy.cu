// One block: log(1 + exp(x)) - x * t, summed.
extern "C" __global__ void binary_cross_entropy(const float* logits, const float* targets, const float* scale, float* out, u64 n, u32 classes) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) {
        double x = (double)logits[i];
        sum += fmax(x, 0.0) - x * (double)targets[i] + log1p(exp(-fabs(x)));
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum * (double)scale[0] / (double)classes);
    }
}
