// A block a row: the loss's gradient by the logits of a piece, in their place, or in bf16 where `rounded` is one. `cap` and
// `bias` are 0 for none; `up` has a number, or two a row.
extern "C" __global__ void head_loss_slopes(float* logits, u16* rounded, const float* bias, const u32* targets, const float* lses, const float* scale, const float* up, u32 n, u32 first,
                                            float cap, u32 by_row) {
    u64 at = (u64)blockIdx.x * n;
    float factor = by_row ? up[2 * (u64)blockIdx.x] : (float)((double)up[0] * (double)scale[0]), lse = lses[blockIdx.x];
    u32 target = targets[blockIdx.x];
    for (u32 c = threadIdx.x; c < n; c += blockDim.x) {
        float x = logits[at + c] + (bias != 0 ? bias[first + c] : 0.0f), slope = 1.0f;
        if (cap > 0.0f) {
            float t = tanh_fast(x / cap);
            x = cap * t;
            slope = 1.0f - t * t;
        }
        float own = factor * exp_fast(x - lse) * slope;
        own = first + c == target ? own - factor * slope : own;
        if (rounded != 0) {
            rounded[at + c] = float_to_bfloat(own);
        } else {
            logits[at + c] = own;
        }
    }
}

// A piece of the head's gradient where it belongs.
extern "C" __global__ void head_put(const float* part, float* out, u64 to, u64 n) {
    convert<float, float, Floats, Floats>(part, out + to, n, [](float x) { return x; });
}
