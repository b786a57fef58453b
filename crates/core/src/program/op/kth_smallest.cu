// Numbers as words in whose order they are; what is no number is the largest.
extern "C" __global__ void ordered_keys(const float* x, u32* keys, u64 n, u64 first) {
    EACH(i, n) {
        float own = x[i];
        u32 bits = __float_as_uint(own);
        keys[first + i] = own != own ? 0xffffffffu : (bits >> 31) ? ~bits : (bits | 0x80000000u);
    }
}

// One block: the word is found bit by bit, from the highest, by how many words have the bits found so far and a 0 next.
extern "C" __global__ void kth_smallest(const u32* keys, const float* k, float* out, u32 n) {
    __shared__ u32 slots[32];
    float wanted = k[0];
    if (!(wanted >= 1.0f) || n == 0) {
        if (threadIdx.x == 0) {
            out[0] = __uint_as_float(0xff800000u);
        }
        return;
    }
    u32 left = wanted < (float)n ? (u32)wanted : n, found = 0;
    for (int bit = 31; bit >= 0; bit--) {
        u32 low = 0;
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
            low += ((keys[i] ^ found) >> bit) == 0u ? 1u : 0u;
        }
        low = block_sum(low, slots);
        if (left > low) {
            left -= low;
            found |= 1u << bit;
        }
    }
    if (threadIdx.x == 0) {
        u32 bits = found == 0xffffffffu ? 0x7fc00000u : (found >> 31) ? (found & 0x7fffffffu) : ~found;
        out[0] = __uint_as_float(bits);
    }
}
