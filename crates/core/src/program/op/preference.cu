__device__ static double preference_length(const u32* sequences, u32 places, u32 text) {
    double length = 0.0;
    for (u32 i = 0; i < places; i++) {
        length += sequences[i] == text ? 1.0 : 0.0;
    }
    return length;
}

__device__ static double preference_softplus(double x) {
    return fmax(x, 0.0) + log1p(exp(-fabs(x)));
}

__device__ static double preference_odds(double x) {
    x = fmin(x, -1e-12);
    return x - log(-expm1(x));
}

__device__ static double preference_smoothed(double x, double e) {
    return (1.0 - e) * preference_softplus(-x) + e * preference_softplus(x);
}

__device__ static double preference_of(double chosen, double rejected, u32 loss, double beta, double e, double gamma) {
    double margin = chosen - rejected;
    double x = beta * margin;
    if (loss == 0) {
        return preference_smoothed(x, e);
    }
    if (loss == 1) {
        return ((1.0 - e) * preference_softplus(-x) - e * preference_softplus(x)) / (1.0 - 2.0 * e);
    }
    if (loss == 2) {
        return fmax(1.0 - x, 0.0);
    }
    if (loss == 3) {
        return (margin - 0.5 / beta) * (margin - 0.5 / beta);
    }
    if (loss == 4) {
        return preference_smoothed(x - gamma, e);
    }
    return beta * preference_softplus(preference_odds(rejected) - preference_odds(chosen)) - chosen;
}

// One block: a thread a pair. `loss` is 0 for sigmoid, 1 for robust, 2 for hinge, 3 for ipo, 4 for simpo, 5 for orpo.
extern "C" __global__ void preference(const float* losses, const u32* sequences, const float* scale, const float* reference, float* out, float* rows,
                                      u32 places, u32 texts, u32 compared, u32 loss, float beta, float smoothing, float gamma, float alpha) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 pair = threadIdx.x; 2 * pair + 1 < texts; pair += blockDim.x) {
        double above[2];
        for (u32 i = 0; i < 2; i++) {
            u32 text = 2 * pair + i;
            double other = compared ? (double)reference[text] : 0.0;
            above[i] = (other - (double)losses[text]) / (loss < 3 ? 1.0 : preference_length(sequences, places, text));
        }
        double own = preference_of(above[0], above[1], loss, (double)beta, (double)smoothing, (double)gamma);
        if (alpha != 0.0f) {
            own += (double)alpha * (double)losses[2 * pair] / preference_length(sequences, places, 2 * pair);
        }
        for (u32 i = 0; i < 2; i++) {
            rows[4 * pair + 2 * i] = (float)((double)beta * above[i]);
            rows[4 * pair + 2 * i + 1] = (float)own;
        }
        sum += 2.0 * own;
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        if (texts % 2 == 1) {
            sum = 0.0 / 0.0;
            rows[2 * texts - 2] = rows[2 * texts - 1] = (float)sum;
        }
        out[0] = (float)(sum * (double)scale[0]);
    }
}
