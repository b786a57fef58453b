// Into zeros. A block an id: the first of equal ids sums the rows of all of them, in order, so nothing
// is added by two blocks and the order never changes. Each thread looks at an id of a piece.
extern "C" __global__ void NAMED(scatter)(const u32* ids, const act* up, float* out, u32* fault, u32 n, u32 rows, u32 d) {
    __shared__ u32 equal[8];
    __shared__ u32 seen;
    u32 own = blockIdx.x, id = ids[own];
    if (id >= rows) {
        if (threadIdx.x == 0) {
            raise_index(fault, id, rows);
        }
        return;
    }
    if (threadIdx.x == 0) {
        seen = 0;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < own; i += blockDim.x) {
        if (ids[i] == id) {
            seen = 1;
        }
    }
    __syncthreads();
    if (seen) {
        return;
    }
    u64 to = (u64)id * d;
    for (u32 first = own; first < n; first += blockDim.x) {
        // Which of these ids are the same: a bit each.
        u32 bits = first + threadIdx.x < n && ids[first + threadIdx.x] == id ? 1u << (threadIdx.x % 32) : 0;
        for (int step = 16; step > 0; step >>= 1) {
            bits |= __shfl_xor_sync(0xffffffffu, bits, step);
        }
        if (threadIdx.x % 32 == 0) {
            equal[threadIdx.x / 32] = bits;
        }
        __syncthreads();
        for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
            for (u32 left = equal[warp]; left != 0; left &= left - 1) {
                u64 from = (u64)(first + 32 * warp + __ffs(left) - 1) * d;
                for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
                    out[to + c] += up[from + c];
                }
            }
        }
        __syncthreads();
    }
}
