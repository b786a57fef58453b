extern "C" __global__ void NAMED(add)(const act* a, const act* b, act* out, u64 n) {
    EACH(i, n) {
        out[i] = a[i] + b[i];
    }
}
