// A block 64 rows and 32 columns of a group's result, a thread 4 rows and 2 columns of them; sums are in order. Steps are from
// group to group, from row to row and from column to column.
extern "C" __global__ void block_product(const float* a, const float* b, float* out, u32 groups, u32 m, u32 n, u32 k, u32 stacked,
                                         u64 a_group, u64 a_row, u64 a_column, u64 b_group, u64 b_row, u64 b_column) {
    __shared__ float left[16][68], right[16][36];
    u32 t = threadIdx.x, group = blockIdx.x % groups, top = blockIdx.x / groups * 64, first = blockIdx.y * 32;
    u32 row = t / 16 * 4, column = t % 16 * 2;
    a += group * a_group;
    b += group * b_group;
    float sums[4][2] = {};
    for (u32 start = 0; start < k; start += 16) {
        // Neighbouring threads read neighbours in memory.
        for (u32 i = t; i < 16 * 64; i += 256) {
            u32 e = a_column == 1 ? i % 16 : i / 64, r = a_column == 1 ? i / 16 : i % 64;
            left[e][r] = start + e < k && top + r < m ? a[(top + r) * a_row + (start + e) * a_column] : 0.0f;
        }
        for (u32 i = t; i < 16 * 32; i += 256) {
            u32 e = b_row == 1 ? i % 16 : i / 32, c = b_row == 1 ? i / 16 : i % 32;
            right[e][c] = start + e < k && first + c < n ? b[(start + e) * b_row + (first + c) * b_column] : 0.0f;
        }
        __syncthreads();
        u32 count = k - start < 16 ? k - start : 16;
        for (u32 e = 0; e < count; e++) {
            for (u32 i = 0; i < 4; i++) {
                for (u32 j = 0; j < 2; j++) {
                    sums[i][j] = fmaf(left[e][row + i], right[e][column + j], sums[i][j]);
                }
            }
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 4 && top + row + i < m; i++) {
        u64 at = ((u64)(stacked ? group : top + row + i) * (stacked ? m : groups) + (stacked ? top + row + i : group)) * n + first;
        for (u32 j = 0; j < 2 && first + column + j < n; j++) {
            out[at + column + j] = sums[i][j];
        }
    }
}
