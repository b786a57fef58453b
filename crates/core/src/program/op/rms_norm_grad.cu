// A block a run; `out` may be `up`, since a thread writes only what it alone has read.
extern "C" __global__ void NAMED(rms_norm_grad)(const act* up, const act* x, const float* weight, act* out, u32 w, double eps, float add) {
    __shared__ float slots[33];
    u64 at = (u64)blockIdx.x * w;
    float r = reciprocal(x, at, w, eps, slots);
    float dot = 0.0f;
    bool whole = in_fours(w, (u64)up | (u64)x | (u64)weight | (u64)out);
    for (u32 q = threadIdx.x; whole && q < w / 4; q += blockDim.x) {
        Floats g = four_at(up + at, q), own = four_at(x + at, q), by = ((const Floats*)weight)[q];
        for (u32 k = 0; k < 4; k++) {
            dot += g.x[k] * (add + by.x[k]) * own.x[k];
        }
    }
    for (u32 c = threadIdx.x; !whole && c < w; c += blockDim.x) {
        dot += up[at + c] * (add + weight[c]) * x[at + c];
    }
    dot = block_sum(dot, slots) * r * r / (float)w;
    for (u32 q = threadIdx.x; whole && q < w / 4; q += blockDim.x) {
        Floats g = four_at(up + at, q), own = four_at(x + at, q), by = ((const Floats*)weight)[q];
        for (u32 k = 0; k < 4; k++) {
            g.x[k] = r * (g.x[k] * (add + by.x[k]) - own.x[k] * dot);
        }
        put_four(out + at, q, g);
    }
    for (u32 c = threadIdx.x; !whole && c < w; c += blockDim.x) {
        float g = up[at + c] * (add + weight[c]);
        out[at + c] = r * (g - x[at + c] * dot);
    }
}
