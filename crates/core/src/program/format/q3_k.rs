//! `q3_k`: blocks of 256 numbers of 3 bits in sixteen parts, as llama.cpp lays them out: 3.44 bits a number.
//!
//! A block is 32 bytes with the third bits, 64 bytes with the other two, a scale in 6 bits for each part of 16 numbers (12
//! bytes), and a scale in f16. Of 128 numbers each, number `i` is in byte `i % 32`, `i / 32` pairs of bits up; bit `k` of
//! the third ones' byte `i` is that of number `32 k + i` of the block. A number is its three bits less 4, times its part's
//! scale less 32 and the block's.

use super::Blocks;
use super::blocks::{decoders, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q3K;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q3_k",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q3_k_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 256 * 110;
    u32 at = (u32)(i % 256);
    u32 k = at / 16;
    const unsigned char* s = block + 96;
    u32 part = (k < 8 ? s[k] & 15 : s[k - 8] >> 4) | (s[8 + k % 4] >> (k / 4 * 2) & 3) << 4;
    u32 q = block[32 + at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
    q |= (block[at % 32] >> (at / 32) & 1) << 2;
    return half_to_float((u16)(block[108] | block[109] << 8)) * (float)((int)part - 32) * (float)((int)q - 4);
}
"#,
        decoders!("q3_k")
    ),
};

impl Blocks for Q3K {
    const NAME: &'static str = "q3_k";
    const NUMBERS: usize = 256;
    const BYTES: usize = 110;
    const HALVES: &'static [usize] = &[108];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q3_k", "decode_q3_k_bf16"]));

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let scale = half_at(block, 108);
        let (thirds, rest) = block.split_at(32);
        let (codes, parts) = rest.split_at(64);
        for (half, out) in out.chunks_exact_mut(128).enumerate() {
            let codes = &codes[32 * half..][..32];
            for (q, out) in out.chunks_exact_mut(32).enumerate() {
                let own = [0, 1].map(|k| scale * part(parts, 8 * half + 2 * q + k));
                let bytes = codes.iter().zip(thirds);
                for (i, (out, (&x, &third))) in out.iter_mut().zip(bytes).enumerate() {
                    let x = x >> (2 * q) & 3 | (third >> (4 * half + q) & 1) << 2;
                    *out = own[i / 16] * f32::from(x.cast_signed() - 4);
                }
            }
        }
    }
}

/// Scale of part `k`, of 6 bits less 32.
#[inline(always)]
fn part(parts: &[u8], k: usize) -> f32 {
    let low = if k < 8 {
        parts[k] & 15
    } else {
        parts[k - 8] >> 4
    };
    let high = parts[8 + k % 4] >> (k / 4 * 2) & 3;
    f32::from((low | high << 4).cast_signed() - 32)
}
