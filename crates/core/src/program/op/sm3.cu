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

// A thread a row, or a column: the largest moment in it.
extern "C" __global__ void sm3_cover(const u32* ids, const float* moments, float* cover, u32 n, u32 of, u32 width, u32 by_row) {
    EACH(i, of) {
        float most = cover[i];
        for (u32 e = 0; e < n; e++) {
            u32 own = by_row ? ids[e] / width : ids[e] % width;
            most = own == i && moments[e] > most ? moments[e] : most;
        }
        cover[i] = most;
    }
}
