// A thread a word: eight counters of four draws.
extern "C" __global__ void bernoulli(const u32* step, u32* out, u64 n, u32 k0, u32 k1, u32 limit) {
    EACH(i, n) {
        u32 word = 0;
        for (u32 four = 0; four < 8; four++) {
            u64 block = i * 8 + four;
            Words drawn = philox(k0, k1, (u32)block, (u32)(block >> 32), step[0], 0);
            for (u32 bit = 0; bit < 4; bit++) {
                word |= (drawn.word[bit] < limit ? 1u : 0u) << (4 * four + bit);
            }
        }
        out[i] = word;
    }
}
