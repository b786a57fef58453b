// A block a row.
extern "C" __global__ void neighbours(const float* x, const u32* offsets, float* out, u32 sequences, u32 columns, u32 width) {
    u32 row = blockIdx.x, own = sequence_of(offsets, sequences, row);
    long long start = offsets[own], end = offsets[own + 1];
    u64 to = (u64)row * columns * width;
    for (u32 i = threadIdx.x; i < columns * width; i += blockDim.x) {
        long long at = (long long)row + i % width - width / 2;
        out[to + i] = at >= start && at < end ? x[(u64)at * columns + i / width] : 0.0f;
    }
}
