// The draw of an element before its gate: four of one counter.
__device__ inline float gate_noise(const u32* step, u32 k0, u32 k1, u64 i, float margin) {
    if (!step) {
        return 0.0f;
    }
    u64 block = i / 4;
    Words words = philox(k0, k1, (u32)block, (u32)(block >> 32), step[0], 0);
    float u = (float)(((double)(words.word[i % 4] >> 9) + 0.5) * (1.0 / 8388608.0));
    u = u < margin ? margin : u;
    float most = 1.0f - margin;
    u = u > most ? most : u;
    return log_fast(u) - log_fast(1.0f - u);
}
