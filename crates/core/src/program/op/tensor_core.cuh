// Instructions of tensor cores: a warp multiplies 16 by 16 by 16 by 8 of bf16 numbers, or 16 by 8 by 8 by 8 in TF32, with
// sums in f32. A lane has, of a left fragment, the rows lane/4 and lane/4 + 8 and, in bf16, the columns 2 (lane % 4), the
// next, and these plus 8, in TF32 the columns lane % 4 and 4 more; of a result, the same rows and the columns 2 (lane % 4)
// and the next.
//
// A test that compiles for the host has its own instructions.
#ifndef EMULATED
// d += a b.
__device__ inline void multiply_fragments(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same of f32 numbers, of which the unit reads the first ten bits behind the point.
__device__ inline void multiply_in_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A number rounded to TF32, ties away from zero.
__device__ inline u32 to_tf32(float x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// Four matrices of 8 rows of 16 bytes; lanes 8 i .. 8 i + 7 say where the rows of matrix i begin. A lane gets of each the
// four bytes from 4 (lane % 4) on of row lane/4.
__device__ inline void load_fragments(u32 (&x)[4], const void* row) {
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}

// The same of the transposes, of numbers of 16 bits.
__device__ inline void load_turned(u32 (&x)[4], const u16* row) {
    u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at) : "memory");
}

// Two numbers rounded to bf16, the first in the lower half.
__device__ inline u32 two_bfloats(float low, float high) {
    u32 x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

__device__ inline float wide_half(u16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

// Begins to copy 16 bytes, or 4, to shared memory, zeros where nothing is there. `wait_for_copies` waits for those of its
// own thread.
__device__ inline void copy_sixteen(void* to, const void* from, bool there) {
    u32 at = (u32)__cvta_generic_to_shared(to), bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(at), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void copy_four(void* to, const void* from, bool there) {
    u32 at = (u32)__cvta_generic_to_shared(to), bytes = there ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" : : "r"(at), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_all;" : : : "memory");
}

// 2^x to about two of f32's last places, and 0 where it is below the normal numbers.
__device__ inline float two_to(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif
