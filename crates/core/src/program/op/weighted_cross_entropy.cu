// A block a row: minus the weighted log probabilities, of its label and, smoothed, of all classes.
extern "C" __global__ void weighted_cross_entropy(const float* logits, const u32* labels, const float* weights, double* losses, u32* fault, u32 classes, double smoothing) {
    __shared__ float highs[32];
    __shared__ double slots[32];
    u64 at = (u64)blockIdx.x * classes;
    double lse = log_sum_exp(logits + at, classes, highs, slots), all = 0.0;
    for (u32 c = threadIdx.x; c < classes; c += blockDim.x) {
        all += (double)weights[c] * (lse - (double)logits[at + c]);
    }
    all = block_sum(all, slots);
    if (threadIdx.x == 0) {
        u32 label = labels[blockIdx.x];
        if (label < classes) {
            double own = (double)weights[label] * (lse - (double)logits[at + label]);
            losses[blockIdx.x] = (1.0 - smoothing) * own + smoothing / (double)classes * all;
        } else {
            raise_index(fault, label, classes);
            losses[blockIdx.x] = 0.0;
        }
    }
}
