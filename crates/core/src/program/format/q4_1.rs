//! `q4_1`: blocks of 32 numbers of 4 bits with a scale and a minimum, as llama.cpp lays them out: 5 bits a number.
//!
//! A block is scale and minimum in f16 and 16 bytes: number `i` in the low half of byte `i`, number `i + 16` in its high
//! half. A number is its half byte times the scale, plus the minimum.

use super::Blocks;
use super::blocks::{decoders, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4_1;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q4_1",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q4_1_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 32 * 20;
    u32 at = (u32)(i % 32);
    u32 q = at < 16 ? block[4 + at] & 15 : block[4 + at - 16] >> 4;
    return (float)q * half_to_float((u16)(block[0] | block[1] << 8)) + half_to_float((u16)(block[2] | block[3] << 8));
}
"#,
        decoders!("q4_1")
    ),
};

impl Blocks for Q4_1 {
    const NAME: &'static str = "q4_1";
    const NUMBERS: usize = 32;
    const BYTES: usize = 20;
    const HALVES: &'static [usize] = &[0, 2];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q4_1", "decode_q4_1_bf16"]));

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (scale, least) = (half_at(block, 0), half_at(block, 2));
        let (first, second) = out.split_at_mut(16);
        for ((low, high), &x) in first.iter_mut().zip(second).zip(&block[4..]) {
            *low = f32::from(x & 15) * scale + least;
            *high = f32::from(x >> 4) * scale + least;
        }
    }
}
