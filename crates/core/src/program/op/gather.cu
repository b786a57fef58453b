// A block a row; a row outside the table is noted and comes out as zeros.
template <typename T, typename F> __device__ inline void gather_rows(const T* table, const u32* ids, act* out, u32* fault, u32 rows, u32 d, F widen) {
    u32 id = ids[blockIdx.x];
    bool good = id < rows;
    if (!good && threadIdx.x == 0) {
        raise_index(fault, id, rows);
    }
    u64 from = (u64)id * d, to = (u64)blockIdx.x * d;
    for (u32 c = threadIdx.x; c < d; c += blockDim.x) {
        out[to + c] = good ? widen(table[from + c]) : 0.0f;
    }
}

struct Same {
    __device__ float operator()(float x) const {
        return x;
    }
};

struct Half {
    __device__ float operator()(u16 x) const {
        return half_to_float(x);
    }
};

struct Bfloat {
    __device__ float operator()(u16 x) const {
        return bfloat_to_float(x);
    }
};

extern "C" __global__ void NAMED(gather_f32)(const float* table, const u32* ids, act* out, u32* fault, u32 rows, u32 d) {
    gather_rows(table, ids, out, fault, rows, d, Same());
}

extern "C" __global__ void NAMED(gather_f16)(const u16* table, const u32* ids, act* out, u32* fault, u32 rows, u32 d) {
    gather_rows(table, ids, out, fault, rows, d, Half());
}

extern "C" __global__ void NAMED(gather_bf16)(const u16* table, const u32* ids, act* out, u32* fault, u32 rows, u32 d) {
    gather_rows(table, ids, out, fault, rows, d, Bfloat());
}
