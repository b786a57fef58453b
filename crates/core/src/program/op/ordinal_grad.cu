// A block a row.
extern "C" __global__ void ordinal_grad(const float* scores, const u32* ranks, const float* scale, const float* up, float* out, u32 tasks) {
    u64 at = (u64)blockIdx.x * tasks;
    double factor = (double)up[0] * (double)scale[0];
    u32 rank = ranks[blockIdx.x];
    for (u32 task = threadIdx.x; task < tasks; task += blockDim.x) {
        double share = 1.0 / (1.0 + exp(-(double)scores[at + task]));
        out[at + task] = (float)(factor * (task < rank ? share - 1.0 : task == rank ? share : 0.0));
    }
}
