// A thread a number: the products of all tokens in order.
extern "C" __global__ void NAMED(sampled_product)(const float* earlier, const act* g, const act* x, const u32* ids, const u32* bounds, float* out, u32* fault, u32 n, u32 rows, u32 columns, u32 side, u32 segment, u32 count) {
    u32 from = bounds ? bounds[segment] : 0, to = bounds ? bounds[segment + 1] : count, wide = columns / side;
    u64 area = (u64)side * side;
    EACH(i, count * area) {
        u32 e = (u32)(i / area), within = (u32)(i % area);
        float sum = 0.0f;
        if (e >= from && e < to) {
            u32 place = ids[e], row = place / wide * side + within / side, column = place % wide * side + within % side;
            if (row >= rows) {
                raise_index(fault, place, rows / side * wide);
                return;
            }
            for (u32 t = 0; t < n; t++) {
                sum += (float)g[(u64)t * rows + row] * (float)x[(u64)t * columns + column];
            }
        }
        out[i] = earlier ? earlier[i] + sum : sum;
    }
}
