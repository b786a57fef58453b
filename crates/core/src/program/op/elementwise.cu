// `a ∘ b`, where `b` may be broadcast. `out` may be `a`, and `b` where both have one shape.

struct Add {
    __device__ static float apply(float a, float b) {
        return a + b;
    }
};

struct Sub {
    __device__ static float apply(float a, float b) {
        return a - b;
    }
};

struct Mul {
    __device__ static float apply(float a, float b) {
        return a * b;
    }
};

struct Div {
    __device__ static float apply(float a, float b) {
        return a / b;
    }
};

struct Equal {
    __device__ static float apply(float a, float b) {
        return a == b ? 1.0f : 0.0f;
    }
};

template <typename F> __device__ inline void full(const act* a, const act* b, act* out, u64 n) {
    map(a, b, out, n, [](float x, float y) { return F::apply(x, y); });
}

// A block a row: the steps say how far `b` moves from row to row and from column to column.
template <typename F>
__device__ inline void vector(const act* a, const float* b, act* out, u32 d, u32 row_step, u32 column_step) {
    u64 at = (u64)blockIdx.x * d;
    const float* own = b + (u64)blockIdx.x * row_step;
    if (column_step == 1) {
        map_row(a + at, own, out + at, d, [](float x, float y) { return F::apply(x, y); });
        return;
    }
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        out[at + c] = F::apply(a[at + c], own[c * column_step]);
    }
}

template <typename F> __device__ inline void scalar(const act* a, const float* b, act* out, u64 n) {
    float own = b[0];
    map(a, out, n, [own](float x) { return F::apply(x, own); });
}

extern "C" __global__ void NAMED(elementwise_add)(const act* a, const act* b, act* out, u64 n) {
    full<Add>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_add_vector)(const act* a, const float* b, act* out, u32 d, u32 row_step, u32 column_step) {
    vector<Add>(a, b, out, d, row_step, column_step);
}

extern "C" __global__ void NAMED(elementwise_add_scalar)(const act* a, const float* b, act* out, u64 n) {
    scalar<Add>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_sub)(const act* a, const act* b, act* out, u64 n) {
    full<Sub>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_sub_vector)(const act* a, const float* b, act* out, u32 d, u32 row_step, u32 column_step) {
    vector<Sub>(a, b, out, d, row_step, column_step);
}

extern "C" __global__ void NAMED(elementwise_sub_scalar)(const act* a, const float* b, act* out, u64 n) {
    scalar<Sub>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_mul)(const act* a, const act* b, act* out, u64 n) {
    full<Mul>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_mul_vector)(const act* a, const float* b, act* out, u32 d, u32 row_step, u32 column_step) {
    vector<Mul>(a, b, out, d, row_step, column_step);
}

extern "C" __global__ void NAMED(elementwise_mul_scalar)(const act* a, const float* b, act* out, u64 n) {
    scalar<Mul>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_div)(const act* a, const act* b, act* out, u64 n) {
    full<Div>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_div_vector)(const act* a, const float* b, act* out, u32 d, u32 row_step, u32 column_step) {
    vector<Div>(a, b, out, d, row_step, column_step);
}

extern "C" __global__ void NAMED(elementwise_div_scalar)(const act* a, const float* b, act* out, u64 n) {
    scalar<Div>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_equal)(const act* a, const act* b, act* out, u64 n) {
    full<Equal>(a, b, out, n);
}

extern "C" __global__ void NAMED(elementwise_equal_vector)(const act* a, const float* b, act* out, u32 d, u32 row_step, u32 column_step) {
    vector<Equal>(a, b, out, d, row_step, column_step);
}

extern "C" __global__ void NAMED(elementwise_equal_scalar)(const act* a, const float* b, act* out, u64 n) {
    scalar<Equal>(a, b, out, n);
}
