// A block a row.
extern "C" __global__ void NAMED(columns_grad)(const act* up, act* out, u32 of, u32 from, u32 own) {
    u64 at = (u64)blockIdx.x * own, to = (u64)blockIdx.x * of;
    for (u32 c = threadIdx.x; c < of; c += blockDim.x) {
        bool inside = c >= from && c - from < own;
        out[to + c] = inside ? (float)up[at + c - from] : 0.0f;
    }
}
