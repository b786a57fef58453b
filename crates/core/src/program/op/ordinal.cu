// One block: a thread a row.
extern "C" __global__ void ordinal(const float* scores, const u32* ranks, const float* scale, float* out, u32* fault, u32 rows, u32 tasks) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 row = threadIdx.x; row < rows; row += blockDim.x) {
        u32 rank = ranks[row];
        if (rank > tasks) {
            raise_index(fault, rank, tasks + 1);
            continue;
        }
        for (u32 task = 0; task <= rank && task < tasks; task++) {
            double x = (double)scores[(u64)row * tasks + task];
            x = task < rank ? -x : x;
            sum += fmax(x, 0.0) + log1p(exp(-fabs(x)));
        }
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum * (double)scale[0]);
    }
}
