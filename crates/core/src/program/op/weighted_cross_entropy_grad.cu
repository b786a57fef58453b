// A block a row.
extern "C" __global__ void weighted_cross_entropy_grad(const float* logits, const u32* labels, const float* scale, const float* weights, const float* up, float* out, u32 classes, double smoothing) {
    __shared__ float highs[32];
    __shared__ double slots[32];
    u64 at = (u64)blockIdx.x * classes;
    double lse = log_sum_exp(logits + at, classes, highs, slots), factor = (double)up[0] * (double)scale[0];
    double spread = smoothing / (double)classes, all = 0.0;
    for (u32 c = threadIdx.x; c < classes; c += blockDim.x) {
        all += (double)weights[c];
    }
    all = block_sum(all, slots) * spread;
    u32 label = labels[blockIdx.x];
    double own = label < classes ? (1.0 - smoothing) * (double)weights[label] : 0.0;
    for (u32 c = threadIdx.x; c < classes; c += blockDim.x) {
        double target = (c == label ? own : 0.0) + spread * (double)weights[c];
        out[at + c] = (float)(factor * ((own + all) * exp((double)logits[at + c] - lse) - target));
    }
}
