//! `q2_k`: blocks of 256 numbers of 2 bits in sixteen parts, as llama.cpp lays them out: 2.63 bits a number.
//!
//! A block is a byte for each part of 16 numbers, with its scale in the low half and its minimum in the high one, 64 bytes
//! of codes, and a scale and a minimum in f16. Of 128 numbers each, number `i` is in byte `i % 32`, `i / 32` pairs of bits
//! up. A number is its two bits times its part's scale, less its part's minimum.

use super::Blocks;
use super::blocks::{decoders, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q2K;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q2_k",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q2_k_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 256 * 84;
    u32 at = (u32)(i % 256);
    u32 part = block[at / 16];
    u32 q = block[16 + at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
    return half_to_float((u16)(block[80] | block[81] << 8)) * (float)(part & 15) * (float)q - half_to_float((u16)(block[82] | block[83] << 8)) * (float)(part >> 4);
}
"#,
        decoders!("q2_k")
    ),
};

impl Blocks for Q2K {
    const NAME: &'static str = "q2_k";
    const NUMBERS: usize = 256;
    const BYTES: usize = 84;
    const HALVES: &'static [usize] = &[80, 82];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q2_k", "decode_q2_k_bf16"]));

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (scale, least) = (half_at(block, 80), half_at(block, 82));
        let (parts, codes) = block[..80].split_at(16);
        for (half, out) in out.chunks_exact_mut(128).enumerate() {
            let codes = &codes[32 * half..][..32];
            for (q, out) in out.chunks_exact_mut(32).enumerate() {
                let own = [0, 1].map(|k| {
                    let part = parts[8 * half + 2 * q + k];
                    (scale * f32::from(part & 15), least * f32::from(part >> 4))
                });
                for (i, (out, &x)) in out.iter_mut().zip(codes).enumerate() {
                    let (step, low) = own[i / 16];
                    *out = step * f32::from(x >> (2 * q) & 3) - low;
                }
            }
        }
    }
}
