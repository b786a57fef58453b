//! `q5_k`: blocks of 256 numbers of 5 bits in eight parts, as llama.cpp lays them out: 5.5 bits a number.
//!
//! As `q4_k`, with 32 bytes between the parts' scales and the half bytes: bit `k` of byte `i` is the fifth one of number
//! `i` of part `k`.

use super::Blocks;
use super::blocks::{decoders, half_at};
use super::q4_k::part;
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q5K;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q5_k",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q5_k_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 256 * 176;
    u32 at = (u32)(i % 256);
    u32 k = at / 32;
    const unsigned char* s = block + 4;
    u32 scale = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | s[k - 4] >> 6 << 4;
    u32 least = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | s[k] >> 6 << 4;
    u32 q = block[48 + at / 64 * 32 + at % 32] >> (at / 32 % 2 * 4) & 15;
    q |= (block[16 + at % 32] >> k & 1) << 4;
    return half_to_float((u16)(block[0] | block[1] << 8)) * (float)scale * (float)q - half_to_float((u16)(block[2] | block[3] << 8)) * (float)least;
}
"#,
        decoders!("q5_k")
    ),
};

impl Blocks for Q5K {
    const NAME: &'static str = "q5_k";
    const NUMBERS: usize = 256;
    const BYTES: usize = 176;
    const HALVES: &'static [usize] = &[0, 2];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q5_k", "decode_q5_k_bf16"]));

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (scale, least) = (half_at(block, 0), half_at(block, 2));
        let (parts, rest) = block[4..].split_at(12);
        let (bits, bytes) = rest.split_at(32);
        let pairs = out.chunks_exact_mut(64).zip(bytes.chunks_exact(32));
        for (k, (out, bytes)) in pairs.enumerate() {
            let [(a, b), (c, d)] = [2 * k, 2 * k + 1].map(|k| {
                let (own, low) = part(parts, k);
                (scale * own, least * low)
            });
            let (first, second) = out.split_at_mut(32);
            let bytes = bytes.iter().zip(bits);
            for ((low, high), (&x, &bits)) in first.iter_mut().zip(second).zip(bytes) {
                *low = a * f32::from(x & 15 | (bits >> (2 * k) & 1) << 4) - b;
                *high = c * f32::from(x >> 4 | (bits >> (2 * k + 1) & 1) << 4) - d;
            }
        }
    }
}
