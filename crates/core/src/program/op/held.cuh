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

