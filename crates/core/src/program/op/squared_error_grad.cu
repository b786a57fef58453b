extern "C" __global__ void squared_error_grad(const float* scores, const float* targets, const float* scale, const float* up, float* out, u64 n) {
    double factor = 2.0 * (double)up[0] * (double)scale[0];
    EACH(i, n) {
        out[i] = (float)(factor * ((double)scores[i] - (double)targets[i]));
    }
}
