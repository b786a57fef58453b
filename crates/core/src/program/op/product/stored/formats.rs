//! How numbers come out of what they are stored as: four of each row at a time, in order.
//!
//! A number is decoded by the same operations as in its format's own file, so it has the same bits.

use super::rows::Rows;
use super::vectors::Vectors;
use crate::program::format::{nf4, q4_k};

/// A format, decoded `L` rows side by side. Its functions are to be called where the processor has the instructions.
pub(super) trait Stored<V: Vectors<L>, const L: usize> {
    /// Numbers of a row that are read at once: a part of a block, or one.
    const NUMBERS: usize;
    /// What was read of them.
    type State: Copy;

    /// Reads the numbers from `from` on, of the rows that begin with these blocks and have so many numbers.
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State;

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

/// The number in f16 at a place of each block.
///
/// # Safety
/// The processor has the instructions, and the blocks have the bytes.
#[inline(always)]
unsafe fn half_at<V: Vectors<L>, const L: usize>(blocks: &[*const u8; L], at: usize) -> V::Floats {
    let mut bits = [0; L];
    // SAFETY: the caller promises both.
    unsafe {
        for (bits, block) in bits.iter_mut().zip(blocks) {
            *bits = u16::from_le_bytes(block.add(at).cast::<[u8; 2]>().read());
        }
        V::halves(&bits)
    }
}

/// Numbers in f32, as blocks of eight.
pub(super) struct F32;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for F32 {
    const NUMBERS: usize = 8;
    type State = [V::Words; 8];

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        // SAFETY: the caller promises the instructions and the numbers; so it is in all functions below.
        unsafe { V::eight_words(&of.blocks(first, from / 8)) }
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
    type State = [V::Words; 8];

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        // SAFETY: as above.
        unsafe { V::eight_words(&of.blocks(first, from / 16)) }
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
    type State = ([V::Words; 8], V::Floats);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let blocks = of.blocks(first, from / 32);
        // SAFETY: as above.
        unsafe {
            (
                V::eight_words(&behind(&blocks, 2)),
                half_at::<V, L>(&blocks, 0),
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
    type State = ([V::Words; 4], V::Floats);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let blocks = of.blocks(first, from / 32);
        // SAFETY: as above.
        unsafe {
            (
                V::four_words(&behind(&blocks, 2)),
                half_at::<V, L>(&blocks, 0),
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
    type State = ([V::Words; 4], [V::Floats; 2]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let blocks = of.blocks(first, from / 32);
        // SAFETY: as above.
        unsafe {
            let scale = [half_at::<V, L>(&blocks, 0), half_at::<V, L>(&blocks, 2)];
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

/// Scale and minimum of a part, in each block of `q4_k` and `q5_k`.
///
/// # Safety
/// The processor has the instructions, and the places are blocks.
#[inline(always)]
unsafe fn part<V: Vectors<L>, const L: usize>(blocks: &[*const u8; L], k: usize) -> [V::Floats; 2] {
    let (mut scales, mut leasts) = ([0.0; L], [0.0; L]);
    // SAFETY: the caller promises both.
    unsafe {
        for (block, (scale, least)) in blocks.iter().zip(scales.iter_mut().zip(&mut leasts)) {
            (*scale, *least) = q4_k::part(&block.add(4).cast::<[u8; 12]>().read(), k);
        }
        let (step, lowest) = (half_at::<V, L>(blocks, 0), half_at::<V, L>(blocks, 2));
        [
            V::mul(step, V::load(&scales)),
            V::mul(lowest, V::load(&leasts)),
        ]
    }
}

/// The same of both parts of a pair.
///
/// # Safety
/// As of [`part`].
#[inline(always)]
unsafe fn parts<V: Vectors<L>, const L: usize>(
    blocks: &[*const u8; L],
    pair: usize,
) -> [[V::Floats; 2]; 2] {
    // SAFETY: passed on.
    unsafe {
        [
            part::<V, L>(blocks, 2 * pair),
            part::<V, L>(blocks, 2 * pair + 1),
        ]
    }
}

/// See `format::q4_k`. Two parts are read at once, which share their bytes.
pub(super) struct Q4K;

impl<V: Vectors<L>, const L: usize> Stored<V, L> for Q4K {
    const NUMBERS: usize = 64;
    type State = ([V::Words; 8], [[V::Floats; 2]; 2]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let (blocks, pair) = (of.blocks(first, from / 256), from % 256 / 64);
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
    type State = ([V::Words; 8], [V::Words; 8], [[V::Floats; 2]; 2]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let (blocks, pair) = (of.blocks(first, from / 256), from % 256 / 64);
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
    type State = ([[V::Words; 8]; 2], [V::Words; 8], [V::Floats; 8]);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let (blocks, half) = (of.blocks(first, from / 256), from % 256 / 128);
        // SAFETY: as above.
        unsafe {
            let low = [
                V::eight_words(&behind(&blocks, 64 * half)),
                V::eight_words(&behind(&blocks, 64 * half + 32)),
            ];
            let high = V::eight_words(&behind(&blocks, 128 + 32 * half));
            let step = half_at::<V, L>(&blocks, 208);
            let mut scales = [step; 8];
            for (k, scale) in scales.iter_mut().enumerate() {
                let mut own = [0.0; L];
                for (own, block) in own.iter_mut().zip(&blocks) {
                    *own = f32::from(block.add(192 + 8 * half + k).cast::<i8>().read());
                }
                *scale = V::mul(step, V::load(&own));
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
    type State = ([V::Words; 8], V::Floats);

    #[inline(always)]
    unsafe fn read(of: &Rows<'_>, first: &[usize; L], from: usize) -> Self::State {
        let blocks = of.blocks(first, from / 64);
        let mut scales = [0.0; L];
        // SAFETY: as above.
        unsafe {
            for ((scale, block), first) in scales.iter_mut().zip(&blocks).zip(first) {
                *scale = nf4::scale(of.head(first + from / 64), block.read());
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
