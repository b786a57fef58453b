extern "C" __global__ void square_accumulate(float* acc, const float* x, u64 n) {
    EACH(i, n) {
        acc[i] += x[i] * x[i];
    }
}
