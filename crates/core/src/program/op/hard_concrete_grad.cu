extern "C" __global__ void hard_concrete_grad(const float* a, const float* up, float* out, const u32* step, u32 k0, u32 k1, float low, float wide, float slope, float margin, u64 n) {
    EACH(i, n) {
        float noise = gate_noise(step, k0, k1, i, margin);
        float s = 1.0f / (1.0f + exp_fast(-(noise + a[i]) * slope)), z = s * wide + low;
        out[i] = z > 0.0f && z < 1.0f ? up[i] * (s * (1.0f - s) * wide * slope) : 0.0f;
    }
}
