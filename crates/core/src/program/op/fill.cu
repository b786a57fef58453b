extern "C" __global__ void NAMED(fill)(act* out, u64 n, float value) {
    EACH(i, n) {
        out[i] = value;
    }
}
