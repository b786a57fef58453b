extern "C" __global__ void accumulate(float* acc, const float* x, u64 n) {
    EACH(i, n) {
        acc[i] += x[i];
    }
}
