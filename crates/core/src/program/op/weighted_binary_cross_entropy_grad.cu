extern "C" __global__ void weighted_binary_cross_entropy_grad(const float* logits, const float* targets, const float* scale, const float* weights, const float* up, float* out, u64 n, u32 classes) {
    double factor = (double)up[0] * (double)scale[0] / (double)classes;
    EACH(i, n) {
        double sigmoid = 1.0 / (1.0 + exp(-(double)logits[i]));
        double t = (double)targets[i], w = (double)weights[i % classes];
        out[i] = (float)(factor * ((1.0 + (w - 1.0) * t) * sigmoid - w * t));
    }
}
