// `act` is what activations are stored in: f32, or 16 bits that are read as a float and rounded once when written.
// HELD says which: 0 for f32, 1 for f16, 2 for bf16; the kernels' names tell it where it is not f32.

#if HELD == 0
#define NAMED(name) name
typedef float act;
#else
#if HELD == 1
#define NAMED(name) name##_as_f16
#else
#define NAMED(name) name##_as_bf16
#endif
struct act {
    u16 bits;
    __device__ operator float() const {
        return HELD == 1 ? half_to_float(bits) : bfloat_to_float(bits);
    }
    __device__ act& operator=(float x) {
        bits = HELD == 1 ? float_to_half(x) : float_to_bfloat(x);
        return *this;
    }
    __device__ act& operator+=(float x) {
        return *this = (float)*this + x;
    }
};
#endif

struct alignas(4 * sizeof(act)) Four {
    act x[4];
};

// `out[i] = f(a[i])` for `n` numbers, and of two operands; `out` may be either.
template <typename F> __device__ inline void map(const act* a, act* out, u64 n, F f) {
    if (in_fours(n, (u64)a | (u64)out)) {
        EACH(q, n / 4) {
            Four x = ((const Four*)a)[q];
            for (u32 k = 0; k < 4; k++) {
                x.x[k] = f(x.x[k]);
            }
            ((Four*)out)[q] = x;
        }
    } else {
        EACH(i, n) {
            out[i] = f(a[i]);
        }
    }
}

template <typename F> __device__ inline void map(const act* a, const act* b, act* out, u64 n, F f) {
    if (in_fours(n, (u64)a | (u64)b | (u64)out)) {
        EACH(q, n / 4) {
            Four x = ((const Four*)a)[q], y = ((const Four*)b)[q];
            for (u32 k = 0; k < 4; k++) {
                x.x[k] = f(x.x[k], y.x[k]);
            }
            ((Four*)out)[q] = x;
        }
    } else {
        EACH(i, n) {
            out[i] = f(a[i], b[i]);
        }
    }
}

// The same of a row of `d` numbers by a block, with a vector of floats.
template <typename F> __device__ inline void map_row(const act* a, const float* v, act* out, u32 d, F f) {
    if (in_fours(d, (u64)a | (u64)v | (u64)out)) {
        for (u32 q = threadIdx.x; q < d / 4; q += blockDim.x) {
            Four x = ((const Four*)a)[q];
            Floats y = ((const Floats*)v)[q];
            for (u32 k = 0; k < 4; k++) {
                x.x[k] = f(x.x[k], y.x[k]);
            }
            ((Four*)out)[q] = x;
        }
    } else {
        for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
            out[c] = f(a[c], v[c]);
        }
    }
}

// Four numbers of a row as floats, from place `4 q` on.
__device__ inline Floats four_at(const act* x, u32 q) {
    Four own = ((const Four*)x)[q];
    Floats wide;
    for (u32 k = 0; k < 4; k++) {
        wide.x[k] = own.x[k];
    }
    return wide;
}

__device__ inline void put_four(act* x, u32 q, Floats own) {
    Four narrow;
    for (u32 k = 0; k < 4; k++) {
        narrow.x[k] = own.x[k];
    }
    ((Four*)x)[q] = narrow;
}
