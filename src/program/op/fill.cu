extern "C" __global__ void fill(float* out, u64 n, float value) {
    EACH(i, n) {
        out[i] = value;
    }
}
