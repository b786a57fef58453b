extern "C" __global__ void identity(float* out, u64 all, u32 n) {
    EACH(i, all) {
        out[i] = i / n == i % n ? 1.0f : 0.0f;
    }
}
