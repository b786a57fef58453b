//! `q4_0`: blocks of 32 numbers of 4 bits with one scale, as llama.cpp lays them out: 4.5 bits a number.
//!
//! A block is its scale in f16 and 16 bytes: number `i` in the low half of byte `i`, number `i + 16` in its high half. A
//! number is its half byte less 8, times the scale; the number of the largest magnitude is `-8` times the scale.

use half::f16;

use super::Blocks;
use super::blocks::{Encode, decoders, farthest, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4_0;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q4_0",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q4_0_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 32 * 18;
    u32 at = (u32)(i % 32);
    u32 q = at < 16 ? block[2 + at] & 15 : block[2 + at - 16] >> 4;
    return (float)((int)q - 8) * half_to_float((u16)(block[0] | block[1] << 8));
}
"#,
        decoders!("q4_0")
    ),
};

impl Blocks for Q4_0 {
    const NAME: &'static str = "q4_0";
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    const HALVES: &'static [usize] = &[0];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q4_0", "decode_q4_0_bf16"]));
    const ENCODE: Option<Encode> = Some(encode);

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (scale, out) = (half_at(block, 0), out.split_at_mut(16));
        let bytes = block[2..].iter();
        for ((low, high), &x) in out.0.iter_mut().zip(out.1).zip(bytes) {
            *low = f32::from((x & 15).cast_signed() - 8) * scale;
            *high = f32::from((x >> 4).cast_signed() - 8) * scale;
        }
    }
}

/// As llama.cpp's `quantize_row_q4_0_ref`.
fn encode(numbers: &[f32], block: &mut [u8]) -> Result<(), f32> {
    let most = farthest(numbers)?;
    let scale = most / -8.0;
    let stored = f16::from_f32(scale);
    if !stored.is_finite() {
        return Err(most);
    }
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    let (front, bytes) = block.split_at_mut(2);
    front.copy_from_slice(&stored.to_le_bytes());
    let (low, high) = numbers.split_at(16);
    for (to, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
        *to = code(*low) | code(*high) << 4;
    }
    Ok(())
}
