// A block a row; a thread draws for four neighbours at once.
extern "C" __global__ void NAMED(dropout)(const act* x, const u32* keys, const u32* step, act* out, u32 d, u32 k0, u32 k1, u32 limit, float scale) {
    u64 row = blockIdx.x, at = row * d;
    u32 example = keys[2 * row], position = keys[2 * row + 1], now = step[0];
    bool whole = in_fours(d, (u64)x | (u64)out);
    for (u32 four = threadIdx.x; 4 * four < d; four += blockDim.x) {
        Words words = philox(k0, k1, four, position, example, now);
        if (whole) {
            Four own = ((const Four*)(x + at))[four];
            for (u32 i = 0; i < 4; i++) {
                own.x[i] = words.word[i] < limit ? 0.0f : own.x[i] * scale;
            }
            ((Four*)(out + at))[four] = own;
            continue;
        }
        for (u32 i = 0; i < 4 && 4 * four + i < d; i++) {
            u64 e = at + 4 * four + i;
            out[e] = words.word[i] < limit ? 0.0f : x[e] * scale;
        }
    }
}
