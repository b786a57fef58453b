// What the kernels share: element loops, reductions in a fixed order, the elementary functions of
// `math.rs` and the random numbers of `random.rs`, operation by operation.
//
// Compiled without contraction of a multiplication and an addition, so that an expression has the bits it
// has on the CPU; where a fused one is wanted it is written `fmaf`. Nothing is included: NVRTC brings what
// is used. `SHARED` names the dynamic shared memory, because a test compiles these sources for the host.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

#ifndef SHARED
#define SHARED(name) extern __shared__ __align__(16) float name[]
#endif

// Every element of `n`, whatever the number of blocks.
#define EACH(i, n) for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (u64)gridDim.x * blockDim.x)

// Four neighbours, read or written at once where they begin at a multiple of their size.
struct alignas(16) Floats {
    float x[4];
};

struct alignas(8) Halves {
    u16 x[4];
};

// Whether `n` numbers can be taken four by four; `addresses` are those of all, joined by `|`.
__device__ inline bool in_fours(u64 n, u64 addresses) {
    return n % 4 == 0 && addresses % 16 == 0;
}

// `out[i] = f(x[i])` between two types; `Ins` and `Outs` are four of each.
template <typename In, typename Out, typename Ins, typename Outs, typename F>
__device__ inline void convert(const In* x, Out* out, u64 n, F f) {
    if (in_fours(n, (u64)x | (u64)out)) {
        EACH(q, n / 4) {
            Ins from = ((const Ins*)x)[q];
            Outs to;
            for (u32 k = 0; k < 4; k++) {
                to.x[k] = f(from.x[k]);
            }
            ((Outs*)out)[q] = to;
        }
    } else {
        EACH(i, n) {
            out[i] = f(x[i]);
        }
    }
}

// Makes `n` numbers from `first` on, by a function of a number's place; `Fours` are four of them.
template <typename Fours, typename T, typename F> __device__ inline void make_numbers(T* out, u64 first, u64 n, F make) {
    if (first % 4 == 0 && in_fours(n, (u64)out)) {
        EACH(q, n / 4) {
            u64 at = (first / 4 + q) * 4;
            Fours made;
            for (u32 k = 0; k < 4; k++) {
                made.x[k] = make(at + k);
            }
            ((Fours*)out)[q] = made;
        }
    } else {
        EACH(i, n) {
            out[i] = make(first + i);
        }
    }
}

// Notes the first index outside its table; the host reads it with the next result.
__device__ inline void raise_index(u32* fault, u32 index, u32 rows) {
    if (atomicCAS(fault, 0u, 1u) == 0u) {
        fault[1] = index;
        fault[2] = rows;
    }
}

template <typename T> __device__ inline T warp_sum(T x) {
    for (int step = 16; step > 0; step >>= 1) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

// Sum over a block of whole warps, the same in every thread; `slots` has 32 elements.
template <typename T> __device__ inline T block_sum(T x, T* slots) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) {
        slots[threadIdx.x / 32] = x;
    }
    __syncthreads();
    T sum = 0;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
        sum += slots[warp];
    }
    __syncthreads();
    return sum;
}

// Largest over a block; a NaN may be passed over.
__device__ inline float block_max(float x, float* slots) {
    for (int step = 16; step > 0; step >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, x, step);
        x = other > x ? other : x;
    }
    if (threadIdx.x % 32 == 0) {
        slots[threadIdx.x / 32] = x;
    }
    __syncthreads();
    float max = slots[0];
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) {
        max = slots[warp] > max ? slots[warp] : max;
    }
    __syncthreads();
    return max;
}

__device__ inline float minus_infinity() {
    return __uint_as_float(0xff800000u);
}

// The logarithm of the sum of a row's exponentials, by a block, the same in every thread; 32 slots each.
__device__ inline double log_sum_exp(const float* row, u32 n, float* highs, double* slots) {
    float max = minus_infinity();
    for (u32 c = threadIdx.x; c < n; c += blockDim.x) {
        float x = row[c];
        max = x > max ? x : max;
    }
    max = block_max(max, highs);
    double sum = 0.0;
    for (u32 c = threadIdx.x; c < n; c += blockDim.x) {
        sum += exp((double)row[c] - (double)max);
    }
    return (double)max + log(block_sum(sum, slots));
}

__device__ inline float exp_fast(float x) {
    x = x < -87.33654f ? -87.33654f : x;
    x = x > 88.37f ? 88.37f : x;
    const float round = 12582912.0f + 127.0f;
    float z = x * 1.44269504088896340736f + round;
    float n = z - round;
    float r = x - n * 0.6933594f - n * -2.1219444e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3982e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 0.16666665f;
    p = p * r + 0.5f;
    float y = p * r * r + r + 1.0f;
    return y * __uint_as_float(__float_as_uint(z) << 23);
}

__device__ inline float log_fast(float x) {
    bool tiny = x < 1.17549435e-38f;
    float scaled = tiny ? x * 8388608.0f : x;
    int exponent = (int)(__float_as_uint(scaled) - 0x3f3504f3u) >> 23;
    float m = __uint_as_float(__float_as_uint(scaled) - ((u32)exponent << 23)) - 1.0f;
    float n = (float)exponent - (tiny ? 23.0f : 0.0f);
    float z = m * m;
    float p = 7.0376836e-2f;
    p = p * m - 1.151461e-1f;
    p = p * m + 1.1676999e-1f;
    p = p * m - 1.2420141e-1f;
    p = p * m + 1.4249323e-1f;
    p = p * m - 1.6668058e-1f;
    p = p * m + 2.0000715e-1f;
    p = p * m - 2.4999994e-1f;
    p = p * m + 3.333333e-1f;
    float y = p * m * z + n * -2.1219444e-4f - 0.5f * z;
    y = m + y + n * 0.6933594f;
    y = x < __uint_as_float(0x7f800000u) ? y : x;
    y = x < 0.0f ? __uint_as_float(0x7fc00000u) : y;
    return x == 0.0f ? minus_infinity() : y;
}

__device__ inline float tanh_fast(float x) {
    float a = fabsf(x);
    float e = exp_fast((a > 9.1f ? 9.1f : a) * 2.0f);
    float far = copysignf(1.0f - 2.0f / (e + 1.0f), x);
    float s = x * x;
    float p = -5.7049887e-3f;
    p = p * s + 2.0639089e-2f;
    p = p * s - 5.3739715e-2f;
    p = p * s + 0.13331442f;
    p = p * s - 0.33333282f;
    float near = p * s * x + x;
    return a < 0.625f ? near : far;
}

// As `sin_cos_fast` of the CPU: a polynomial in doubles for a quarter of a turn.
__device__ inline void sin_cos_fast(float at, float* sine_of, float* cosine_of) {
    double x = (double)at;
    double z = x * 0.63661977236758134308 + 6755399441055744.0;
    double n = z - 6755399441055744.0;
    double r = x - n * 1.5707963267341256 - n * 6.077100506506192e-11;
    double s = r * r;
    double p = 1.5896230157654657e-10;
    p = p * s - 2.5050747762857807e-8;
    p = p * s + 2.7557313621385725e-6;
    p = p * s - 1.984126982958954e-4;
    p = p * s + 8.333333333322118e-3;
    p = p * s - 0.1666666666666663;
    double sine = p * s * r + r;
    double q = -1.1358536521387682e-11;
    q = q * s + 2.0875700841974732e-9;
    q = q * s - 2.755731417929674e-7;
    q = q * s + 2.4801587288851705e-5;
    q = q * s - 1.3888888888873056e-3;
    q = q * s + 4.166666666666659e-2;
    double cosine = q * s * s - 0.5 * s + 1.0;
    int quarter = n == n ? (int)((long long)n & 3) : 0;
    double a = quarter & 1 ? cosine : sine, b = quarter & 1 ? sine : cosine;
    *sine_of = (float)(quarter & 2 ? -a : a);
    *cosine_of = (float)(quarter == 1 || quarter == 2 ? -b : b);
}

__device__ inline void normal_cdf_pdf(float x, float* cdf, float* pdf) {
    float z = fabsf(x) * 0.707106781186547524400844f;
    float t = 1.0f / (0.3275911f * z + 1.0f);
    float e = exp_fast(-0.5f * x * x);
    float p = ((((1.0614054f * t - 1.4531521f) * t + 1.4214138f) * t - 0.28449672f) * t + 0.2548296f) * t;
    float tail = 0.5f * p * e;
    *cdf = x > 0.0f ? 1.0f - tail : tail;
    *pdf = e * 0.3989423f;
}

// Philox 4x32-10: the four words of a counter.
struct Words {
    u32 word[4];
};

__device__ inline Words philox(u32 k0, u32 k1, u32 c0, u32 c1, u32 c2, u32 c3) {
    for (int round = 0; round < 10; round++) {
        u64 p0 = (u64)c0 * 0xD2511F53u, p1 = (u64)c2 * 0xCD9E8D57u;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c1 = (u32)p1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words;
    words.word[0] = c0;
    words.word[1] = c1;
    words.word[2] = c2;
    words.word[3] = c3;
    return words;
}

__device__ inline float half_to_float(u16 x) {
    u32 sign = (u32)(x & 0x8000) << 16, exponent = (x >> 10) & 31, fraction = x & 1023;
    if (exponent == 31) {
        return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    }
    if (exponent == 0) {
        float small = (float)fraction * 5.9604644775390625e-8f;
        return __uint_as_float(sign | __float_as_uint(small));
    }
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

// To the nearest, ties to even.
__device__ inline u16 float_to_half(float x) {
    u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000u) {
        return (u16)(sign | 0x7e00 | (size >> 13 & 1023));
    }
    if (size >= 0x477ff000u) {
        return (u16)(sign | 0x7c00);
    }
    if (size < 0x38800000u) {
        // Adding one half puts the result's last place where the sum's is.
        float moved = __uint_as_float(size) + 0.5f;
        return (u16)(sign | (__float_as_uint(moved) - 0x3f000000u));
    }
    return (u16)(sign | (size - 0x38000000u + 0xfff + (size >> 13 & 1)) >> 13);
}

__device__ inline float bfloat_to_float(u16 x) {
    return __uint_as_float((u32)x << 16);
}

__device__ inline u16 float_to_bfloat(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000u) {
        return (u16)(bits >> 16 | 0x40);
    }
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
