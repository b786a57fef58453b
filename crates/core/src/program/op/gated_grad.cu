// The derivative from the input, whatever the function.
template <typename F> struct Slope {
    __device__ static float at(float x) {
        return F::slope(x);
    }
};

template <> struct Slope<Tanh> {
    __device__ static float at(float x) {
        return Tanh::slope(Tanh::apply(x));
    }
};

// `dg` may be `up`.
template <typename F> __device__ inline void gate_back(const act* up, const act* g, const act* u, act* dg, act* du, u64 n) {
    if (in_fours(n, (u64)up | (u64)g | (u64)u | (u64)dg | (u64)du)) {
        EACH(q, n / 4) {
            Four own = ((const Four*)up)[q], x = ((const Four*)g)[q], y = ((const Four*)u)[q], left, right;
            for (u32 k = 0; k < 4; k++) {
                right.x[k] = (float)own.x[k] * F::apply(x.x[k]);
                left.x[k] = (float)own.x[k] * (float)y.x[k] * Slope<F>::at(x.x[k]);
            }
            ((Four*)du)[q] = right;
            ((Four*)dg)[q] = left;
        }
        return;
    }
    EACH(i, n) {
        float own = up[i], x = g[i];
        du[i] = own * F::apply(x);
        dg[i] = own * u[i] * Slope<F>::at(x);
    }
}

extern "C" __global__ void NAMED(gated_gelu_grad)(const act* up, const act* g, const act* u, act* dg, act* du, u64 n) {
    gate_back<Gelu>(up, g, u, dg, du, n);
}

extern "C" __global__ void NAMED(gated_gelu_tanh_grad)(const act* up, const act* g, const act* u, act* dg, act* du, u64 n) {
    gate_back<GeluTanh>(up, g, u, dg, du, n);
}

extern "C" __global__ void NAMED(gated_relu_grad)(const act* up, const act* g, const act* u, act* dg, act* du, u64 n) {
    gate_back<Relu>(up, g, u, dg, du, n);
}

extern "C" __global__ void NAMED(gated_tanh_grad)(const act* up, const act* g, const act* u, act* dg, act* du, u64 n) {
    gate_back<Tanh>(up, g, u, dg, du, n);
}

extern "C" __global__ void NAMED(gated_silu_grad)(const act* up, const act* g, const act* u, act* dg, act* du, u64 n) {
    gate_back<Silu>(up, g, u, dg, du, n);
}
