// A thread an element of the result. Steps are from block to block, from row to row and from column to column.
extern "C" __global__ void block_product(const float* a, const float* b, float* out, u64 count, u32 groups, u32 m, u32 n, u32 k, u32 stacked,
                                         u64 a_group, u64 a_row, u64 a_column, u64 b_group, u64 b_row, u64 b_column) {
    EACH(i, count) {
        u64 rest = i / n, column = i % n;
        u64 group = stacked ? rest / m : rest % groups, row = stacked ? rest % m : rest / groups;
        const float* left = a + group * a_group + row * a_row;
        const float* right = b + group * b_group + column * b_column;
        float sum = 0.0f;
        for (u32 e = 0; e < k; e++) {
            sum = fmaf(left[e * a_column], right[e * b_row], sum);
        }
        out[i] = sum;
    }
}
