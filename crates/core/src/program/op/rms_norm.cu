// A block a run; `y` may be `x`, since a thread writes only what it alone has read.
extern "C" __global__ void NAMED(rms_norm)(const act* x, const float* weight, act* y, u32 w, double eps, float add) {
    __shared__ float slots[33];
    u64 at = (u64)blockIdx.x * w;
    float r = reciprocal(x, at, w, eps, slots);
    map_row(x + at, weight, y + at, w, [r, add](float own, float by) { return own * r * (add + by); });
}
