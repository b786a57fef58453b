// A block a row.
extern "C" __global__ void NAMED(columns)(const act* x, act* out, u32 d, u32 from, u32 own, u32 groups) {
    u64 at = (u64)blockIdx.x * d + from, to = (u64)blockIdx.x * own;
    u32 each = own / groups, step = d / groups;
    for (u32 c = threadIdx.x; c < own; c += blockDim.x) {
        out[to + c] = x[at + (u64)(c / each) * step + c % each];
    }
}
