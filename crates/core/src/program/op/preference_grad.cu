__device__ static double preference_grad_length(const u32* sequences, u32 places, u32 text) {
    double length = 0.0;
    for (u32 i = 0; i < places; i++) {
        length += sequences[i] == text ? 1.0 : 0.0;
    }
    return length;
}

__device__ static double preference_sigmoid(double x) {
    return 1.0 / (1.0 + exp(-x));
}

// The logarithm of odds and its derivative.
__device__ static double preference_grad_odds(double x, double* slope) {
    double other = -expm1(fmin(x, -1e-12));
    *slope = x < -1e-12 ? 1.0 / other : 0.0;
    return fmin(x, -1e-12) - log(other);
}

__device__ static double preference_smoothed_slope(double x, double beta, double e) {
    return beta * (e * preference_sigmoid(x) - (1.0 - e) * preference_sigmoid(-x));
}

// The derivative by the chosen text, or by the rejected one.
__device__ static double preference_slope(double chosen, double rejected, u32 of_rejected, u32 loss, double beta, double e, double gamma) {
    double margin = chosen - rejected;
    double x = beta * margin;
    double slope;
    if (loss == 0) {
        slope = preference_smoothed_slope(x, beta, e);
    } else if (loss == 1) {
        slope = -beta * (e * preference_sigmoid(x) + (1.0 - e) * preference_sigmoid(-x)) / (1.0 - 2.0 * e);
    } else if (loss == 2) {
        slope = x < 1.0 ? -beta : 0.0;
    } else if (loss == 3) {
        slope = 2.0 * (margin - 0.5 / beta);
    } else if (loss == 4) {
        slope = preference_smoothed_slope(x - gamma, beta, e);
    } else {
        double own, other;
        double ratio = preference_grad_odds(chosen, &own) - preference_grad_odds(rejected, &other);
        slope = beta * preference_sigmoid(-ratio);
        return of_rejected ? slope * other : -slope * own - 1.0;
    }
    return of_rejected ? -slope : slope;
}

extern "C" __global__ void preference_grad(const float* up, const float* losses, const u32* sequences, const float* scale, const float* reference, float* out,
                                           u32 places, u64 texts, u32 compared, u32 loss, float beta, float smoothing, float gamma, float alpha) {
    double factor = 2.0 * (double)up[0] * (double)scale[0];
    EACH(text, texts) {
        u64 first = text - text % 2;
        if (first + 1 == texts) {
            out[text] = (float)(0.0 / 0.0);
        } else {
            double above[2], lengths[2];
            for (u32 i = 0; i < 2; i++) {
                double other = compared ? (double)reference[first + i] : 0.0;
                lengths[i] = loss < 3 ? 1.0 : preference_grad_length(sequences, places, (u32)first + i);
                above[i] = (other - (double)losses[first + i]) / lengths[i];
            }
            u32 of = (u32)(text % 2);
            double slope = preference_slope(above[0], above[1], of, loss, (double)beta, (double)smoothing, (double)gamma);
            double likelihood = 0.0;
            if (of == 0 && alpha != 0.0f) {
                likelihood = factor * (double)alpha / preference_grad_length(sequences, places, (u32)text);
            }
            out[text] = (float)(likelihood - factor * slope / lengths[of]);
        }
    }
}
