//! How numbers come out of what they are stored as: four of each row at a time, in order.
//!
//! A number is decoded by the same operations as in its format's own file, so it has the same bits.

use super::rows::{Lanes, Rows};
use super::vectors::Vectors;
use crate::program::format::nf4;

/// A format, decoded `L` rows side by side. Its functions are to be called where the processor has the instructions.
pub(super) trait Stored<V: Vectors<L>, const L: usize> {
    /// Numbers of a row that are read at once: a part of a block, or one.
    const NUMBERS: usize;
    /// Bytes that they take: with a part of what the block shares.
    const BYTES: usize;
    /// What was read of them.
    type State: Copy;

    /// Reads the numbers from `from` on, of these rows.
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State;

    /// The numbers at four times `i` and behind it.
    unsafe fn four(state: &Self::State, i: usize) -> [V::Floats; 4];
}

/// Four expressions, of 0, 1, 2 and 3.
macro_rules! four {
    ($j:ident => $one:expr) => {
        [
            {
                let $j = 0;
                $one
            },
            {
                let $j = 1;
                $one
            },
            {
                let $j = 2;
                $one
            },
            {
                let $j = 3;
                $one
            },
        ]
    };
}

/// Places so far behind others.
#[inline(always)]
fn behind<const L: usize>(blocks: &[*const u8; L], bytes: usize) -> [*const u8; L] {
    let mut places = *blocks;
    for place in &mut places {
        *place = place.wrapping_add(bytes);
    }
    places
}

/// Numbers in f32, as blocks of eight.
pub(super) struct F32;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for F32 {
    const NUMBERS: usize = 8;
    const BYTES: usize = 32;
    type State = [V::Words; 8];

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        // SAFETY: the caller promises the instructions and the numbers; so it is in all functions below.
        unsafe { V::eight_words(&of.alone(lanes, from / 8)) }
    }

    #[inline(always)]
    unsafe fn four(words: &Self::State, i: usize) -> [V::Floats; 4] {
        // SAFETY: as above.
        unsafe { four!(j => V::bits(words[4 * i + j])) }
    }
}

/// Numbers in bf16, as blocks of sixteen.
pub(super) struct Bf16;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Bf16 {
    const NUMBERS: usize = 16;
    const BYTES: usize = 32;
    type State = [V::Words; 8];

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        // SAFETY: as above.
        unsafe { V::eight_words(&of.alone(lanes, from / 16)) }
    }

    #[inline(always)]
    unsafe fn four(words: &Self::State, i: usize) -> [V::Floats; 4] {
        let (a, b) = (words[2 * i], words[2 * i + 1]);
        // SAFETY: as above.
        unsafe {
            [
                V::bits(V::up(a, 16)),
                V::bits(V::and(a, 0xFFFF_0000)),
                V::bits(V::up(b, 16)),
                V::bits(V::and(b, 0xFFFF_0000)),
            ]
        }
    }
}

/// See `format::q8_0`.
pub(super) struct Q8_0;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q8_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 34;
    type State = ([V::Words; 8], V::Floats);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let blocks = of.alone(lanes, from / 32);
        // SAFETY: as above.
        unsafe {
            (
                V::eight_words(&behind(&blocks, 2)),
                V::halves(V::word(&blocks))[0],
            )
        }
    }

    #[inline(always)]
    unsafe fn four((words, scale): &Self::State, i: usize) -> [V::Floats; 4] {
        // SAFETY: as above.
        unsafe {
            four!(j => {
                let byte = V::down_signed(V::up(words[i], 24 - 8 * j), 24);
                V::mul(V::numbers(byte), *scale)
            })
        }
    }
}

/// See `format::q4_0`.
pub(super) struct Q4_0;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q4_0 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 18;
    type State = ([V::Words; 4], V::Floats);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let blocks = of.alone(lanes, from / 32);
        // SAFETY: as above.
        unsafe {
            (
                V::four_words(&behind(&blocks, 2)),
                V::halves(V::word(&blocks))[0],
            )
        }
    }

    #[inline(always)]
    unsafe fn four((words, scale): &Self::State, i: usize) -> [V::Floats; 4] {
        // SAFETY: as above. The second half of the numbers is in the high halves of the bytes.
        unsafe {
            let words = V::down(words[i % 4], i as u32 / 4 * 4);
            four!(j => {
                let code = V::plus(V::field(words, 8 * j, 4), -8);
                V::mul(V::numbers(code), *scale)
            })
        }
    }
}

/// See `format::q4_1`.
pub(super) struct Q4_1;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q4_1 {
    const NUMBERS: usize = 32;
    const BYTES: usize = 20;
    type State = ([V::Words; 4], [V::Floats; 2]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let blocks = of.alone(lanes, from / 32);
        // SAFETY: as above.
        unsafe {
            let scale = V::halves(V::word(&blocks));
            (V::four_words(&behind(&blocks, 4)), scale)
        }
    }

    #[inline(always)]
    unsafe fn four((words, [scale, least]): &Self::State, i: usize) -> [V::Floats; 4] {
        // SAFETY: as above.
        unsafe {
            let words = V::down(words[i % 4], i as u32 / 4 * 4);
            four!(j => {
                let code = V::numbers(V::field(words, 8 * j, 4));
                V::add(V::mul(code, *scale), *least)
            })
        }
    }
}

/// Scale and minimum of both parts of a pair, in each block of `q4_k` and `q5_k`; see `q4_k::part`.
///
/// # Safety
/// The processor has the instructions, and the places are blocks.
#[inline(always)]
unsafe fn parts<V: Vectors<L>, const L: usize>(
    blocks: &[*const u8; L],
    pair: usize,
) -> [[V::Floats; 2]; 2] {
    // SAFETY: the caller promises both. Four parts have their lower bits in a word each; of the others, the upper two bits are
    // beside those.
    unsafe {
        let [step, lowest] = V::halves(V::word(blocks));
        let [scales, leasts, rest] = [4, 8, 12].map(|at| V::word(&behind(blocks, at)));
        let mut parts = [[step; 2]; 2];
        for (k, part) in parts.iter_mut().enumerate() {
            let at = 8 * (2 * (pair as u32 % 2) + k as u32);
            let codes = if pair < 2 {
                [V::field(scales, at, 6), V::field(leasts, at, 6)]
            } else {
                let high = |words| V::up(V::field(words, at + 6, 2), 4);
                [
                    V::or(V::field(rest, at, 4), high(scales)),
                    V::or(V::field(rest, at + 4, 4), high(leasts)),
                ]
            };
            *part = [
                V::mul(step, V::numbers(codes[0])),
                V::mul(lowest, V::numbers(codes[1])),
            ];
        }
        parts
    }
}

/// See `format::q4_k`. Two parts are read at once, which share their bytes.
pub(super) struct Q4K;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q4K {
    const NUMBERS: usize = 64;
    const BYTES: usize = 36;
    type State = ([V::Words; 8], [[V::Floats; 2]; 2]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let (blocks, pair) = (of.alone(lanes, from / 256), from % 256 / 64);
        // SAFETY: as above.
        unsafe {
            let parts = parts::<V, L>(&blocks, pair);
            (V::eight_words(&behind(&blocks, 16 + 32 * pair)), parts)
        }
    }

    #[inline(always)]
    unsafe fn four((words, parts): &Self::State, i: usize) -> [V::Floats; 4] {
        let [scale, least] = parts[i / 8];
        // SAFETY: as above.
        unsafe {
            let words = V::down(words[i % 8], i as u32 / 8 * 4);
            four!(j => {
                let code = V::numbers(V::field(words, 8 * j, 4));
                V::sub(V::mul(scale, code), least)
            })
        }
    }
}

/// See `format::q5_k`.
pub(super) struct Q5K;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q5K {
    const NUMBERS: usize = 64;
    const BYTES: usize = 44;
    type State = ([V::Words; 8], [V::Words; 8], [[V::Floats; 2]; 2]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let (blocks, pair) = (of.alone(lanes, from / 256), from % 256 / 64);
        // SAFETY: as above.
        unsafe {
            let parts = parts::<V, L>(&blocks, pair);
            let low = V::eight_words(&behind(&blocks, 48 + 32 * pair));
            let mut fifth = V::eight_words(&behind(&blocks, 16));
            for words in &mut fifth {
                *words = V::down(*words, 2 * pair as u32);
            }
            (low, fifth, parts)
        }
    }

    #[inline(always)]
    unsafe fn four((low, fifth, parts): &Self::State, i: usize) -> [V::Floats; 4] {
        let [scale, least] = parts[i / 8];
        // SAFETY: as above.
        unsafe {
            let low = V::down(low[i % 8], i as u32 / 8 * 4);
            let fifth = V::down(fifth[i % 8], i as u32 / 8);
            four!(j => {
                let high = V::up(V::field(fifth, 8 * j, 1), 4);
                let code = V::numbers(V::or(V::field(low, 8 * j, 4), high));
                V::sub(V::mul(scale, code), least)
            })
        }
    }
}

/// See `format::q6_k`. Half a block is read at once: eight parts.
pub(super) struct Q6K;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q6K {
    const NUMBERS: usize = 128;
    const BYTES: usize = 105;
    type State = ([[V::Words; 8]; 2], [V::Words; 8], [V::Floats; 8]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let (blocks, half) = (of.alone(lanes, from / 256), from % 256 / 128);
        // SAFETY: as above.
        unsafe {
            let low = [
                V::eight_words(&behind(&blocks, 64 * half)),
                V::eight_words(&behind(&blocks, 64 * half + 32)),
            ];
            let high = V::eight_words(&behind(&blocks, 128 + 32 * half));
            // The last word of a block ends with its scale.
            let [_, step] = V::halves(V::word(&behind(&blocks, 206)));
            let codes = [192, 196].map(|at| V::word(&behind(&blocks, at + 8 * half)));
            let mut scales = [step; 8];
            for (k, scale) in scales.iter_mut().enumerate() {
                let code = V::up(codes[k / 4], 24 - 8 * (k as u32 % 4));
                *scale = V::mul(step, V::numbers(V::down_signed(code, 24)));
            }
            (low, high, scales)
        }
    }

    #[inline(always)]
    unsafe fn four((low, high, scales): &Self::State, i: usize) -> [V::Floats; 4] {
        let (quarter, d) = (i / 8, i % 8);
        // SAFETY: as above.
        unsafe {
            let low = V::down(low[quarter % 2][d], quarter as u32 / 2 * 4);
            let high = V::down(high[d], 2 * quarter as u32);
            four!(j => {
                let high = V::up(V::field(high, 8 * j, 2), 4);
                let code = V::plus(V::or(V::field(low, 8 * j, 4), high), -32);
                V::mul(scales[i / 4], V::numbers(code))
            })
        }
    }
}

/// The numbers of the codes.
const LEVELS: [f32; 16] = nf4::levels();

/// See `format::nf4`.
pub(super) struct Nf4;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Nf4 {
    const NUMBERS: usize = 64;
    const BYTES: usize = 33;
    type State = ([V::Words; 8], V::Floats);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, lanes: &Lanes, from: usize) -> Self::State {
        let blocks = of.grouped(lanes, from / 64);
        let mut scales = [0.0; L];
        // SAFETY: as above.
        unsafe {
            for (lane, (scale, block)) in scales.iter_mut().zip(&blocks).enumerate() {
                *scale = nf4::scale(of.head(lanes.block(lane, from / 64)), block.read());
            }
            (V::eight_words(&behind(&blocks, 1)), V::load(&scales))
        }
    }

    #[inline(always)]
    unsafe fn four((words, scale): &Self::State, i: usize) -> [V::Floats; 4] {
        // SAFETY: as above. The first number of a byte is in its high half.
        unsafe {
            let words = V::down(words[i / 2], i as u32 % 2 * 16);
            four!(j => {
                let code = V::field(words, [4, 0, 12, 8][j], 4);
                V::mul(V::entries(code, &LEVELS), *scale)
            })
        }
    }
}
