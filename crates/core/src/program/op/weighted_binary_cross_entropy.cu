// One block: (1 - t) * log(1 + exp(x)) + w * t * log(1 + exp(-x)), summed.
extern "C" __global__ void weighted_binary_cross_entropy(const float* logits, const float* targets, const float* scale, const float* weights, float* out, u64 n, u32 classes) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) {
        double x = (double)logits[i], t = (double)targets[i];
        double factor = 1.0 + ((double)weights[i % classes] - 1.0) * t;
        sum += (1.0 - t) * x + factor * (log1p(exp(-fabs(x))) + fmax(-x, 0.0));
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum * (double)scale[0] / (double)classes);
    }
}
