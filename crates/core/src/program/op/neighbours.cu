// The sequence that a row is of, by where sequences begin.
__device__ static u32 neighbours_sequence(const u32* offsets, u32 sequences, u32 row) {
    u32 low = 0, high = sequences;
    while (low + 1 < high) {
        u32 middle = (low + high) / 2;
        if (offsets[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// A block a row.
extern "C" __global__ void neighbours(const float* x, const u32* offsets, float* out, u32 sequences, u32 columns, u32 width) {
    u32 row = blockIdx.x, own = neighbours_sequence(offsets, sequences, row);
    long long start = offsets[own], end = offsets[own + 1];
    u64 to = (u64)row * columns * width;
    for (u32 i = threadIdx.x; i < columns * width; i += blockDim.x) {
        long long at = (long long)row + i % width - width / 2;
        out[to + i] = at >= start && at < end ? x[(u64)at * columns + i / width] : 0.0f;
    }
}
