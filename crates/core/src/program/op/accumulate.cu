extern "C" __global__ void accumulate(float* acc, const float* x, u64 n) {
    map(acc, x, acc, n, [](float a, float b) { return a + b; });
}
