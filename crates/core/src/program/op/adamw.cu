// `pow` in f64 may differ from the CPU's in its last place, which a rounding to f32 nearly always hides.
__device__ inline void adamw_update(float* now, float* p, const float* g, float* m, float* v, const float* lr, const u32* step, const float* factor, u64 n,
                                    double b1, double b2, float eps, double weight_decay, u32 since) {
    if ((u64)blockIdx.x * blockDim.x >= n) {
        return;
    }
    if (threadIdx.x == 0) {
        double t = (double)(step[0] > since ? step[0] - since : 0) + 1.0, rate = (double)lr[0];
        now[0] = (float)(rate / (1.0 - pow(b1, t)));
        now[1] = (float)sqrt(1.0 - pow(b2, t));
        now[2] = (float)(1.0 - rate * weight_decay);
    }
    __syncthreads();
    float step_size = now[0], root = now[1], keep = now[2], scale = factor[0];
    float c1 = (float)(1.0 - b1), c2 = (float)(1.0 - b2), decay = (float)b2;
    EACH(i, n) {
        float own = g[i] * scale;
        float first = m[i];
        first += (own - first) * c1;
        float second = v[i] * decay + own * own * c2;
        m[i] = first;
        v[i] = second;
        p[i] = p[i] * keep - step_size * (first / (sqrtf(second) / root + eps));
    }
}

extern "C" __global__ void adamw(float* p, const float* g, float* m, float* v, const float* lr, const u32* step, const float* factor, u64 n,
                                 double b1, double b2, float eps, double weight_decay, u32 since) {
    __shared__ float now[3];
    adamw_update(now, p, g, m, v, lr, step, factor, n, b1, b2, eps, weight_decay, since);
}

// A tensor a row of blocks: four addresses, elements and decay are a row of the table.
extern "C" __global__ void adamw_together(const u64* table, const float* lr, const u32* step, const float* factor, double b1, double b2, float eps, u32 since) {
    const u64* row = table + (u64)blockIdx.y * 6;
    __shared__ float now[3];
    adamw_update(now, (float*)row[0], (const float*)row[1], (float*)row[2], (float*)row[3], lr, step, factor, row[4], b1, b2, eps, ((const double*)row)[5], since);
}
