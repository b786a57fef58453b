struct Gelu {
    __device__ static float apply(float x) {
        float cdf, pdf;
        normal_cdf_pdf(x, &cdf, &pdf);
        return x * cdf;
    }
};

struct GeluTanh {
    __device__ static float apply(float x) {
        float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        return 0.5f * x * (1.0f + tanh_fast(inner));
    }
};

struct Relu {
    // Not `fmaxf`, which would turn a NaN into 0.
    __device__ static float apply(float x) {
        return x <= 0.0f ? 0.0f : x;
    }
};

struct Tanh {
    __device__ static float apply(float x) {
        return tanh_fast(x);
    }
};

struct Silu {
    __device__ static float apply(float x) {
        return x / (1.0f + exp_fast(-x));
    }
};

template <typename F> __device__ inline void activate(const float* x, float* out, u64 n) {
    EACH(i, n) {
        out[i] = F::apply(x[i]);
    }
}

extern "C" __global__ void gelu(const float* x, float* out, u64 n) {
    activate<Gelu>(x, out, n);
}

extern "C" __global__ void gelu_tanh(const float* x, float* out, u64 n) {
    activate<GeluTanh>(x, out, n);
}

extern "C" __global__ void relu(const float* x, float* out, u64 n) {
    activate<Relu>(x, out, n);
}

extern "C" __global__ void tanh_of(const float* x, float* out, u64 n) {
    activate<Tanh>(x, out, n);
}

extern "C" __global__ void silu(const float* x, float* out, u64 n) {
    activate<Silu>(x, out, n);
}
