extern "C" __global__ void NAMED(fill)(act* out, u64 n, float value) {
    map(out, out, n, [value](float) { return value; });
}
