// One of the eight blocks of a move: its part of the rows, which are those of `from`, where they belong.
template <typename T>
__device__ inline void move_part(float* cache, const T* from, const u32* moves, u32* fault, u32 rows, u32 there, u32 width, u32 fold) {
    u64 s = 3 * (u64)blockIdx.x;
    u64 first = (u64)moves[s] * fold, to = (u64)moves[s + 1] * fold, count = (u64)moves[s + 2] * fold;
    bool inside = first + count <= there;
    u64 end = inside ? to + count : first + count;
    u32 most = inside ? rows : there;
    if (end > most) {
        if (threadIdx.x == 0) {
            raise_index(fault, (u32)(end < 0xffffffffu ? end : 0xffffffffu), most);
        }
        return;
    }
    for (u64 i = blockIdx.y * 256 + threadIdx.x; i < count * width; i += 256 * 8) {
        cache[to * width + i] = from[first * width + i];
    }
}

extern "C" __global__ void NAMED(put_rows)(float* cache, const act* from, const u32* moves, u32* fault, u32 rows, u32 there, u32 width, u32 fold) {
    move_part<act>(cache, from, moves, fault, rows, there, width, fold);
}

extern "C" __global__ void NAMED(copy_rows)(float* cache, const float* from, const u32* moves, u32* fault, u32 rows, u32 there, u32 width, u32 fold) {
    move_part<float>(cache, from, moves, fault, rows, there, width, fold);
}
