// A thread a token and a block a run of 32 columns of the result, which goes through the whole list: every sum is in the
// list's order, as on the CPU. Of 128 places at a time each thread looks whether one is in these columns.
extern "C" __global__ void NAMED(sparse_product)(const act* base, const act* x, const float* values, const u32* ids, const u32* bounds, act* out, u32* fault, u32 n, u32 rows, u32 columns, u32 side, u32 transposed, u32 segment, u32 count) {
    __shared__ float sums[32 * 128];
    __shared__ u32 inside[4];
    u32 from = bounds ? bounds[segment] : 0, to = bounds ? bounds[segment + 1] : count;
    u32 in = transposed ? rows : columns, width = transposed ? columns : rows, wide = columns / side;
    u32 token = blockIdx.x * 128 + threadIdx.x, low = blockIdx.y * 32;
    for (u32 i = 0; i < 32; i++) {
        sums[i * 128 + threadIdx.x] = 0.0f;
    }
    for (u32 piece = from; piece < to; piece += 128) {
        u32 bits = 0;
        if (piece + threadIdx.x < to) {
            u32 place = ids[piece + threadIdx.x], row = place / wide * side, first = transposed ? place % wide * side : row;
            if (row >= rows) {
                raise_index(fault, place, rows / side * wide);
            } else if (first + side > low && first < low + 32) {
                bits = 1u << (threadIdx.x % 32);
            }
        }
        for (int step = 16; step > 0; step >>= 1) {
            bits |= __shfl_xor_sync(0xffffffffu, bits, step);
        }
        if (threadIdx.x % 32 == 0) {
            inside[threadIdx.x / 32] = bits;
        }
        __syncthreads();
        for (u32 warp = 0; warp < 4; warp++) {
            for (u32 left = inside[warp]; left != 0; left &= left - 1) {
                u32 e = piece + 32 * warp + __ffs(left) - 1, place = ids[e], row = place / wide * side, column = place % wide * side;
                u32 first = transposed ? column : row, other = transposed ? row : column;
                for (u32 a = 0; a < side; a++) {
                    if (first + a < low || first + a >= low + 32) {
                        continue;
                    }
                    for (u32 b = 0; b < side && token < n; b++) {
                        float value = values[((u64)e * side + (transposed ? b : a)) * side + (transposed ? a : b)];
                        sums[(first + a - low) * 128 + threadIdx.x] += value * (float)x[(u64)token * in + other + b];
                    }
                }
            }
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 32 && token < n; i++) {
        if (low + i < width) {
            u64 at = (u64)token * width + low + i;
            float sum = sums[i * 128 + threadIdx.x];
            out[at] = base ? (float)base[at] + sum : sum;
        }
    }
}
