// `pow` in f64 may differ from the CPU's in its last place, which a rounding to f32 nearly always hides.
extern "C" __global__ void aged_adamw(float* p, const float* g, float* m, float* v, float* age, const float* lr, const float* factor, u64 n, double b1, double b2, float eps, double weight_decay) {
    double rate = (double)lr[0];
    float keep = (float)(1.0 - rate * weight_decay), c1 = (float)(1.0 - b1), c2 = (float)(1.0 - b2), decay = (float)b2, scale = factor[0];
    EACH(i, n) {
        float old = age[i] + 1.0f;
        float size = (float)(rate / (1.0 - pow(b1, (double)old))), root = (float)sqrt(1.0 - pow(b2, (double)old));
        float own = g[i] * scale, first = m[i];
        first += (own - first) * c1;
        float second = v[i] * decay + own * own * c2;
        age[i] = old;
        m[i] = first;
        v[i] = second;
        p[i] = p[i] * keep - size * (first / (sqrtf(second) / root + eps));
    }
}
