// Into zeros. A block an id: the first of equal ids sums the rows of all of them, in order, so nothing
// is added by two blocks and the order never changes. Ids are looked through in shared pieces.
extern "C" __global__ void NAMED(scatter)(const u32* ids, const act* up, float* out, u32* fault, u32 n, u32 rows, u32 d) {
    __shared__ u32 piece[256];
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
        u32 count = n - first < blockDim.x ? n - first : blockDim.x;
        if (threadIdx.x < count) {
            piece[threadIdx.x] = ids[first + threadIdx.x];
        }
        __syncthreads();
        for (u32 i = 0; i < count; i++) {
            if (piece[i] == id) {
                u64 from = (u64)(first + i) * d;
                for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
                    out[to + c] += up[from + c];
                }
            }
        }
        __syncthreads();
    }
}
