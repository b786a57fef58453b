// A block a row.
extern "C" __global__ void NAMED(columns)(const act* x, act* out, u32 d, u32 from, u32 own) {
    u64 at = (u64)blockIdx.x * d + from, to = (u64)blockIdx.x * own;
    for (u32 c = threadIdx.x; c < own; c += blockDim.x) {
        out[to + c] = x[at + c];
    }
}
