// A block a row; `out` may be `up`, since a thread writes only what it alone has read.
extern "C" __global__ void NAMED(layer_norm_grad)(const act* up, const act* x, const float* mean, const float* rstd, const float* gamma, act* out, u32 d) {
    __shared__ float slots[32];
    u64 at = (u64)blockIdx.x * d;
    float m = mean[blockIdx.x], r = rstd[blockIdx.x];
    bool whole = in_fours(d, (u64)up | (u64)x | (u64)gamma | (u64)out);
    float sum = 0.0f, dot = 0.0f;
    for (u32 q = threadIdx.x; whole && q < d / 4; q += blockDim.x) {
        Floats g = four_at(up + at, q), own = four_at(x + at, q), scale = ((const Floats*)gamma)[q];
        for (u32 k = 0; k < 4; k++) {
            float by = g.x[k] * scale.x[k];
            sum += by;
            dot += by * (own.x[k] - m);
        }
    }
    for (u32 c = threadIdx.x; !whole && c < d; c += blockDim.x) {
        float g = up[at + c] * gamma[c];
        sum += g;
        dot += g * (x[at + c] - m);
    }
    sum = block_sum(sum, slots) / (float)d;
    dot = block_sum(dot, slots) * r / (float)d;
    for (u32 q = threadIdx.x; whole && q < d / 4; q += blockDim.x) {
        Floats g = four_at(up + at, q), own = four_at(x + at, q), scale = ((const Floats*)gamma)[q];
        for (u32 k = 0; k < 4; k++) {
            g.x[k] = r * (g.x[k] * scale.x[k] - sum - (own.x[k] - m) * r * dot);
        }
        put_four(out + at, q, g);
    }
    for (u32 c = threadIdx.x; !whole && c < d; c += blockDim.x) {
        float g = up[at + c] * gamma[c];
        out[at + c] = r * (g - sum - (x[at + c] - m) * r * dot);
    }
}
