// A thread an element: cosines in the first half of the rows, sines in the second.
extern "C" __global__ void waves(const u32* frequencies, float* out, u32 n, u32 size) {
    EACH(i, 2 * (u64)n * size) {
        u64 row = i / size, turns = (u64)frequencies[row % n] * (i % size) % size;
        double angle = 6.283185307179586 * (double)turns / (double)size;
        out[i] = (float)(row < n ? cos(angle) : sin(angle));
    }
}
