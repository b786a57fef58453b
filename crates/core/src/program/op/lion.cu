extern "C" __global__ void lion(float* p, const float* g, float* m, const float* lr, const float* factor, u64 n, double b1, double b2,
                                double weight_decay) {
    float rate = lr[0], scale = factor[0], keep = (float)(1.0 - (double)rate * weight_decay);
    float old = (float)b1, fresh = (float)(1.0 - b1), kept = (float)b2, added = (float)(1.0 - b2);
    EACH(i, n) {
        float own = g[i] * scale, before = m[i];
        float mixed = before * old + own * fresh;
        float up = mixed > 0.0f ? rate : 0.0f, down = mixed < 0.0f ? rate : 0.0f;
        p[i] = p[i] * keep - up + down;
        m[i] = before * kept + own * added;
    }
}
