// A sequence as the offsets say, and whether they can be so: within the rows, no longer than the launch
// was made for, starting at 0 and ending with the rows.
struct Sequence {
    u32 start;
    u32 length;
    bool good;
};

__device__ inline Sequence sequence_at(const u32* offsets, u32 s, u32 sequences, u32 rows, u32 longest, u32* fault) {
    u32 start = offsets[s], end = offsets[s + 1];
    bool good = start <= end && end <= rows && end - start <= longest && (s > 0 || start == 0) && (s + 1 < sequences || end == rows);
    if (!good && threadIdx.x == 0) {
        raise_index(fault, end, rows);
    }
    Sequence own;
    own.start = start;
    own.length = end - start;
    own.good = good;
    return own;
}
