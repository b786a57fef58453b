// Derivatives, from the output for relu and tanh, from the input otherwise.

struct Gelu {
    __device__ static float slope(float x) {
        float cdf, pdf;
        normal_cdf_pdf(x, &cdf, &pdf);
        return cdf + x * pdf;
    }
};

struct GeluTanh {
    __device__ static float slope(float x) {
        float t = tanh_fast(0.7978845608028654f * (x + 0.044715f * x * x * x));
        float inner = 0.7978845608028654f * (1.0f + 0.134145f * x * x);
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
    }
};

struct Relu {
    __device__ static float slope(float y) {
        return y > 0.0f ? 1.0f : 0.0f;
    }
};

struct Tanh {
    __device__ static float slope(float y) {
        return 1.0f - y * y;
    }
};

struct Silu {
    __device__ static float slope(float x) {
        float s = 1.0f / (1.0f + exp_fast(-x));
        return s * (1.0f + x * (1.0f - s));
    }
};

// `out` may be either operand.
template <typename F> __device__ inline void activate_back(const act* up, const act* saved, act* out, u64 n) {
    EACH(i, n) {
        out[i] = up[i] * F::slope(saved[i]);
    }
}

extern "C" __global__ void NAMED(gelu_grad)(const act* up, const act* saved, act* out, u64 n) {
    activate_back<Gelu>(up, saved, out, n);
}

extern "C" __global__ void NAMED(gelu_tanh_grad)(const act* up, const act* saved, act* out, u64 n) {
    activate_back<GeluTanh>(up, saved, out, n);
}

extern "C" __global__ void NAMED(relu_grad)(const act* up, const act* saved, act* out, u64 n) {
    activate_back<Relu>(up, saved, out, n);
}

extern "C" __global__ void NAMED(tanh_grad)(const act* up, const act* saved, act* out, u64 n) {
    activate_back<Tanh>(up, saved, out, n);
}

extern "C" __global__ void NAMED(silu_grad)(const act* up, const act* saved, act* out, u64 n) {
    activate_back<Silu>(up, saved, out, n);
}
