// A block a row.
extern "C" __global__ void NAMED(columns_grad)(const act* up, act* out, u32 of, u32 from, u32 own, u32 groups) {
    u64 at = (u64)blockIdx.x * own, to = (u64)blockIdx.x * of;
    u32 each = own / groups, step = of / groups;
    for (u32 c = threadIdx.x; c < of; c += blockDim.x) {
        u32 place = c % step;
        bool inside = place >= from && place - from < each;
        out[to + c] = inside ? (float)up[at + (u64)(c / step) * each + place - from] : 0.0f;
    }
}
