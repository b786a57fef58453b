// A thread a row. The output marks what is taken while the largest are looked for.
extern "C" __global__ void top_softmax(const float* x, float* out, u64 rows, u32 d, u32 k) {
    EACH(row, rows) {
        const float* own = x + row * d;
        float* to = out + row * d;
        for (u32 i = 0; i < d; i++) {
            to[i] = 0.0f;
        }
        float highest = 0.0f, sum = 0.0f;
        for (u32 turn = 0; turn < k; turn++) {
            u32 at = d;
            for (u32 i = 0; i < d; i++) {
                if (to[i] == 0.0f && (at == d || own[i] > own[at])) {
                    at = i;
                }
            }
            if (at == d) {
                break;
            }
            if (turn == 0) {
                highest = own[at];
            }
            float weight = exp_fast(own[at] - highest);
            weight = weight > 1.17549435e-38f ? weight : 1.17549435e-38f;
            to[at] = weight;
            sum += weight;
        }
        for (u32 i = 0; i < d; i++) {
            to[i] = to[i] / sum;
        }
    }
}
