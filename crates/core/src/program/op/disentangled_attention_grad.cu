// What a query and a key pass on: the dropped probability, and `scale · dS`.
struct Slope {
    float p;
    float ds;
};

__device__ inline Slope slope_of(const act* up, const act* q, const act* k, const act* v, const act* o, const float* lse, Places places, Draw128 draw,
                                 u32 h, u32 start, u32 i, u32 j, u32 d, u32 heads, float scale, u32* fault) {
    u32 head = d / heads;
    u64 query = (u64)(start + i) * d + h * head, key = (u64)(start + j) * d + h * head;
    u64 place = (u64)place_of(places, i, j, fault) * d + h * head;
    float score = score_of(q + query, k + key, places, place, head) * scale, slope = 0.0f, dot = 0.0f;
    for (u32 c = 0; c < head; c++) {
        float g = up[query + c];
        slope = fmaf(g, (float)v[key + c], slope);
        dot = fmaf(g, (float)o[query + c], dot);
    }
    float factor = factor_of(draw, h, start + i, j), p = exp_fast(score - lse[(u64)(start + i) * heads + h]);
    Slope made;
    made.p = p * factor;
    made.ds = p * (slope * factor - dot) * scale;
    return made;
}

#define OPERANDS                                                                                                                                        \
    const act *up, const act *q, const act *k, const act *v, const act *o, const float *lse, const u32 *offsets, const u32 *list,                      \
        const float *of_keys, const float *of_queries, const u32 *keys, const u32 *step
#define NUMBERS                                                                                                                                         \
    u32 *fault, u32 rows, u32 d, u32 heads, u32 sequences, u32 longest, u32 distances, u32 table, float scale, u32 k0, u32 k1, u32 limit, float kept

// A block makes the gradient of one query and one head. The second output is none.
extern "C" __global__ void NAMED(disentangled_grad_queries)(OPERANDS, act* dq, act* none, NUMBERS) {
    __shared__ float slopes[128];
    __shared__ u32 at[128];
    Places places = {list, of_keys, of_queries, distances / 2, table};
    Draw128 draw = {keys, step, k0, k1, limit, kept};
    u32 s = blockIdx.x / longest, i = blockIdx.x % longest, h = blockIdx.y, head = d / heads, t = threadIdx.x;
    Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);
    if (!own.good || !reaches(distances, longest, fault) || i >= own.length) {
        return;
    }
    float made[2] = {0.0f, 0.0f};
    for (u32 from = 0; from < own.length; from += 128) {
        u32 count = own.length - from < 128 ? own.length - from : 128;
        if (t < count) {
            slopes[t] = slope_of(up, q, k, v, o, lse, places, draw, h, own.start, i, from + t, d, heads, scale, fault).ds;
            at[t] = place_of(places, i, from + t, fault);
        }
        __syncthreads();
        for (u32 part = 0; part < 2; part++) {
            u32 c = t + 128 * part;
            for (u32 n = 0; c < head && n < count; n++) {
                float x = k[(u64)(own.start + from + n) * d + h * head + c];
                x += places.keys != 0 ? places.keys[(u64)at[n] * d + h * head + c] : 0.0f;
                made[part] = fmaf(slopes[n], x, made[part]);
            }
        }
        __syncthreads();
    }
    for (u32 part = 0; part < 2; part++) {
        u32 c = t + 128 * part;
        if (c < head) {
            dq[(u64)(own.start + i) * d + h * head + c] = made[part];
        }
    }
}

// A block makes the gradients of one key, its value and one head.
extern "C" __global__ void NAMED(disentangled_grad_keys)(OPERANDS, act* dk, act* dv, NUMBERS) {
    __shared__ float slopes[128];
    __shared__ float weights[128];
    __shared__ u32 at[128];
    Places places = {list, of_keys, of_queries, distances / 2, table};
    Draw128 draw = {keys, step, k0, k1, limit, kept};
    u32 s = blockIdx.x / longest, j = blockIdx.x % longest, h = blockIdx.y, head = d / heads, t = threadIdx.x;
    Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);
    if (!own.good || !reaches(distances, longest, fault) || j >= own.length) {
        return;
    }
    float of_key[2] = {0.0f, 0.0f}, of_value[2] = {0.0f, 0.0f};
    for (u32 from = 0; from < own.length; from += 128) {
        u32 count = own.length - from < 128 ? own.length - from : 128;
        if (t < count) {
            Slope own_slope = slope_of(up, q, k, v, o, lse, places, draw, h, own.start, from + t, j, d, heads, scale, fault);
            slopes[t] = own_slope.ds;
            weights[t] = own_slope.p;
            at[t] = place_of(places, from + t, j, fault);
        }
        __syncthreads();
        for (u32 part = 0; part < 2; part++) {
            u32 c = t + 128 * part;
            for (u32 n = 0; c < head && n < count; n++) {
                u64 query = (u64)(own.start + from + n) * d + h * head + c;
                float x = q[query];
                x += places.queries != 0 ? places.queries[(u64)at[n] * d + h * head + c] : 0.0f;
                of_key[part] = fmaf(slopes[n], x, of_key[part]);
                of_value[part] = fmaf(weights[n], (float)up[query], of_value[part]);
            }
        }
        __syncthreads();
    }
    for (u32 part = 0; part < 2; part++) {
        u32 c = t + 128 * part;
        if (c < head) {
            u64 to = (u64)(own.start + j) * d + h * head + c;
            dk[to] = of_key[part];
            dv[to] = of_value[part];
        }
    }
}

// A block makes the gradients of one row of the tables and one head: of each sequence, distance by distance that has this row.
extern "C" __global__ void NAMED(disentangled_grad_tables)(OPERANDS, float* of_key, float* of_query, NUMBERS) {
    __shared__ float slopes[128];
    Places places = {list, of_keys, of_queries, distances / 2, table};
    Draw128 draw = {keys, step, k0, k1, limit, kept};
    u32 row = blockIdx.x, h = blockIdx.y, head = d / heads, t = threadIdx.x;
    if (!reaches(distances, longest, fault)) {
        return;
    }
    float by_query[2] = {0.0f, 0.0f}, by_key[2] = {0.0f, 0.0f};
    for (u32 s = 0; s < sequences; s++) {
        Sequence own = sequence_at(offsets, s, sequences, rows, longest, fault);
        if (!own.good) {
            return;
        }
        for (u32 place = 0; place < distances; place++) {
            u32 behind = place < places.middle ? places.middle - place : 0, ahead = place > places.middle ? place - places.middle : 0;
            if (list[place] != row || behind + ahead >= own.length) {
                continue;
            }
            u32 pairs = own.length - behind - ahead;
            for (u32 from = 0; from < pairs; from += 128) {
                u32 count = pairs - from < 128 ? pairs - from : 128;
                if (t < count) {
                    u32 i = behind + from + t;
                    slopes[t] = slope_of(up, q, k, v, o, lse, places, draw, h, own.start, i, i + ahead - behind, d, heads, scale, fault).ds;
                }
                __syncthreads();
                for (u32 part = 0; part < 2; part++) {
                    u32 c = t + 128 * part;
                    for (u32 n = 0; c < head && n < count; n++) {
                        u32 i = own.start + behind + from + n;
                        by_query[part] = fmaf(slopes[n], (float)q[(u64)i * d + h * head + c], by_query[part]);
                        by_key[part] = fmaf(slopes[n], (float)k[(u64)(i + ahead - behind) * d + h * head + c], by_key[part]);
                    }
                }
                __syncthreads();
            }
        }
    }
    for (u32 part = 0; part < 2; part++) {
        u32 c = t + 128 * part;
        u64 to = (u64)row * d + h * head + c;
        if (c < head && of_key != 0) {
            of_key[to] = by_query[part];
        }
        if (c < head && of_query != 0) {
            of_query[to] = by_key[part];
        }
    }
}
