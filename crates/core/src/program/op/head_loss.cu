// Pieces of the head, as products read them, where they do not read it as it is.

extern "C" __global__ void head_piece_narrow(const float* head, u16* out, u64 from, u64 n) {
    convert<float, u16, Floats, Halves>(head + from, out, n, [](float x) { return float_to_bfloat(x); });
}

extern "C" __global__ void head_piece_wide(const u16* head, float* out, u64 from, u64 n) {
    convert<u16, float, Halves, Floats>(head + from, out, n, [](u16 x) { return bfloat_to_float(x); });
}

// Numbers of a piece's row that a thread holds: 512 threads hold 8,192, the most columns that a piece has.
#define HELD_LOGITS 16

// A row of a piece's logits, tokens from `first` on; `bias` is that of the whole vocabulary, or 0, and so is `cap`. The row
// becomes nothing (`weights` 0), weights (1), or weights in bf16 at its beginning (2).
struct Row {
    float* logits;
    const float* bias;
    u32 n, first, weights;
    float cap;
};

// Four numbers in bf16.
struct alignas(8) Pairs {
    u32 x[2];
};

__device__ inline float power_of_e(float x) {
    return two_to(x * 1.44269504088896340736f);
}

// Calls `f(i, column)` for a thread's numbers of a row of `n`: four neighbours at a time, or each by itself. Only the former are
// in registers.
template <bool FOURS, typename F> __device__ inline void each_held(u32 n, F f) {
#pragma unroll(FOURS ? HELD_LOGITS : 1)
    for (u32 q = 0; q < HELD_LOGITS / 4; q++) {
        u32 at = FOURS ? (q * blockDim.x + threadIdx.x) * 4 : q * 4 * blockDim.x + threadIdx.x;
#pragma unroll(FOURS ? 4 : 1)
        for (u32 k = 0; k < 4; k++) {
            u32 c = FOURS ? at + k : at + k * blockDim.x;
            if (FOURS ? at < n : c < n) {
                f(4 * q + k, c);
            }
        }
    }
}

// Reads a row; all loads are on their way before the first number is used.
template <bool FOURS> __device__ inline void read_row(float (&x)[HELD_LOGITS], const Row& row) {
    if (FOURS) {
#pragma unroll
        for (u32 q = 0; q < HELD_LOGITS / 4; q++) {
            u32 at = (q * blockDim.x + threadIdx.x) * 4;
            if (at < row.n) {
                Floats own = *(const Floats*)(row.logits + at);
                for (u32 k = 0; k < 4; k++) {
                    x[4 * q + k] = own.x[k];
                }
            }
        }
    } else {
        each_held<FOURS>(row.n, [&](u32 i, u32 c) { x[i] = row.logits[c]; });
    }
    if (row.bias != 0) {
        each_held<FOURS>(row.n, [&](u32 i, u32 c) { x[i] += row.bias[row.first + c]; });
    }
    if (row.cap > 0.0f) {
        each_held<FOURS>(row.n, [&](u32 i, u32) { x[i] = row.cap * tanh_fast(x[i] / row.cap); });
    }
}

// Writes weights; the target's, at `target`, is 0.
template <bool FOURS> __device__ inline void write_row(const float (&x)[HELD_LOGITS], const Row& row, u32 target) {
    u16* rounded = (u16*)row.logits;
    if (FOURS) {
#pragma unroll
        for (u32 q = 0; q < HELD_LOGITS / 4; q++) {
            u32 at = (q * blockDim.x + threadIdx.x) * 4;
            if (at >= row.n) {
                continue;
            }
            if (row.weights == 2) {
                Pairs own = {{two_bfloats(x[4 * q], x[4 * q + 1]), two_bfloats(x[4 * q + 2], x[4 * q + 3])}};
                *(Pairs*)(rounded + at) = own;
            } else {
                Floats own;
                for (u32 k = 0; k < 4; k++) {
                    own.x[k] = x[4 * q + k];
                }
                *(Floats*)(row.logits + at) = own;
            }
        }
    } else {
        each_held<FOURS>(row.n, [&](u32 i, u32 c) {
            if (row.weights == 2) {
                rounded[c] = float_to_bfloat(x[i]);
            } else {
                row.logits[c] = x[i];
            }
        });
    }
    // Whoever wrote it writes it again.
    if (target < row.n && (FOURS ? target / 4 : target) % blockDim.x == threadIdx.x) {
        if (row.weights == 2) {
            rounded[target] = 0;
        } else {
            row.logits[target] = 0.0f;
        }
    }
}

// What is known of a row.
struct Known {
    double* sum;
    float *own, *high;
    u32* best;
};

// Adds a piece of a row to what is known of it. What was added to its gradient of `d` numbers, or 0, shrinks where a larger
// logit is met: weights are exponentials below the largest so far. `slots` has 32 numbers.
template <bool FOURS> __device__ inline void add_piece(const Row& row, const Known& known, float* states, u32 d, u32 target, float* slots) {
    float x[HELD_LOGITS];
    read_row<FOURS>(x, row);
    if (threadIdx.x == 0 && target < row.n) {
        float own = row.logits[target] + (row.bias != 0 ? row.bias[row.first + target] : 0.0f);
        *known.own = row.cap > 0.0f ? row.cap * tanh_fast(own / row.cap) : own;
    }
    float before = row.first == 0 ? minus_infinity() : *known.high, high = minus_infinity();
    each_held<FOURS>(row.n, [&](u32 i, u32) { high = x[i] > high ? x[i] : high; });
    high = block_max(high, slots);
    bool rises = row.first == 0 || high > before;
    if (rises) {
        float place = -(float)row.n;
        each_held<FOURS>(row.n, [&](u32 i, u32 c) { place = x[i] == high && -(float)c > place ? -(float)c : place; });
        place = block_max(place, slots);
        if (threadIdx.x == 0) {
            *known.high = high;
            *known.best = row.first + (u32)(-place);
        }
    }
    float top = rises ? high : before, sum = 0.0f;
    each_held<FOURS>(row.n, [&](u32 i, u32) {
        float own = power_of_e(x[i] - top);
        sum += own;
        if (row.cap > 0.0f) {
            float t = x[i] / row.cap;
            own *= 1.0f - t * t;
        }
        x[i] = own;
    });
    sum = block_sum(sum, slots);
    if (row.weights != 0) {
        write_row<FOURS>(x, row, target);
    }
    float shrunk = power_of_e(before - top);
    if (threadIdx.x == 0) {
        *known.sum = row.first == 0 ? sum : *known.sum * shrunk + sum;
    }
    if (states != 0 && row.first != 0 && rises) {
        for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
            states[c] *= shrunk;
        }
    }
}

// A block a row of a piece.
extern "C" __launch_bounds__(512, 2) __global__ void head_loss_piece(float* logits, u32 weights, const float* bias, const u32* targets, double* sums, float* owns, float* highs, u32* bests, float* states, u32* fault,
                                           u32 n, u32 first, u32 vocabulary, u32 d, float cap) {
    __shared__ float slots[32];
    u32 at = blockIdx.x, target = targets[at];
    if (first == 0 && target >= vocabulary && threadIdx.x == 0) {
        raise_index(fault, target, vocabulary);
    }
    Row row = {logits + (u64)at * n, bias, n, first, weights, cap};
    Known known = {sums + at, owns + at, highs + at, bests + at};
    float* own = states != 0 ? states + (u64)at * d : 0;
    // A target of another piece is no column of this one.
    target = target < first ? n : target - first;
    if (in_fours(n, (u64)logits)) {
        add_piece<true>(row, known, own, d, target, slots);
    } else {
        add_piece<false>(row, known, own, d, target, slots);
    }
}

// A block a row: the words of the target's row of the head, if a piece of it, from token `first` on, has it.
extern "C" __global__ void head_loss_targets(const u32* head, u32* rows, const u32* targets, u32 words, u32 first, u32 n) {
    u32 target = targets[blockIdx.x];
    if (target < first || target - first >= n) {
        return;
    }
    const u32* from = head + (u64)(target - first) * words;
    u32* to = rows + (u64)blockIdx.x * words;
    for (u32 c = threadIdx.x; c < words; c += blockDim.x) {
        to[c] = from[c];
    }
}

// A thread a row: its results, and its loss in the place of its sum; the factors of the gradient's parts, if they are wanted.
extern "C" __global__ void head_loss_rows(double* sums, const float* owns, const float* highs, const u32* bests, float* lse, float* rows, float* factors, float cap, u64 n) {
    EACH(i, n) {
        double own = (double)highs[i] + log(sums[i]), loss = own - (double)owns[i];
        lse[i] = (float)own;
        rows[2 * i] = (float)loss;
        rows[2 * i + 1] = own == own ? (float)bests[i] : (float)own;
        if (factors != 0) {
            float t = cap > 0.0f ? owns[i] / cap : 0.0f;
            factors[2 * i] = (float)(1.0 / sums[i]);
            factors[2 * i + 1] = (float)expm1(-loss) * (1.0f - t * t);
        }
        sums[i] = loss;
    }
}

// A block a row: its gradient out of the weighted sum and the target's row of the head, in f32 (`kind` 0), in f32 to be rounded
// to bf16 (1) or in bf16 (2). `head` has the rows of all tokens, or where `targets` is 0 one for each row.
extern "C" __global__ void head_loss_states(float* states, const float* factors, const void* head, u32 kind, const u32* targets, const float* scale, u32 vocabulary, u32 d, float alpha) {
    u32 row = blockIdx.x, token = targets != 0 ? targets[row] : row;
    if (targets != 0 && token >= vocabulary) {
        return;
    }
    float factor = scale != 0 ? scale[0] : 1.0f, weighted = factors[2 * row] * factor, own = factors[2 * row + 1] * factor * alpha;
    u64 from = (u64)token * d, to = (u64)row * d;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        float x = kind == 2 ? bfloat_to_float(((const u16*)head)[from + c]) : ((const float*)head)[from + c];
        x = kind == 1 ? bfloat_to_float(float_to_bfloat(x)) : x;
        states[to + c] = weighted * states[to + c] + own * x;
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
