// `out` may be either operand.
template <typename F> __device__ inline void gate(const act* g, const act* u, act* out, u64 n) {
    map(g, u, out, n, [](float a, float b) { return F::apply(a) * b; });
}

extern "C" __global__ void NAMED(gated_gelu)(const act* g, const act* u, act* out, u64 n) {
    gate<Gelu>(g, u, out, n);
}

extern "C" __global__ void NAMED(gated_gelu_tanh)(const act* g, const act* u, act* out, u64 n) {
    gate<GeluTanh>(g, u, out, n);
}

extern "C" __global__ void NAMED(gated_relu)(const act* g, const act* u, act* out, u64 n) {
    gate<Relu>(g, u, out, n);
}

extern "C" __global__ void NAMED(gated_tanh)(const act* g, const act* u, act* out, u64 n) {
    gate<Tanh>(g, u, out, n);
}

extern "C" __global__ void NAMED(gated_silu)(const act* g, const act* u, act* out, u64 n) {
    gate<Silu>(g, u, out, n);
}
