//! `nf4`: blocks of 64 numbers of 4 bits whose levels are quantiles of a normal distribution, their scales quantised once
//! more: 4.13 bits a number (Dettmers et al. 2023, arXiv 2305.14314).
//!
//! A block is the code of its scale and 32 bytes: number `2 i` in the high half of byte `i`, number `2 i + 1` in its low
//! half. A number is its level times the scale, which is the block's largest magnitude. Scales are stored together: less
//! their mean over the whole tensor, in codes of 8 bits, by the largest magnitude of 256 of them. That number and the mean
//! are in front of these 256 blocks.

use super::Blocks;
use super::blocks::{Encode, Group, decoders};
use crate::program::op::launch::KernelSource;

/// The format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nf4;

/// A table for the processor, and the same for a GPU.
macro_rules! table {
    ($name:ident, $text:ident: $($x:literal)*) => {
        const $name: [f32; [$(stringify!($x)),*].len()] = [$($x),*];
        macro_rules! $text {
            () => { concat!($(stringify!($x), "f,"),*) };
        }
    };
}

// Levels of the numbers.
table!(LEVELS, levels:
    -1.0 -0.6961928 -0.52507305 -0.3949175 -0.28444138 -0.18477343 -0.091050036 0.0 0.0795803
    0.1609302 0.2461123 0.33791524 0.44070983 0.562617 0.72295684 1.0
);

// Levels of the scales above 0; those below are their opposites, but for 1. They are the means of 2^i bins of
// `linspace(0.1, 1)` times 10^(i - 6), for i from 0 to 6, and 1.
table!(SCALES, scales:
    5.5000004e-07 3.2500002e-06 7.75e-06 2.1249998e-05 4.375e-05 6.625e-05 8.875e-05 0.00015625001
    0.00026875004 0.00038125002 0.00049375003 0.0006062501 0.00071875006 0.00083125 0.0009437501
    0.0012812499 0.00184375 0.00240625 0.00296875 0.0035312497 0.00409375 0.0046562497 0.0052187503
    0.00578125 0.00634375 0.00690625 0.00746875 0.00803125 0.00859375 0.009156249 0.00971875
    0.01140625 0.01421875 0.01703125 0.019843752 0.02265625 0.02546875 0.028281251 0.03109375
    0.03390625 0.036718752 0.03953125 0.042343747 0.04515625 0.04796875 0.05078125 0.05359375
    0.05640625 0.059218753 0.06203125 0.06484375 0.067656256 0.070468746 0.07328125 0.07609375
    0.07890625 0.08171876 0.08453125 0.08734375 0.09015625 0.092968754 0.09578126 0.09859375
    0.107031256 0.12109375 0.13515624 0.14921875 0.16328125 0.17734376 0.19140625 0.20546874
    0.21953125 0.23359375 0.24765624 0.26171875 0.27578127 0.28984374 0.30390626 0.31796873 0.33203125
    0.34609374 0.36015624 0.37421876 0.38828123 0.40234375 0.41640624 0.43046874 0.44453126 0.45859373
    0.47265625 0.4867187 0.50078124 0.5148437 0.5289062 0.54296875 0.5570313 0.5710938 0.58515626
    0.5992187 0.61328125 0.6273438 0.6414063 0.65546876 0.6695312 0.68359375 0.6976563 0.7117188
    0.72578126 0.7398437 0.75390625 0.7679688 0.78203124 0.79609376 0.8101562 0.82421875 0.8382813
    0.85234374 0.86640626 0.8804687 0.89453125 0.9085938 0.92265624 0.93671876 0.9507812 0.96484375
    0.9789063 0.99296874 1.0
);

/// The code of a scale of 0.
const ZERO: u8 = 127;

/// What a code of a scale stands for.
#[inline(always)]
fn level(code: u8) -> f32 {
    match code {
        ZERO => 0.0,
        code if code > ZERO => SCALES[usize::from(code - ZERO - 1)],
        code => -SCALES[usize::from(ZERO - 1 - code)],
    }
}

/// The scale of a block, of its code and the bytes that its group shares.
#[inline(always)]
pub(in crate::program) fn scale(head: &[u8], code: u8) -> f32 {
    let &[m0, m1, m2, m3, a0, a1, a2, a3] = head else {
        return 0.0;
    };
    let mean = f32::from_le_bytes([m0, m1, m2, m3]);
    level(code) * f32::from_le_bytes([a0, a1, a2, a3]) + mean
}

/// What the codes of a block stand for, in parts of its scale.
#[cfg(target_arch = "x86_64")]
pub(in crate::program) const fn levels() -> [f32; 16] {
    LEVELS
}

/// Blocks whose scales share a largest magnitude, and the bytes of that and of the mean.
const GROUP: Group = Group {
    blocks: 256,
    head: 8,
};

/// Bytes of a block.
const BYTES: usize = 33;

/// The decoder on a GPU.
const SOURCE: KernelSource = KernelSource {
    name: "nf4",
    text: concat!(
        include_str!("../op/common.cuh"),
        r#"
__device__ const float nf4_levels[16] = {"#,
        levels!(),
        r#"};
__device__ const float nf4_scales[128] = {"#,
        scales!(),
        r#"};

__device__ inline float nf4_scale(u32 code) {
    return code == 127 ? 0.0f : code > 127 ? nf4_scales[code - 128] : -nf4_scales[126 - code];
}

__device__ inline float nf4_float(const unsigned char* x) {
    u32 bits = (u32)x[0] | (u32)x[1] << 8 | (u32)x[2] << 16 | (u32)x[3] << 24;
    return __uint_as_float(bits);
}

__device__ inline float nf4_number(const unsigned char* x, u64 i) {
    u64 own = i / 64;
    const unsigned char* head = x + own / 256 * (256 * 33 + 8);
    const unsigned char* block = head + 8 + own % 256 * 33;
    float scale = nf4_scale(block[0]) * nf4_float(head + 4) + nf4_float(head);
    u32 codes = block[1 + i % 64 / 2];
    return nf4_levels[i % 2 == 0 ? codes >> 4 : codes & 15] * scale;
}
"#,
        decoders!("nf4")
    ),
};

impl Blocks for Nf4 {
    const NAME: &'static str = "nf4";
    const NUMBERS: usize = 64;
    const BYTES: usize = BYTES;
    const GROUP: Group = GROUP;
    const HALVES: &'static [usize] = &[];
    const KERNELS: Option<(KernelSource, [&'static str; 2])> =
        Some((SOURCE, ["decode_nf4", "decode_nf4_bf16"]));
    const ENCODE: Option<Encode> = Some(encode);

    #[inline(always)]
    fn decode(head: &[u8], block: &[u8], out: &mut [f32]) {
        let &[code, ref bytes @ ..] = block else {
            return;
        };
        let scale = scale(head, code);
        for (out, &x) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *out = [x >> 4, x & 15].map(|code| LEVELS[usize::from(code)] * scale);
        }
    }

    fn measure(numbers: &[f32]) -> f32 {
        numbers.iter().fold(0.0, |m, x| m.max(x.abs()))
    }

    fn close(measured: &[f32], data: &mut [u8]) {
        let sum: f64 = measured.iter().map(|&x| f64::from(x)).sum();
        let mean = (sum / measured.len().max(1) as f64) as f32;
        let groups = data.chunks_mut(GROUP.blocks * BYTES + GROUP.head);
        for (group, measured) in groups.zip(measured.chunks(GROUP.blocks)) {
            let most = measured
                .iter()
                .fold(0.0_f32, |m, x| m.max((x - mean).abs()));
            let (head, blocks) = group.split_at_mut(GROUP.head);
            let (front, back) = head.split_at_mut(4);
            front.copy_from_slice(&mean.to_le_bytes());
            back.copy_from_slice(&most.to_le_bytes());
            for (block, x) in blocks.chunks_exact_mut(BYTES).zip(measured) {
                block[0] = nearest(if most > 0.0 { (x - mean) / most } else { 0.0 });
            }
        }
    }
}

/// The code of the nearest level of a scale.
fn nearest(x: f32) -> u8 {
    let above = (0..u8::MAX).filter(|&code| x > 0.5 * (level(code) + level(code + 1)));
    above.count() as u8
}

/// As bitsandbytes' `quantize_4bit`: the nearest level, of two as near the lower.
fn encode(numbers: &[f32], block: &mut [u8]) -> Result<(), f32> {
    if let Some(&bad) = numbers.iter().find(|x| !x.is_finite()) {
        return Err(bad);
    }
    let most = Nf4::measure(numbers);
    let code = |x: f32| -> u8 {
        let x = if most > 0.0 { x / most } else { 0.0 };
        let borders = LEVELS.windows(2).map(|pair| 0.5 * (pair[0] + pair[1]));
        borders.map(|border| u8::from(x > border)).sum()
    };
    for (to, pair) in block[1..].iter_mut().zip(numbers.as_chunks::<2>().0) {
        let [high, low] = pair.map(code);
        *to = high << 4 | low;
    }
    Ok(())
}
