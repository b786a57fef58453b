// A thread a number.
extern "C" __global__ void take_at(const float* m, const u32* ids, const u32* bounds, float* out, u32* fault, u32 rows, u32 columns, u32 side, u32 segment, u32 count) {
    u32 from = bounds ? bounds[segment] : 0, to = bounds ? bounds[segment + 1] : count, wide = columns / side;
    u64 area = (u64)side * side;
    EACH(i, count * area) {
        u32 e = (u32)(i / area), within = (u32)(i % area);
        float own = 0.0f;
        if (e >= from && e < to) {
            u32 place = ids[e], row = place / wide * side + within / side, column = place % wide * side + within % side;
            if (row >= rows) {
                raise_index(fault, place, rows / side * wide);
                return;
            }
            own = m[(u64)row * columns + column];
        }
        out[i] = own;
    }
}
