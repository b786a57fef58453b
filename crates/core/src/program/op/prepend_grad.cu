// A block a sequence: what goes to its own rows.
extern "C" __global__ void NAMED(prepend_grad_tokens)(const act* up, const u32* offsets, act* dx, u32* fault, u32 tokens, u32 sequences, u32 longest,
                                                      u32 d, u32 count) {
    u32 s = blockIdx.x;
    Sequence own = sequence_at(offsets, s, sequences, tokens, longest, fault);
    if (!own.good) {
        return;
    }
    u64 to = (u64)own.start * d, first = to + ((u64)s + 1) * count * d;
    for (u64 i = threadIdx.x; i < (u64)own.length * d; i += blockDim.x) {
        dx[to + i] = up[first + i];
    }
}

// A block a sequence: the sum of the rows before it.
extern "C" __global__ void NAMED(prepend_grad_own)(const act* up, const u32* offsets, float* rows, u32* fault, u32 tokens, u32 sequences, u32 longest,
                                                   u32 d, u32 count) {
    u32 s = blockIdx.x;
    Sequence own = sequence_at(offsets, s, sequences, tokens, longest, fault);
    u64 first = own.good ? ((u64)own.start + (u64)s * count) * d : 0;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        float sum = 0.0f;
        for (u32 j = 0; own.good && j < count; j++) {
            sum += up[first + (u64)j * d + c];
        }
        rows[(u64)s * d + c] = sum;
    }
}

// A block a row: its sum over the sequences, in their order.
extern "C" __global__ void NAMED(prepend_grad_shared)(const act* up, const u32* offsets, float* rows, u32* fault, u32 tokens, u32 sequences, u32 longest,
                                                      u32 d, u32 count) {
    u32 j = blockIdx.x;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        float sum = 0.0f;
        for (u32 s = 0; s < sequences; s++) {
            u32 start = offsets[s];
            if (start <= tokens) {
                sum += up[((u64)start + (u64)s * count + j) * d + c];
            }
        }
        rows[(u64)j * d + c] = sum;
    }
}
