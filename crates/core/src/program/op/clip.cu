extern "C" __global__ void clip(const float* norm, float* out, float max) {
    float factor = max / (norm[0] + 1e-6f);
    // Not `fminf`, which would turn a NaN into 1.
    out[0] = factor > 1.0f ? 1.0f : factor;
}
