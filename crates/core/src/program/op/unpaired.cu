// One block: a thread a pair of texts.
extern "C" __global__ void unpaired(const float* losses, const float* others, const u32* labels, const float* scale, const float* reference,
                                    float* out, float* rows, u32 texts, float beta, float desirable, float undesirable) {
    __shared__ double slots[32];
    u32 pairs = texts / 2;
    double sum = 0.0;
    for (u32 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
        sum += (double)reference[2 * pair + 1] - (double)others[2 * pair + 1];
    }
    double zero = fmax(block_sum(sum, slots) / (double)(pairs > 0 ? pairs : 1), 0.0);
    sum = 0.0;
    for (u32 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
        bool good = labels[2 * pair] == 1;
        double ratio = (double)reference[2 * pair] - (double)losses[2 * pair];
        double another = (double)reference[2 * pair + 1] - (double)others[2 * pair + 1];
        double x = (good ? 1.0 : -1.0) * (double)beta * (ratio - zero);
        double own = (double)(good ? desirable : undesirable) * (1.0 / (1.0 + exp(x)));
        rows[4 * pair] = (float)((double)beta * ratio);
        rows[4 * pair + 1] = (float)own;
        rows[4 * pair + 2] = (float)((double)beta * another);
        rows[4 * pair + 3] = (float)own;
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
