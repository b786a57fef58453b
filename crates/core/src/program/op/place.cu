// A block a row; a mark outside the table is noted, and its row stays.
extern "C" __global__ void NAMED(place)(const act* x, const float* rows, const u32* marks, act* out, u32* fault, u32 count, u32 d, u32 add) {
    u32 mark = marks[blockIdx.x];
    bool good = mark <= count;
    if (!good && threadIdx.x == 0) {
        raise_index(fault, mark - 1, count);
    }
    u64 at = (u64)blockIdx.x * d;
    bool marked = good && mark > 0;
    u64 from = marked ? (u64)(mark - 1) * d : 0;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        float own = x[at + c];
        out[at + c] = !marked ? own : add ? own + rows[from + c] : rows[from + c];
    }
}
