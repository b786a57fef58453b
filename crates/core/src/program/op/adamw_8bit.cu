// The value of a code's distance from 0 in the dynamic map of 8 bits: values of seven decades, twice as many in each as in the one below, and 1.
// `first` is how many the lowest has.
__device__ inline float magnitude(u32 from_zero, u32 first, u32 most) {
    const double units[7] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
    if (from_zero == 0 || from_zero == most) {
        return from_zero == 0 ? 0.0f : 1.0f;
    }
    u32 items = first, decade = 0, at = from_zero - 1;
    while (at >= items) {
        at -= items;
        items *= 2;
        decade++;
    }
    return (float)(units[decade] * (0.1 + 0.9 * ((double)at + 0.5) / (double)items));
}

// How far from 0 the nearest value is: the values of a map from 0 on, `most + 1` of them.
__device__ inline u32 nearest(const float* values, u32 most, float size) {
    u32 low = 0, high = most;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (size > (values[middle] + values[middle + 1]) * 0.5f) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// A block of 256 threads takes blocks of 256 numbers.
extern "C" __global__ void adamw_8bit(float* p, const float* g, u32* m_words, u32* v_words, float* m_scales, float* v_scales, const float* lr,
                                      const u32* step, const float* factor, u64 n, double b1, double b2, float eps, double weight_decay, u32 since) {
    __shared__ float now[3], highs[32], with_sign[129], plain[256];
    u32 own = threadIdx.x;
    if (own == 0) {
        double t = (double)(step[0] > since ? step[0] - since : 0) + 1.0, rate = (double)lr[0];
        now[0] = (float)(rate / (1.0 - pow(b1, t)));
        now[1] = (float)sqrt(1.0 - pow(b2, t));
        now[2] = (float)(1.0 - rate * weight_decay);
        with_sign[128] = 1.0f;
    }
    if (own < 128) {
        with_sign[own] = magnitude(own, 1, 128);
    }
    plain[own] = magnitude(own, 2, 255);
    __syncthreads();
    float step_size = now[0], root = now[1], keep = now[2], scale = factor[0];
    float c1 = (float)(1.0 - b1), c2 = (float)(1.0 - b2), decay = (float)b2;
    unsigned char *m = (unsigned char*)m_words, *v = (unsigned char*)v_words;
    u64 blocks = (n + 255) / 256;
    for (u64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        u64 i = block * 256 + own;
        bool here = i < n;
        float first = 0.0f, second = 0.0f;
        if (here) {
            u32 code = m[i];
            float size = with_sign[code < 127 ? 127 - code : code - 127];
            first = (code < 127 ? -size : size) * m_scales[block];
            second = plain[v[i]] * v_scales[block];
            float up = g[i] * scale;
            first += (up - first) * c1;
            second = second * decay + up * up * c2;
            p[i] = p[i] * keep - step_size * (first / (sqrtf(second) / root + eps));
        }
        float m_scale = block_max(first < 0.0f ? -first : first, highs), v_scale = block_max(second, highs);
        if (here) {
            float x = m_scale > 0.0f ? first / m_scale : 0.0f, y = v_scale > 0.0f ? second / v_scale : 0.0f;
            u32 far = nearest(with_sign, x < 0.0f ? 127 : 128, x < 0.0f ? -x : x);
            m[i] = (unsigned char)(x < 0.0f ? 127 - far : 127 + far);
            v[i] = (unsigned char)nearest(plain, 255, y);
        }
        if (own == 0) {
            m_scales[block] = m_scale;
            v_scales[block] = v_scale;
        }
    }
}
