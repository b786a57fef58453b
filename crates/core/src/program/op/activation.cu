template <typename F> __device__ inline void activate(const act* x, act* out, u64 n) {
    EACH(i, n) {
        out[i] = F::apply(x[i]);
    }
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
