extern "C" __global__ void NAMED(detach)(const act* x, act* out, u64 n) {
    map(x, out, n, [](float own) { return own; });
}
