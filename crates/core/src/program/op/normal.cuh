// `ln x` of a normal positive number.
__device__ inline float ln(float x) {
    u32 bits = __float_as_uint(x);
    float m = __uint_as_float((bits & 0x007fffffu) | 0x3f000000u);
    bool low = m < 0.707106781186547524400844f;
    float e = (float)((int)(bits >> 23) - 126 - (low ? 1 : 0));
    m = (low ? m + m : m) - 1.0f;
    float z = m * m;
    float p = 7.0376836e-2f;
    p = p * m - 0.1151461f;
    p = p * m + 0.11676998f;
    p = p * m - 0.12420141f;
    p = p * m + 0.14249323f;
    p = p * m - 0.16668057f;
    p = p * m + 0.20000714f;
    p = p * m - 0.24999994f;
    p = p * m + 0.3333333f;
    float y = p * m * z + e * -2.1219444e-4f - 0.5f * z;
    return m + y + e * 0.6933594f;
}

__device__ inline void sin_cos_turns(float u, float* sine, float* cosine) {
    int quarter = (int)(4.0f * u + 0.5f);
    float x = (u - (float)quarter * 0.25f) * 6.28318530717958647692528f;
    float z = x * x;
    float sin = ((-1.9515296e-4f * z + 8.332161e-3f) * z - 0.16666655f) * z * x + x;
    float cos = ((2.4433157e-5f * z - 1.3887316e-3f) * z + 4.1666646e-2f) * z * z - 0.5f * z + 1.0f;
    float a = (quarter & 1) == 0 ? sin : cos, b = (quarter & 1) == 0 ? cos : sin;
    *sine = (quarter & 2) == 0 ? a : -a;
    *cosine = ((quarter + 1) & 2) == 0 ? b : -b;
}

__device__ inline float unit(u32 word) {
    return ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}
