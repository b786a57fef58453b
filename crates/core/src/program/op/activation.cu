template <typename F> __device__ inline void activate(const act* x, act* out, u64 n) {
    map(x, out, n, [](float a) { return F::apply(a); });
}

extern "C" __global__ void NAMED(gelu)(const act* x, act* out, u64 n) {
    activate<Gelu>(x, out, n);
}

extern "C" __global__ void NAMED(gelu_tanh)(const act* x, act* out, u64 n) {
    activate<GeluTanh>(x, out, n);
}

extern "C" __global__ void NAMED(relu)(const act* x, act* out, u64 n) {
    activate<Relu>(x, out, n);
}

extern "C" __global__ void NAMED(tanh_of)(const act* x, act* out, u64 n) {
    activate<Tanh>(x, out, n);
}

extern "C" __global__ void NAMED(silu)(const act* x, act* out, u64 n) {
    activate<Silu>(x, out, n);
}

// A block a row of a product: its bias, then the function. The biased product is written where `keep` says that
// something else reads it; `out` may be `x`.
template <typename F> __device__ inline void activate_biased(act* x, const float* bias, act* out, u32 n, u32 keep) {
    u64 at = (u64)blockIdx.x * n;
    if (in_fours(n, (u64)(x + at) | (u64)bias | (u64)(out + at))) {
        for (u32 q = threadIdx.x; q < n / 4; q += blockDim.x) {
            Four own = ((const Four*)(x + at))[q];
            Floats by = ((const Floats*)bias)[q];
            for (u32 k = 0; k < 4; k++) {
                own.x[k] = own.x[k] + by.x[k];
            }
            if (keep) {
                ((Four*)(x + at))[q] = own;
            }
            for (u32 k = 0; k < 4; k++) {
                own.x[k] = F::apply(own.x[k]);
            }
            ((Four*)(out + at))[q] = own;
        }
        return;
    }
    for (u32 c = threadIdx.x; c < n; c += blockDim.x) {
        act own;
        own = x[at + c] + bias[c];
        if (keep) {
            x[at + c] = (float)own;
        }
        out[at + c] = F::apply(own);
    }
}

extern "C" __global__ void NAMED(bias_gelu)(act* x, const float* bias, act* out, u32 n, u32 keep) {
    activate_biased<Gelu>(x, bias, out, n, keep);
}

extern "C" __global__ void NAMED(bias_gelu_tanh)(act* x, const float* bias, act* out, u32 n, u32 keep) {
    activate_biased<GeluTanh>(x, bias, out, n, keep);
}

extern "C" __global__ void NAMED(bias_relu)(act* x, const float* bias, act* out, u32 n, u32 keep) {
    activate_biased<Relu>(x, bias, out, n, keep);
}

extern "C" __global__ void NAMED(bias_tanh)(act* x, const float* bias, act* out, u32 n, u32 keep) {
    activate_biased<Tanh>(x, bias, out, n, keep);
}

extern "C" __global__ void NAMED(bias_silu)(act* x, const float* bias, act* out, u32 n, u32 keep) {
    activate_biased<Silu>(x, bias, out, n, keep);
}
