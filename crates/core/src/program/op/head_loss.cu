// Pieces of the head, as products read them, where they do not read it as it is.

extern "C" __global__ void head_piece_narrow(const float* head, u16* out, u64 from, u64 n) {
    convert<float, u16, Floats, Halves>(head + from, out, n, [](float x) { return float_to_bfloat(x); });
}

extern "C" __global__ void head_piece_wide(const u16* head, float* out, u64 from, u64 n) {
    convert<u16, float, Halves, Floats>(head + from, out, n, [](u16 x) { return bfloat_to_float(x); });
}

// The logarithm of a sum of two exponentials; no number if one of them is none.
__device__ inline double log_add(double a, double b) {
    return (a >= b ? a : b) + log1p(exp(-fabs(a - b)));
}

// A block a row: what a piece of its logits, tokens from `first` on, adds to what is known of it. `cap` is 0 for none, and so is `bias`.
extern "C" __global__ void head_loss_piece(float* logits, const float* bias, const u32* targets, double* lses, double* owns, float* highs, u32* bests, u32* fault, u32 n,
                                           u32 first, u32 vocabulary, float cap) {
    __shared__ float slots[32];
    u64 at = (u64)blockIdx.x * n;
    float high = minus_infinity();
    for (u32 c = threadIdx.x; c < n; c += blockDim.x) {
        float x = logits[at + c];
        if (bias != 0) {
            x += bias[first + c];
            logits[at + c] = x;
        }
        if (cap > 0.0f) {
            x = cap * tanh_fast(x / cap);
            logits[at + c] = x;
        }
        high = x > high ? x : high;
    }
    high = block_max(high, slots);
    float sum = 0.0f, place = -(float)n;
    for (u32 c = threadIdx.x; c < n; c += blockDim.x) {
        float x = logits[at + c];
        sum += exp_fast(x - high);
        place = x == high && -(float)c > place ? -(float)c : place;
    }
    sum = block_sum(sum, slots);
    place = block_max(place, slots);
    if (threadIdx.x == 0) {
        u32 row = blockIdx.x, target = targets[row];
        double lse = (double)high + log((double)sum);
        if (first == 0 && target >= vocabulary) {
            raise_index(fault, target, vocabulary);
        }
        if (first == 0 || high > highs[row]) {
            highs[row] = high;
            bests[row] = first + (u32)(-place);
        }
        lses[row] = first == 0 ? lse : log_add(lses[row], lse);
        if (target >= first && target - first < n) {
            owns[row] = logits[at + (target - first)];
        }
    }
}

// A thread a row: its results, and its loss in the place of its sum.
extern "C" __global__ void head_loss_rows(double* lses, const double* owns, const u32* bests, float* lse, float* rows, u64 n) {
    EACH(i, n) {
        double own = lses[i], loss = own - owns[i];
        lse[i] = (float)own;
        rows[2 * i] = (float)loss;
        rows[2 * i + 1] = own == own ? (float)bests[i] : (float)own;
        lses[i] = loss;
    }
}

// One block.
extern "C" __global__ void head_loss_sum(const double* losses, const float* scale, float* out, u32 rows) {
    __shared__ double slots[32];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < rows; i += blockDim.x) {
        sum += losses[i];
    }
    sum = block_sum(sum, slots);
    if (threadIdx.x == 0) {
        out[0] = (float)(sum * (double)scale[0]);
    }
}
