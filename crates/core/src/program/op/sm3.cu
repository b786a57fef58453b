extern "C" __global__ void sm3(float* values, const float* g, const u32* ids, const float* rows, const float* columns, const float* lr, const float* factor, float* moments, u32* fault, u64 n, u32 height, u32 width, float eps, double weight_decay) {
    float keep = (float)(1.0 - (double)lr[0] * weight_decay);
    EACH(i, n) {
        u32 row = ids[i] / width;
        if (row >= height) {
            raise_index(fault, ids[i], height * width);
            moments[i] = 0.0f;
            continue;
        }
        float own = g[i] * factor[0], r = rows[row], c = columns[ids[i] % width];
        float v = (r < c ? r : c) + own * own;
        moments[i] = v;
        values[i] = (values[i] - lr[0] * (own / sqrtf(v + eps))) * keep;
    }
}

// A warp a row, or a column: the largest moment in it.
extern "C" __global__ void sm3_cover(const u32* ids, const float* moments, float* cover, u32 n, u32 of, u32 width, u32 by_row) {
    u32 own = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    float most = own < of ? cover[own] : 0.0f;
    for (u32 e = threadIdx.x % 32; own < of && e < n; e += 32) {
        u32 place = by_row ? ids[e] / width : ids[e] % width;
        most = place == own && moments[e] > most ? moments[e] : most;
    }
    for (int step = 16; step > 0; step >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, most, step);
        most = other > most ? other : most;
    }
    if (own < of && threadIdx.x % 32 == 0) {
        cover[own] = most;
    }
}
