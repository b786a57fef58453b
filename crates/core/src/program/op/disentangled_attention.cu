// A block makes the outputs of one query and one head, of all keys in chunks.
extern "C" __global__ void NAMED(disentangled_attention)(const act* q, const act* k, const act* v, const u32* offsets, const u32* list,
                                                         const float* of_keys, const float* of_queries, const u32* keys, const u32* step, act* o,
                                                         float* lse, u32* fault, u32 rows, u32 d, u32 heads, u32 sequences, u32 longest,
                                                         u32 distances, u32 table, float scale, u32 k0, u32 k1, u32 limit, float kept) {
    __shared__ float slots[32];
    __shared__ float weights[128];
    Places places = {list, of_keys, of_queries, distances / 2, table};
    Draw128 draw = {keys, step, k0, k1, limit, kept};
    u32 s = blockIdx.x / longest, i = blockIdx.x % longest, h = blockIdx.y, head = d / heads, t = threadIdx.x;
    Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);
    if (!own.good || !reaches(distances, longest, fault) || i >= own.length) {
        return;
    }
    u64 query = (u64)(own.start + i) * d + h * head;
    float max = minus_infinity(), sum = 0.0f, made[2] = {0.0f, 0.0f};
    for (u32 from = 0; from < own.length; from += 128) {
        u32 j = from + t, count = own.length - from < 128 ? own.length - from : 128;
        float score = minus_infinity();
        if (t < count) {
            u64 key = (u64)(own.start + j) * d + h * head;
            u64 place = (u64)place_of(places, i, j, fault) * d + h * head;
            score = score_of(q + query, k + key, places, place, head) * scale;
        }
        float most = block_max(score, slots), before = max;
        max = most > max ? most : max;
        float shrinks = from == 0 ? 0.0f : exp_fast(before - max);
        float p = t < count ? exp_fast(score - max) : 0.0f;
        sum = sum * shrinks + block_sum(p, slots);
        weights[t] = t < count ? p * factor_of(draw, h, own.start + i, j) : 0.0f;
        __syncthreads();
        for (u32 part = 0; part < 2; part++) {
            u32 c = t + 128 * part;
            if (c < head) {
                float add = 0.0f;
                for (u32 n = 0; n < count; n++) {
                    add = fmaf(weights[n], (float)v[(u64)(own.start + from + n) * d + h * head + c], add);
                }
                made[part] = made[part] * shrinks + add;
            }
        }
        __syncthreads();
    }
    for (u32 part = 0; part < 2; part++) {
        u32 c = t + 128 * part;
        if (c < head) {
            o[query + c] = made[part] / sum;
        }
    }
    if (t == 0) {
        lse[(u64)(own.start + i) * heads + h] = max + logf(sum);
    }
}
