extern "C" __global__ void sgd(float* p, const float* g, const float* lr, const float* factor, u64 n, float decay) {
    float rate = lr[0], scale = factor[0];
    EACH(i, n) {
        p[i] -= rate * (g[i] * scale + decay * p[i]);
    }
}

extern "C" __global__ void sgd_momentum(float* p, const float* g, float* b, const float* lr, const float* factor, u64 n, float decay,
                                        float momentum, u32 nesterov) {
    float rate = lr[0], scale = factor[0];
    EACH(i, n) {
        float own = g[i] * scale + decay * p[i];
        float rolled = momentum * b[i] + own;
        b[i] = rolled;
        p[i] -= rate * (nesterov ? own + momentum * rolled : rolled);
    }
}
