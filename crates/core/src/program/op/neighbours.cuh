// The sequence that a row is of, by where sequences begin.
__device__ inline u32 sequence_of(const u32* offsets, u32 sequences, u32 row) {
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
