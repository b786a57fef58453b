struct Neg {
    __device__ static float apply(float x) {
        return -x;
    }
};

struct Square {
    __device__ static float apply(float x) {
        return x * x;
    }
};

struct Sqrt {
    __device__ static float apply(float x) {
        return sqrtf(x);
    }
};

struct Rsqrt {
    __device__ static float apply(float x) {
        return 1.0f / sqrtf(x);
    }
};

struct Recip {
    __device__ static float apply(float x) {
        return 1.0f / x;
    }
};

struct Exp {
    // Of half the argument, so that what overflows is infinite and what underflows is 0.
    __device__ static float apply(float x) {
        float half = exp_fast(x * 0.5f);
        return half * half;
    }
};

struct Log {
    __device__ static float apply(float x) {
        return log_fast(x);
    }
};

struct Abs {
    __device__ static float apply(float x) {
        return fabsf(x);
    }
};

struct Sign {
    __device__ static float apply(float x) {
        return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x;
    }
};

struct Sigmoid {
    __device__ static float apply(float x) {
        return 1.0f / (1.0f + exp_fast(-x));
    }
};

struct Cos {
    __device__ static float apply(float x) {
        float sine, cosine;
        sin_cos_fast(x, &sine, &cosine);
        return cosine;
    }
};

struct Sin {
    __device__ static float apply(float x) {
        float sine, cosine;
        sin_cos_fast(x, &sine, &cosine);
        return sine;
    }
};

template <typename F> __device__ inline void apply(const act* x, act* out, u64 n) {
    map(x, out, n, [](float a) { return F::apply(a); });
}

extern "C" __global__ void NAMED(unary_neg)(const act* x, act* out, u64 n) {
    apply<Neg>(x, out, n);
}

extern "C" __global__ void NAMED(unary_square)(const act* x, act* out, u64 n) {
    apply<Square>(x, out, n);
}

extern "C" __global__ void NAMED(unary_sqrt)(const act* x, act* out, u64 n) {
    apply<Sqrt>(x, out, n);
}

extern "C" __global__ void NAMED(unary_rsqrt)(const act* x, act* out, u64 n) {
    apply<Rsqrt>(x, out, n);
}

extern "C" __global__ void NAMED(unary_recip)(const act* x, act* out, u64 n) {
    apply<Recip>(x, out, n);
}

extern "C" __global__ void NAMED(unary_exp)(const act* x, act* out, u64 n) {
    apply<Exp>(x, out, n);
}

extern "C" __global__ void NAMED(unary_log)(const act* x, act* out, u64 n) {
    apply<Log>(x, out, n);
}

extern "C" __global__ void NAMED(unary_abs)(const act* x, act* out, u64 n) {
    apply<Abs>(x, out, n);
}

extern "C" __global__ void NAMED(unary_sign)(const act* x, act* out, u64 n) {
    apply<Sign>(x, out, n);
}

extern "C" __global__ void NAMED(unary_sigmoid)(const act* x, act* out, u64 n) {
    apply<Sigmoid>(x, out, n);
}

extern "C" __global__ void NAMED(unary_cos)(const act* x, act* out, u64 n) {
    apply<Cos>(x, out, n);
}

extern "C" __global__ void NAMED(unary_sin)(const act* x, act* out, u64 n) {
    apply<Sin>(x, out, n);
}
