// A block a sequence: the rows before it, then its own.
extern "C" __global__ void NAMED(prepend)(const act* x, const float* rows, const u32* offsets, act* out, u32* fault, u32 tokens, u32 sequences,
                                          u32 longest, u32 d, u32 count, u32 single) {
    u32 s = blockIdx.x;
    Sequence own = sequence_at(offsets, s, sequences, tokens, longest, fault);
    if (!own.good) {
        return;
    }
    u64 first = ((u64)own.start + (u64)s * count) * d, from = (u64)own.start * d;
    for (u32 j = 0; j < count; j++) {
        u64 row = (u64)(single ? s : j) * d;
        for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
            out[first + (u64)j * d + c] = rows[row + c];
        }
    }
    first += (u64)count * d;
    for (u64 i = threadIdx.x; i < (u64)own.length * d; i += blockDim.x) {
        out[first + i] = x[from + i];
    }
}
