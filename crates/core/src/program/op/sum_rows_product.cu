// As the column sums of one matrix, of a product.
extern "C" __global__ void NAMED(sum_rows_product)(const act* a, const act* b, float* sums, u32 n, u32 d) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x, from = blockIdx.y * 64, to = from + 64 < n ? from + 64 : n;
    if (column < d) {
        float sum = 0.0f;
        for (u32 row = from; row < to; row++) {
            u64 at = (u64)row * d + column;
            sum += a[at] * b[at];
        }
        sums[(u64)blockIdx.y * d + column] = sum;
    }
}
