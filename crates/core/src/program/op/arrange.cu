// A block a row: each column is the sum of its terms, twice a column of `x` and one more where it is subtracted.
extern "C" __global__ void NAMED(arrange)(const act* x, const u32* starts, const u32* terms, act* out, u32 d, u32 columns) {
    u64 at = (u64)blockIdx.x * d, to = (u64)blockIdx.x * columns;
    for (u32 c = threadIdx.x; c < columns; c += blockDim.x) {
        float sum = 0.0f;
        for (u32 e = starts[c]; e < starts[c + 1]; e++) {
            float own = x[at + terms[e] / 2];
            sum = terms[e] % 2 == 0 ? sum + own : sum - own;
        }
        out[to + c] = sum;
    }
}
