__device__ static double preference_grad_length(const u32* sequences, u32 places, u32 text, u32 loss) {
    if (loss != 3) {
        return 1.0;
    }
    double length = 0.0;
    for (u32 i = 0; i < places; i++) {
        length += sequences[i] == text ? 1.0 : 0.0;
    }
    return length;
}

__device__ static double preference_sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}

__device__ static double preference_slope(double margin, u32 loss, double beta, double e) {
    double x = beta * margin;
    if (loss == 0) {
        return beta * (e * preference_sigmoid(x) - (1.0 - e) * preference_sigmoid(-x));
    }
    if (loss == 1) {
        return -beta * (e * preference_sigmoid(x) + (1.0 - e) * preference_sigmoid(-x)) / (1.0 - 2.0 * e);
    }
    if (loss == 2) {
        return x < 1.0 ? -beta : 0.0;
    }
    return 2.0 * (margin - 0.5 / beta);
}

extern "C" __global__ void preference_grad(const float* up, const float* losses, const u32* sequences, const float* scale, const float* reference, float* out,
                                           u32 places, u64 texts, u32 compared, u32 loss, float beta, float smoothing) {
    double factor = 2.0 * (double)up[0] * (double)scale[0];
    EACH(text, texts) {
        u64 first = text - text % 2;
        if (first + 1 == texts) {
            out[text] = (float)(0.0 / 0.0);
        } else {
            double above[2], lengths[2];
            for (u32 i = 0; i < 2; i++) {
                double other = compared ? (double)reference[first + i] : 0.0;
                lengths[i] = preference_grad_length(sequences, places, (u32)first + i, loss);
                above[i] = (other - (double)losses[first + i]) / lengths[i];
            }
            double slope = factor * preference_slope(above[0] - above[1], loss, (double)beta, (double)smoothing);
            out[text] = (float)(text % 2 == 0 ? -slope / lengths[0] : slope / lengths[1]);
        }
    }
}
