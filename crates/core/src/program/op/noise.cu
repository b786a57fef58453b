// A block a row; a thread draws for four neighbours at once.
extern "C" __global__ void NAMED(noise)(const act* x, const u32* keys, const u32* step, act* out, u32 d, u32 k0, u32 k1) {
    u64 row = blockIdx.x, at = row * d;
    u32 example = keys[2 * row], position = keys[2 * row + 1], now = step[0];
    for (u32 four = threadIdx.x; 4 * four < d; four += blockDim.x) {
        Words words = philox(k0, k1, four, position, example, now);
        for (u32 pair = 0; pair < 2; pair++) {
            float radius = sqrtf(-2.0f * ln(unit(words.word[2 * pair])));
            float z[2];
            sin_cos_turns(unit(words.word[2 * pair + 1]), &z[1], &z[0]);
            for (u32 i = 0; i < 2 && 4 * four + 2 * pair + i < d; i++) {
                u64 e = at + 4 * four + 2 * pair + i;
                float own = radius * z[i];
                out[e] = x[e] * own;
            }
        }
    }
}
