// Four elements a thread, of one counter: two pairs by Box and Muller. Only + − × ÷ √, so the numbers
// have the CPU's bits.
extern "C" __global__ void perturb(float* w, const float* by, const u32* draw, u64 n, u32 k0, u32 k1, float weight_decay) {
    float a = by[0], b = by[1], decay = by[2] * weight_decay;
    EACH(four, (n + 3) / 4) {
        Words words = philox(k0, k1, (u32)four, 0, draw[1], draw[0]);
        for (u32 pair = 0; pair < 2; pair++) {
            float radius = sqrtf(-2.0f * ln(unit(words.word[2 * pair])));
            float z[2];
            sin_cos_turns(unit(words.word[2 * pair + 1]), &z[1], &z[0]);
            for (u32 i = 0; i < 2; i++) {
                u64 e = 4 * four + 2 * pair + i;
                if (e < n) {
                    float own = radius * z[i];
                    float t = w[e] + a * own;
                    w[e] = t - (b * own + decay * t);
                }
            }
        }
    }
}
