// A thread a number.
extern "C" __global__ void add_at(float* out, const float* values, const u32* ids, const u32* bounds, u32* fault, u32 rows, u32 columns, u32 side, u32 segment, u32 count) {
    u32 from = bounds ? bounds[segment] : 0, to = bounds ? bounds[segment + 1] : count, wide = columns / side;
    u64 area = (u64)side * side;
    EACH(i, count * area) {
        u32 e = (u32)(i / area), within = (u32)(i % area);
        if (e < from || e >= to) {
            continue;
        }
        u32 place = ids[e], row = place / wide * side + within / side, column = place % wide * side + within % side;
        if (row >= rows) {
            raise_index(fault, place, rows / side * wide);
            return;
        }
        out[(u64)row * columns + column] += values[i];
    }
}
