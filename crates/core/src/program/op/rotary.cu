// A block a token, whose sines and cosines are made once, by the frequencies of long texts where its text is one. `out` may
// be `x`: a thread writes the pair it has read.
extern "C" __global__ void NAMED(rotary)(const act* x, const u32* positions, const float* frequencies, const u32* lengths,
                                         u32 border, const float* beyond, act* out, u32 d, u32 width, u32 pairs, u32 interleaved, u32 inverse,
                                         float scale) {
    SHARED(cosines);
    float* sines = cosines + pairs;
    float position = (float)positions[blockIdx.x];
    const float* own = lengths[blockIdx.x] > border ? beyond : frequencies;
    for (u32 i = threadIdx.x; i < pairs; i += blockDim.x) {
        double angle = (double)(position * own[i]);
        cosines[i] = (float)cos(angle) * scale;
        sines[i] = (float)sin(angle) * (inverse ? -scale : scale);
    }
    __syncthreads();
    u64 row = (u64)blockIdx.x * d;
    u32 heads = d / width, rest = width - 2 * pairs;
    bool whole = !interleaved && pairs % 4 == 0 && in_fours(width, (u64)x | (u64)out);
    for (u32 p = threadIdx.x; whole && p < heads * pairs / 4; p += blockDim.x) {
        u32 q = p % (pairs / 4);
        u64 head = row + p / (pairs / 4) * width;
        Floats a = four_at(x + head, q), b = four_at(x + head + pairs, q), left, right;
        for (u32 k = 0; k < 4; k++) {
            float c = cosines[4 * q + k], s = sines[4 * q + k];
            left.x[k] = a.x[k] * c - b.x[k] * s;
            right.x[k] = b.x[k] * c + a.x[k] * s;
        }
        put_four(out + head, q, left);
        put_four(out + head + pairs, q, right);
    }
    for (u32 p = threadIdx.x; !whole && p < heads * pairs; p += blockDim.x) {
        u32 i = p % pairs;
        u64 head = row + p / pairs * width;
        u64 left = head + (interleaved ? 2 * i : i), right = interleaved ? left + 1 : left + pairs;
        float a = x[left], b = x[right];
        out[left] = a * cosines[i] - b * sines[i];
        out[right] = b * cosines[i] + a * sines[i];
    }
    for (u32 p = threadIdx.x; p < heads * rest; p += blockDim.x) {
        u64 at = row + p / rest * width + 2 * pairs + p % rest;
        out[at] = x[at];
    }
}
