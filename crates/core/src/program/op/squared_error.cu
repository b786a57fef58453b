// One block.
extern "C" __global__ void squared_error(const float* scores, const float* targets, const float* scale, float* out, u32 rows) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < rows; i += blockDim.x) {
        double off = (double)scores[i] - (double)targets[i];
        sum += off * off;
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum * (double)scale[0]);
    }
}
