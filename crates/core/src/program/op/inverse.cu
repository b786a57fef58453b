// A block a matrix, a thread a row: the identity is added, then it is eliminated in place, without exchanges.
extern "C" __global__ void inverse(float* all, u32 n) {
    float* a = all + (u64)blockIdx.x * n * n;
    for (u32 r = threadIdx.x; r < n; r += blockDim.x) {
        a[(u64)r * n + r] += 1.0f;
    }
    for (u32 p = 0; p < n; p++) {
        __syncthreads();
        if (threadIdx.x == 0) {
            float* row = a + (u64)p * n;
            float by = 1.0f / row[p];
            row[p] = 1.0f;
            for (u32 c = 0; c < n; c++) {
                row[c] *= by;
            }
        }
        __syncthreads();
        for (u32 r = threadIdx.x; r < n; r += blockDim.x) {
            if (r != p) {
                float* row = a + (u64)r * n;
                float factor = row[p];
                row[p] = 0.0f;
                for (u32 c = 0; c < n; c++) {
                    row[c] -= factor * a[(u64)p * n + c];
                }
            }
        }
    }
}
