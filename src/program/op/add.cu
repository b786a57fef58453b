extern "C" __global__ void add(const float* a, const float* b, float* out, u64 n) {
    EACH(i, n) {
        out[i] = a[i] + b[i];
    }
}
