// A thread a number; the list is short.
extern "C" __global__ void find(const u32* ids, const u32* list, u32* out, u64 n, u32 count) {
    EACH(i, n) {
        u32 own = ids[i], place = 0;
        for (u32 k = 0; k < count; k++) {
            if (list[k] == own) {
                place = k + 1;
                break;
            }
        }
        out[i] = place;
    }
}
