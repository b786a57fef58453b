extern "C" __global__ void hold(float* w, const float* before, const u32* bits, u64 n) {
    EACH(i, n) {
        if (!(bits[i / 32] >> (i % 32) & 1u)) {
            w[i] = before[i];
        }
    }
}
