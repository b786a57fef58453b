// `out` may be either operand.
template <typename F> __device__ inline void activate_back(const act* up, const act* saved, act* out, u64 n) {
    map(up, saved, out, n, [](float a, float b) { return a * F::slope(b); });
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
