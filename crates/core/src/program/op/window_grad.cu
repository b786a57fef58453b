// One slot's share of a feature's gradient, a block a token.
extern "C" __global__ void NAMED(window_slot_grad)(const act* up, act* out, u32 slots, u32 slot, u32 d, u32 first) {
    u64 to = (u64)blockIdx.x * d, from = ((u64)blockIdx.x * slots + slot) * d;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        out[to + c] = (first ? 0.0f : out[to + c]) + up[from + c];
    }
}
