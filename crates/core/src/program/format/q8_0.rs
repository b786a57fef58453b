//! `q8_0`: blocks of 32 numbers of 8 bits with one scale, as llama.cpp lays them out: 8.5 bits a number.
//!
//! A block is its scale in f16 and 32 signed bytes. A number is its byte times the scale; the scale is a 127th of the
//! largest magnitude, so a number is off by at most half a step of that, and by the rounding of the scale.

use half::f16;

use super::Blocks;
use super::blocks::{Encode, decoders, farthest};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q8_0;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q8_0",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q8_0_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 32 * 34;
    u16 scale = (u16)(block[0] | block[1] << 8);
    return (float)(signed char)block[2 + i % 32] * half_to_float(scale);
}
"#,
        decoders!("q8_0")
    ),
};

/// The largest byte.
const STEPS: f32 = 127.0;

impl Blocks for Q8_0 {
    const NAME: &'static str = "q8_0";
    const NUMBERS: usize = 32;
    const BYTES: usize = 34;
    const HALVES: &'static [usize] = &[0];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q8_0", "decode_q8_0_bf16"]));
    const ENCODE: Option<Encode> = Some(encode);

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (&[low, high, ref bytes @ ..], true) = (block, block.len() == Self::BYTES) else {
            return;
        };
        let scale = f16::from_le_bytes([low, high]).to_f32_const();
        for (out, &x) in out.iter_mut().zip(bytes) {
            *out = f32::from(x.cast_signed()) * scale;
        }
    }
}

/// As llama.cpp's `quantize_row_q8_0_ref`: halves are rounded away from zero, by the scale before it is rounded.
fn encode(numbers: &[f32], block: &mut [u8]) -> Result<(), f32> {
    let most = farthest(numbers)?;
    let scale = most.abs() / STEPS;
    let stored = f16::from_f32(scale);
    if !stored.is_finite() {
        return Err(most);
    }
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    let (front, bytes) = block.split_at_mut(2);
    front.copy_from_slice(&stored.to_le_bytes());
    for (to, x) in bytes.iter_mut().zip(numbers) {
        *to = ((x * inverse).round() as i8).cast_unsigned();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_the_scales_range_are_refused() {
        let mut block = [0; Q8_0::BYTES];
        let mut numbers = [1.0; Q8_0::NUMBERS];
        numbers[7] = -8.4e6;
        assert_eq!(encode(&numbers, &mut block), Err(-8.4e6));
        numbers[7] = -8.3e6;
        assert_eq!(encode(&numbers, &mut block), Ok(()));
    }
}
