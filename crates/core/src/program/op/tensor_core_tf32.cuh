// Products of TF32 numbers on tensor cores: a warp multiplies 16 by 8 by 8 by 8 with sums in f32. A lane has, of a left
// fragment, the rows lane/4 and lane/4 + 8 of column lane % 4, and of column lane % 4 + 4; of a right one, these two places
// of column lane/4; of a result, the columns 2 (lane % 4) and the next of its rows.
//
// A test that compiles for the host has its own instructions.
#ifndef EMULATED
// d += a b.
__device__ inline void multiply_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A number rounded to ten bits of mantissa, to the nearest.
__device__ inline u32 to_tf32(float x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}
#endif
