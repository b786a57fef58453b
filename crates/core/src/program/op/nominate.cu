__device__ inline u32 size_key(float x) {
    return __float_as_uint(x) & 0x7fffffffu;
}

// One block: the key of the last place by halving, then each thread writes what a run of its own has.
extern "C" __global__ void nominate(u32* ids, float* sums, float* squares, const float* m, u64 n, u32 k) {
    __shared__ double slots[32];
    __shared__ u32 first[1024], ties[1024];
    if (k == 0) {
        return;
    }
    u32 limit = 0;
    for (int bit = 30; bit >= 0; bit--) {
        u32 tried = limit | 1u << bit;
        double own = 0.0;
        for (u64 i = threadIdx.x; i < n; i += blockDim.x) {
            own += size_key(m[i]) >= tried ? 1.0 : 0.0;
        }
        if (block_sum(own, slots) >= (double)k) {
            limit = tried;
        }
    }
    u64 run = (n + blockDim.x - 1) / blockDim.x, from = run * threadIdx.x, to = from + run < n ? from + run : n;
    u32 above = 0, equal = 0;
    for (u64 i = from; i < to; i++) {
        above += size_key(m[i]) > limit ? 1u : 0u;
        equal += size_key(m[i]) == limit ? 1u : 0u;
    }
    first[threadIdx.x] = above;
    ties[threadIdx.x] = equal;
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 all = 0;
        for (u32 t = 0; t < blockDim.x; t++) {
            all += first[t];
        }
        u32 left = k - all, at = 0;
        for (u32 t = 0; t < blockDim.x; t++) {
            u32 taken = ties[t] < left ? ties[t] : left, own = first[t] + taken;
            left -= taken;
            ties[t] = taken;
            first[t] = at;
            at += own;
        }
    }
    __syncthreads();
    u32 at = first[threadIdx.x], left = ties[threadIdx.x];
    for (u64 i = from; i < to; i++) {
        float x = m[i];
        u32 own = size_key(x);
        bool tie = own == limit && left > 0;
        if (own > limit || tie) {
            left -= tie ? 1u : 0u;
            ids[at] = (u32)i;
            sums[at] = x;
            squares[at] = x * x;
            at++;
        }
    }
}
