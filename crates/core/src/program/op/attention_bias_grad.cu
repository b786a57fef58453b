// A block makes the sum of one distance and one head: its threads share the pairs of each sequence at that distance, sequence
// by sequence.
extern "C" __global__ void NAMED(attention_bias_grad)(const act* up, const act* q, const act* k, const act* v, const act* o, const float* lse,
                                                      const u32* offsets, const u32* keys, const u32* step, float* out, u32* fault, u32 rows, u32 d,
                                                      u32 heads, u32 shared_heads, u32 sequences, u32 longest, u32 behind, u32 ahead, float scale,
                                                      u32 k0, u32 k1, u32 limit, float kept, const u32* sources, const float* bias, u32 key_rows,
                                                      u32 longest_source, u32 middle) {
    __shared__ float slots[32];
    Mask mask = {behind, ahead};
    u32 head = d / heads, h = blockIdx.y, key_width = head * shared_heads, key_column = h / (heads / shared_heads) * head, row = blockIdx.x;
    float sum = 0.0f;
    for (u32 s = 0; s < sequences; s++) {
        Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);
        if (!own.good) {
            return;
        }
        // Keys are `row - middle` behind their queries.
        u32 from = row < middle ? middle - row : 0, ahead_by = row > middle ? row - middle : 0;
        for (u32 i = from + threadIdx.x; i + ahead_by < own.length; i += blockDim.x) {
            u32 j = i + row - middle;
            if (!sees(mask, i, j)) {
                continue;
            }
            u64 query = (u64)(own.start + i) * d + h * head, key = (u64)(own.start + j) * key_width + key_column;
            float score = 0.0f, slope = 0.0f, dot = 0.0f;
            for (u32 c = 0; c < head; c++) {
                float g = up[query + c];
                score = fmaf((float)q[query + c], (float)k[key + c], score);
                slope = fmaf(g, (float)v[key + c], slope);
                dot = fmaf(g, (float)o[query + c], dot);
            }
            float factor = 1.0f;
            if (keys != 0) {
                u64 at = 2 * (u64)(own.start + i);
                Words words = philox(k0, k1, (h << 20) + j / 4, keys[at + 1], keys[at], step[0]);
                factor = words.word[j % 4] < limit ? 0.0f : kept;
            }
            float p = exp_fast(score * scale + bias[(u64)row * heads + h] - lse[(u64)(own.start + i) * heads + h]);
            sum += p * (slope * factor - dot);
        }
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[(u64)row * heads + h] = sum;
    }
}
