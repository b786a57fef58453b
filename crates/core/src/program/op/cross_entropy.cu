// A block a row: minus the log probability of its label.
extern "C" __global__ void cross_entropy(const float* logits, const u32* labels, double* losses, u32* fault, u32 classes) {
    __shared__ float highs[32];
    __shared__ double slots[32];
    u64 at = (u64)blockIdx.x * classes;
    double lse = log_sum_exp(logits + at, classes, highs, slots);
    if (threadIdx.x == 0) {
        u32 label = labels[blockIdx.x];
        if (label < classes) {
            losses[blockIdx.x] = lse - (double)logits[at + label];
        } else {
            raise_index(fault, label, classes);
            losses[blockIdx.x] = 0.0;
        }
    }
}

// One block.
extern "C" __global__ void scaled_sum(const double* losses, const float* scale, float* out, u32 rows) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < rows; i += blockDim.x) {
        sum += losses[i];
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum * (double)scale[0]);
    }
}
