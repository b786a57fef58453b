extern "C" __global__ void widen_f16(const u16* x, float* out, u64 n) {
    EACH(i, n) {
        out[i] = half_to_float(x[i]);
    }
}

extern "C" __global__ void widen_bf16(const u16* x, float* out, u64 n) {
    EACH(i, n) {
        out[i] = bfloat_to_float(x[i]);
    }
}

extern "C" __global__ void narrow_f16(const float* x, u16* out, u64 n) {
    EACH(i, n) {
        out[i] = float_to_half(x[i]);
    }
}

extern "C" __global__ void narrow_bf16(const float* x, u16* out, u64 n) {
    EACH(i, n) {
        out[i] = float_to_bfloat(x[i]);
    }
}
