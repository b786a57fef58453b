// The activations: the function, and its derivative, from the output for relu and tanh, from the input otherwise.

struct Gelu {
    __device__ static float apply(float x) {
        float cdf, pdf;
        normal_cdf_pdf(x, &cdf, &pdf);
        return x * cdf;
    }
    __device__ static float slope(float x) {
        float cdf, pdf;
        normal_cdf_pdf(x, &cdf, &pdf);
        return cdf + x * pdf;
    }
};

struct GeluTanh {
    __device__ static float apply(float x) {
        float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + tanh_fast(inner));
    }
    __device__ static float slope(float x) {
        float t = tanh_fast(0.7978845608028654f * (x + 0.044715f * x * x * x));
        float inner = 0.7978845608028654f * (1.0f + 0.134145f * x * x);
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
    }
};

struct Relu {
    // Not `fmaxf`, which would turn a NaN into 0.
    __device__ static float apply(float x) {
        return x <= 0.0f ? 0.0f : x;
    }
    __device__ static float slope(float y) {
        return y > 0.0f ? 1.0f : 0.0f;
    }
};

struct Tanh {
    __device__ static float apply(float x) {
        return tanh_fast(x);
    }
    __device__ static float slope(float y) {
        return 1.0f - y * y;
    }
};

struct Silu {
    __device__ static float apply(float x) {
        return x / (1.0f + exp_fast(-x));
    }
    __device__ static float slope(float x) {
        float s = 1.0f / (1.0f + exp_fast(-x));
        return s * (1.0f + x * (1.0f - s));
    }
};

