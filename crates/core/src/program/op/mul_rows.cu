// A block a row.
extern "C" __global__ void NAMED(mul_rows)(const act* x, const float* v, act* out, u32 d) {
    u64 at = (u64)blockIdx.x * d;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        out[at + c] = x[at + c] * v[c];
    }
}
