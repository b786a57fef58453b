// Derivatives, from the output where that says all, from the input otherwise.

struct Square {
    __device__ static float slope(float x) {
        return x + x;
    }
};

struct Sqrt {
    __device__ static float slope(float x) {
        return 0.5f / x;
    }
};

struct Rsqrt {
    __device__ static float slope(float x) {
        return -0.5f * x * x * x;
    }
};

struct Recip {
    __device__ static float slope(float x) {
        return -(x * x);
    }
};

struct Exp {
    __device__ static float slope(float x) {
        return x;
    }
};

struct Log {
    __device__ static float slope(float x) {
        return 1.0f / x;
    }
};

struct Abs {
    __device__ static float slope(float x) {
        return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x;
    }
};

struct Sigmoid {
    __device__ static float slope(float x) {
        return x * (1.0f - x);
    }
};

struct Cos {
    __device__ static float slope(float x) {
        float sine, cosine;
        sin_cos_fast(x, &sine, &cosine);
        return -sine;
    }
};

struct Sin {
    __device__ static float slope(float x) {
        float sine, cosine;
        sin_cos_fast(x, &sine, &cosine);
        return cosine;
    }
};

// `out` may be either operand.
template <typename F> __device__ inline void multiply(const act* up, const act* saved, act* out, u64 n) {
    map(up, saved, out, n, [](float a, float b) { return a * F::slope(b); });
}

extern "C" __global__ void NAMED(unary_square_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Square>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_sqrt_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Sqrt>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_rsqrt_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Rsqrt>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_recip_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Recip>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_exp_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Exp>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_log_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Log>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_abs_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Abs>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_sigmoid_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Sigmoid>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_cos_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Cos>(up, saved, out, n);
}

extern "C" __global__ void NAMED(unary_sin_grad)(const act* up, const act* saved, act* out, u64 n) {
    multiply<Sin>(up, saved, out, n);
}
