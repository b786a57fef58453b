//! `q5_0`: blocks of 32 numbers of 5 bits with one scale, as llama.cpp lays them out: 5.5 bits a number.
//!
//! A block is its scale in f16, the fifth bits of its numbers in 4 bytes, and 16 bytes with the other four: number `i` in
//! the low half of byte `i`, number `i + 16` in its high half. A number is its five bits less 16, times the scale.

use super::Blocks;
use super::blocks::{decoders, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q5_0;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q5_0",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q5_0_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 32 * 22;
    u32 at = (u32)(i % 32);
    u32 bits = (u32)block[2] | (u32)block[3] << 8 | (u32)block[4] << 16 | (u32)block[5] << 24;
    u32 q = at < 16 ? block[6 + at] & 15 : block[6 + at - 16] >> 4;
    return (float)((int)(q | (bits >> at & 1) << 4) - 16) * half_to_float((u16)(block[0] | block[1] << 8));
}
"#,
        decoders!("q5_0")
    ),
};

impl Blocks for Q5_0 {
    const NAME: &'static str = "q5_0";
    const NUMBERS: usize = 32;
    const BYTES: usize = 22;
    const HALVES: &'static [usize] = &[0];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q5_0", "decode_q5_0_bf16"]));

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let scale = half_at(block, 0);
        let (bits, bytes) = block[2..].split_at(4);
        let bits = bits.iter().rfold(0_u32, |all, &x| all << 8 | u32::from(x));
        let (first, second) = out.split_at_mut(16);
        for (i, ((low, high), &x)) in first.iter_mut().zip(second).zip(bytes).enumerate() {
            let (fifth, other) = (bits >> i << 4 & 16, bits >> (i + 12) & 16);
            *low = f32::from((u32::from(x & 15) | fifth) as i8 - 16) * scale;
            *high = f32::from((u32::from(x >> 4) | other) as i8 - 16) * scale;
        }
    }
}
