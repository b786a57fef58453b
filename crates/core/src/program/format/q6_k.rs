//! `q6_k`: blocks of 256 numbers of 6 bits in sixteen parts, as llama.cpp lays them out: 6.56 bits a number.
//!
//! A block is 128 bytes with the low four bits, 64 bytes with the high two, a signed byte for each part of 16 numbers, and
//! a scale in f16. Of 128 numbers each, number `i` is in the low half of byte `i` if `i < 64`, else in the high half of
//! byte `i - 64`; its other bits are in byte `i % 32`, `i / 32` pairs up. A number is its six bits less 32, times its
//! part's byte and the scale.

use super::Blocks;
use super::blocks::{decoders, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q6K;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q6_k",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q6_k_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 256 * 210;
    u32 at = (u32)(i % 256);
    u32 half = at / 128, q = at % 128 / 32, l = at % 32;
    u32 low = block[half * 64 + q % 2 * 32 + l] >> (q / 2 * 4) & 15;
    low |= (block[128 + half * 32 + l] >> (2 * q) & 3) << 4;
    float scale = half_to_float((u16)(block[208] | block[209] << 8)) * (float)(signed char)block[192 + at / 16];
    return scale * (float)((int)low - 32);
}
"#,
        decoders!("q6_k")
    ),
};

impl Blocks for Q6K {
    const NAME: &'static str = "q6_k";
    const NUMBERS: usize = 256;
    const BYTES: usize = 210;
    const HALVES: &'static [usize] = &[208];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q6_k", "decode_q6_k_bf16"]));

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let scale = half_at(block, 208);
        let (low, rest) = block.split_at(128);
        let (high, parts) = rest.split_at(64);
        let halves = out.chunks_exact_mut(128).zip(low.chunks_exact(64));
        let halves = halves.zip(high.chunks_exact(32).zip(parts.chunks_exact(8)));
        for ((out, low), (high, parts)) in halves {
            for (q, out) in out.chunks_exact_mut(32).enumerate() {
                let (low, shift) = (&low[q % 2 * 32..][..32], q / 2 * 4);
                let own = [2 * q, 2 * q + 1].map(|k| scale * f32::from(parts[k].cast_signed()));
                let bytes = low.iter().zip(high);
                for (i, (out, (&low, &high))) in out.iter_mut().zip(bytes).enumerate() {
                    let x = low >> shift & 15 | (high >> (2 * q) & 3) << 4;
                    *out = own[i / 16] * f32::from(x.cast_signed() - 32);
                }
            }
        }
    }
}
