// One slot, a block a token: its position, and the feature in it, if there is one.
extern "C" __global__ void NAMED(window_slot)(const float* position, const act* feature, act* out, u32 slots, u32 slot, u32 d, u32 empty) {
    u64 from = (u64)blockIdx.x * d, to = ((u64)blockIdx.x * slots + slot) * d;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        float x = position[(u64)slot * d + c];
        out[to + c] = empty ? x : x + feature[from + c];
    }
}
