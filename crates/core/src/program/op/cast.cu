extern "C" __global__ void widen_f16(const u16* x, float* out, u64 n) {
    convert<u16, float, Halves, Floats>(x, out, n, [](u16 x) { return half_to_float(x); });
}

extern "C" __global__ void widen_bf16(const u16* x, float* out, u64 n) {
    convert<u16, float, Halves, Floats>(x, out, n, [](u16 x) { return bfloat_to_float(x); });
}

extern "C" __global__ void narrow_f16(const float* x, u16* out, u64 n) {
    convert<float, u16, Floats, Halves>(x, out, n, [](float x) { return float_to_half(x); });
}

extern "C" __global__ void narrow_bf16(const float* x, u16* out, u64 n) {
    convert<float, u16, Floats, Halves>(x, out, n, [](float x) { return float_to_bfloat(x); });
}
