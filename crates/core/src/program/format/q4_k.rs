//! `q4_k`: blocks of 256 numbers of 4 bits in eight parts, as llama.cpp lays them out: 4.5 bits a number.
//!
//! A block is a scale and a minimum in f16, a scale and a minimum in 6 bits for each part of 32 numbers (12 bytes), and 128
//! bytes: of 64 numbers each, the first 32 in the low halves of 32 bytes and the others in their high halves. A number is
//! its half byte times its part's scale, less its part's minimum.

use half::f16;

use super::Blocks;
use super::blocks::{Encode, decoders, farthest, half_at};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4K;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "q4_k",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ inline float q4_k_number(const unsigned char* x, u64 i) {
    const unsigned char* block = x + i / 256 * 144;
    u32 at = (u32)(i % 256);
    u32 k = at / 32;
    const unsigned char* s = block + 4;
    u32 scale = k < 4 ? s[k] & 63 : (s[k + 4] & 15) | s[k - 4] >> 6 << 4;
    u32 least = k < 4 ? s[k + 4] & 63 : s[k + 4] >> 4 | s[k] >> 6 << 4;
    u32 q = block[16 + at / 64 * 32 + at % 32] >> (at / 32 % 2 * 4) & 15;
    return half_to_float((u16)(block[0] | block[1] << 8)) * (float)scale * (float)q - half_to_float((u16)(block[2] | block[3] << 8)) * (float)least;
}
"#,
        decoders!("q4_k")
    ),
};

impl Blocks for Q4K {
    const NAME: &'static str = "q4_k";
    const NUMBERS: usize = 256;
    const BYTES: usize = 144;
    const HALVES: &'static [usize] = &[0, 2];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_q4_k", "decode_q4_k_bf16"]));
    const ENCODE: Option<Encode> = Some(encode);

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (scale, least) = (half_at(block, 0), half_at(block, 2));
        let (parts, bytes) = block[4..].split_at(12);
        let pairs = out.chunks_exact_mut(64).zip(bytes.chunks_exact(32));
        for (k, (out, bytes)) in pairs.enumerate() {
            let [(a, b), (c, d)] = [2 * k, 2 * k + 1].map(|k| {
                let (own, low) = part(parts, k);
                (scale * own, least * low)
            });
            let (first, second) = out.split_at_mut(32);
            for ((low, high), &x) in first.iter_mut().zip(second).zip(bytes) {
                *low = a * f32::from(x & 15) - b;
                *high = c * f32::from(x >> 4) - d;
            }
        }
    }
}

/// Scale and minimum of part `k`, in 6 bits each.
#[inline(always)]
pub(in crate::program) fn part(parts: &[u8], k: usize) -> (f32, f32) {
    let (scale, least) = if k < 4 {
        (parts[k] & 63, parts[k + 4] & 63)
    } else {
        let high = |x: u8| x >> 6 << 4;
        (
            parts[k + 4] & 15 | high(parts[k - 4]),
            parts[k + 4] >> 4 | high(parts[k]),
        )
    };
    (f32::from(scale), f32::from(least))
}

/// Numbers of a part.
const PART: usize = 32;

/// As llama.cpp's `quantize_row_q4_K_ref`.
fn encode(numbers: &[f32], block: &mut [u8]) -> Result<(), f32> {
    let far = farthest(numbers)?;
    let (mut scales, mut leasts) = ([0.0_f32; 8], [0.0_f32; 8]);
    for (k, x) in numbers.chunks_exact(PART).enumerate() {
        (scales[k], leasts[k]) = fit(x);
    }
    let most = |all: &[f32; 8]| all.iter().copied().fold(0.0, f32::max);
    let (scale, least) = (most(&scales), most(&leasts));
    let six = |x: f32, most: f32| {
        let inverse = if most > 0.0 { 63.0 / most } else { 0.0 };
        ((inverse * x).round_ties_even() as u8).min(63)
    };
    let (stored, lowest) = (f16::from_f32(scale / 63.0), f16::from_f32(least / 63.0));
    if !(stored.is_finite() && lowest.is_finite()) {
        return Err(far);
    }
    block[..2].copy_from_slice(&stored.to_le_bytes());
    block[2..4].copy_from_slice(&lowest.to_le_bytes());
    let (parts, bytes) = block[4..].split_at_mut(12);
    parts.fill(0);
    for k in 0..8 {
        let (own, low) = (six(scales[k], scale), six(leasts[k], least));
        if k < 4 {
            parts[k] |= own;
            parts[k + 4] |= low;
        } else {
            parts[k + 4] |= own & 15 | (low & 15) << 4;
            parts[k - 4] |= own >> 4 << 6;
            parts[k] |= low >> 4 << 6;
        }
    }
    let mut codes = [0_u8; 256];
    for (k, (codes, x)) in codes
        .chunks_exact_mut(PART)
        .zip(numbers.chunks_exact(PART))
        .enumerate()
    {
        let (own, low) = part(parts, k);
        let (step, low) = (stored.to_f32() * own, lowest.to_f32() * low);
        if step == 0.0 {
            continue;
        }
        for (code, x) in codes.iter_mut().zip(x) {
            *code = ((x + low) / step).round_ties_even().clamp(0.0, 15.0) as u8;
        }
    }
    for (bytes, codes) in bytes.chunks_exact_mut(32).zip(codes.chunks_exact(64)) {
        let (first, second) = codes.split_at(32);
        for (to, (low, high)) in bytes.iter_mut().zip(first.iter().zip(second)) {
            *to = low | high << 4;
        }
    }
    Ok(())
}

/// Scale and minimum of a part, so that the weighted squares of what is off are small: llama.cpp's `make_qkx2_quants`
/// with 15 steps and 20 tries, each from the best minimum so far. Numbers far from 0 weigh more.
fn fit(x: &[f32]) -> (f32, f32) {
    const STEPS: f32 = 15.0;
    let squares: f32 = x.iter().map(|x| x * x).sum();
    let usual = (squares / x.len() as f32).sqrt();
    let weight = |x: f32| usual + x.abs();
    let (mut low, mut high) = (x[0], x[0]);
    let (mut weights, mut sum) = (weight(x[0]), weight(x[0]) * x[0]);
    for &x in &x[1..] {
        low = low.min(x);
        high = high.max(x);
        weights += weight(x);
        sum += weight(x) * x;
    }
    low = low.min(0.0);
    if high <= low {
        return (0.0, -low);
    }
    let code =
        |x: f32, low: f32, inverse: f32| (inverse * (x - low)).round_ties_even().clamp(0.0, STEPS);
    let inverse = STEPS / (high - low);
    let mut best = (inverse.recip(), low);
    let off = |scale: f32, low: f32, inverse: f32, from: f32| -> f32 {
        let each = x.iter().map(|&x| {
            let off = scale * code(x, from, inverse) + low - x;
            weight(x) * off * off
        });
        each.sum()
    };
    let mut least = off(best.0, low, inverse, low);
    for i in 0..=20_u8 {
        let inverse = (-1.0 + 0.1 * f32::from(i) + STEPS) / (high - best.1);
        let (mut codes, mut squares, mut products) = (0.0_f32, 0.0_f32, 0.0_f32);
        for &x in x {
            let (code, weight) = (code(x, best.1, inverse), weight(x));
            codes += weight * code;
            squares += weight * code * code;
            products += weight * code * x;
        }
        let volume = weights * squares - codes * codes;
        if volume > 0.0 {
            let mut scale = (weights * products - sum * codes) / volume;
            let mut low = (squares * sum - codes * products) / volume;
            if low > 0.0 {
                low = 0.0;
                scale = products / squares;
            }
            let now = off(scale, low, inverse, best.1);
            if now < least {
                least = now;
                best = (scale, low);
            }
        }
    }
    (best.0, -best.1)
}
