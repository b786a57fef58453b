// One block: a thread a pair of texts. Nothing is learned of the second text.
extern "C" __global__ void unpaired_grad(const float* up, const float* losses, const float* others, const u32* labels, const float* scale,
                                         const float* reference, float* out, u32 texts, float beta, float desirable, float undesirable) {
    __shared__ double slots[32];
    u32 pairs = texts / 2;
    double sum = 0.0;
    for (u32 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
        sum += (double)reference[2 * pair + 1] - (double)others[2 * pair + 1];
    }
    double zero = fmax(block_sum(sum, slots) / (double)(pairs > 0 ? pairs : 1), 0.0);
    double factor = 2.0 * (double)up[0] * (double)scale[0];
    for (u32 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
        bool good = labels[2 * pair] == 1;
        double sign = good ? 1.0 : -1.0;
        double x = sign * (double)beta * ((double)reference[2 * pair] - (double)losses[2 * pair] - zero);
        double share = 1.0 / (1.0 + exp(-x)), rest = 1.0 / (1.0 + exp(x));
        out[2 * pair] = (float)(factor * (double)(good ? desirable : undesirable) * share * rest * sign * (double)beta);
        out[2 * pair + 1] = 0.0f;
    }
    if (threadIdx.x == 0 && texts % 2 == 1) {
        out[texts - 1] = (float)(0.0 / 0.0);
    }
}
