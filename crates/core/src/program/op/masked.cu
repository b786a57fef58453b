extern "C" __global__ void masked(const float* x, const u32* bits, float* out, u64 n, float scale) {
    EACH(i, n) {
        out[i] = (bits[i / 32] >> (i % 32) & 1u) ? x[i] * scale : 0.0f;
    }
}
