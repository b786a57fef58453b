//! What a format of blocks says of itself, and the loops over blocks that all of them share.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::Packed;
use crate::program::op::launch::KernelSource;

/// Numbers of the longest block.
pub const LONGEST: usize = 256;

/// A format that stores numbers in blocks, each with what its numbers share. Its file implements this.
pub trait Blocks: Debug + Sync {
    /// Its name in recipes and in printed programs.
    const NAME: &'static str;
    /// Numbers of a block: a power of two, at most [`LONGEST`]. Rows are whole blocks.
    const NUMBERS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// The kernel that decodes on a GPU, `name(const u8* blocks, float* out, u64 numbers)`, and its source. Where
    /// there is none yet, `check` says so for a recipe on a GPU.
    const KERNEL: Option<(KernelSource, &'static str)> = None;

    /// Writes a block's numbers to `out`, which has as many places. To be inlined: the loops around it are compiled
    /// for the processor's widest vectors.
    fn decode(block: &[u8], out: &mut [f32]);

    /// Stores the numbers of a block.
    ///
    /// # Errors
    /// A number that the format cannot hold.
    fn encode(numbers: &[f32], block: &mut [u8]) -> Result<(), f32>;
}

/// The same without its type, for tables and types of tensors.
pub trait BlockFormat: Debug + Sync {
    /// [`Blocks::NAME`]
    fn name(&self) -> &'static str;
    /// [`Blocks::NUMBERS`]
    fn numbers(&self) -> usize;
    /// [`Blocks::BYTES`]
    fn bytes(&self) -> usize;
    /// [`Blocks::KERNEL`]
    fn kernel(&self) -> Option<(KernelSource, &'static str)>;
    /// Decodes parts of rows.
    fn decode(&self, from: &Ranges<'_>, out: &mut [f32]);
    /// Encodes whole blocks.
    ///
    /// # Errors
    /// A number that the format cannot hold.
    fn encode(&self, numbers: &[f32], blocks: &mut [u8]) -> Result<(), f32>;
}

impl<B: Blocks> BlockFormat for B {
    fn name(&self) -> &'static str {
        B::NAME
    }

    fn numbers(&self) -> usize {
        B::NUMBERS
    }

    fn bytes(&self) -> usize {
        B::BYTES
    }

    fn kernel(&self) -> Option<(KernelSource, &'static str)> {
        B::KERNEL
    }

    fn decode(&self, from: &Ranges<'_>, out: &mut [f32]) {
        pulp::Arch::new().dispatch(Decode::<B> {
            from,
            out,
            of: PhantomData,
        });
    }

    fn encode(&self, numbers: &[f32], blocks: &mut [u8]) -> Result<(), f32> {
        let all = numbers.chunks_exact(B::NUMBERS);
        let each = all.zip(blocks.chunks_exact_mut(B::BYTES));
        each.into_iter().try_for_each(|(x, to)| B::encode(x, to))
    }
}

/// The same part of some rows of a matrix in blocks.
#[derive(Clone, Debug)]
pub struct Ranges<'a> {
    /// The matrix.
    pub data: &'a [u8],
    /// Numbers of a row.
    pub width: usize,
    /// The rows.
    pub rows: Range<usize>,
    /// The part of each.
    pub columns: Range<usize>,
}

/// Decodes ranges, compiled for an instruction set.
struct Decode<'a, B> {
    from: &'a Ranges<'a>,
    out: &'a mut [f32],
    of: PhantomData<B>,
}

impl<B: Blocks> pulp::WithSimd for Decode<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Ranges {
            data,
            width,
            rows,
            columns,
        } = self.from;
        let (first, last) = (columns.start / B::NUMBERS, columns.end.div_ceil(B::NUMBERS));
        let whole =
            columns.start.is_multiple_of(B::NUMBERS) && columns.end.is_multiple_of(B::NUMBERS);
        let bytes = width / B::NUMBERS * B::BYTES;
        let count = columns.len();
        if count == 0 {
            return;
        }
        for (row, out) in rows.clone().zip(self.out.chunks_exact_mut(count)) {
            let row = &data[row * bytes..][first * B::BYTES..last * B::BYTES];
            let blocks = row.chunks_exact(B::BYTES);
            if whole {
                for (block, out) in blocks.zip(out.chunks_exact_mut(B::NUMBERS)) {
                    B::decode(block, out);
                }
                continue;
            }
            // The first and the last block are read in part.
            let mut wide = [0.0; LONGEST];
            let wide = &mut wide[..B::NUMBERS];
            for (block, i) in blocks.zip(first..) {
                B::decode(block, wide);
                let begin = i * B::NUMBERS;
                let here = begin.max(columns.start)..(begin + B::NUMBERS).min(columns.end);
                let part = &wide[here.start - begin..here.end - begin];
                out[here.start - columns.start..here.end - columns.start].copy_from_slice(part);
            }
        }
    }
}

/// Blocks that a thread does at a time.
const SHARE: usize = 256;

impl Packed {
    /// All numbers of some blocks.
    ///
    /// # Panics
    /// If `out` has another number of places (a bug).
    pub fn decode_all(self, blocks: &[u8], out: &mut [f32]) {
        let (numbers, bytes) = (self.rule().numbers(), self.rule().bytes());
        assert!(blocks.len() / bytes * numbers == out.len());
        let parts = out
            .par_chunks_mut(SHARE * numbers)
            .zip(blocks.par_chunks(SHARE * bytes));
        parts.for_each(|(out, data)| {
            let width = out.len();
            let from = Ranges {
                data,
                width,
                rows: 0..1,
                columns: 0..width,
            };
            self.rule().decode(&from, out);
        });
    }

    /// Turns numbers into what their blocks stand for.
    ///
    /// # Errors
    /// A number that the format cannot hold.
    pub fn round(self, numbers: &mut [f32]) -> Result<(), f32> {
        let share = SHARE * self.rule().numbers();
        numbers.par_chunks_mut(share).try_for_each(|part| {
            let blocks = self.encode_all(part)?;
            let width = part.len();
            let from = Ranges {
                data: &blocks,
                width,
                rows: 0..1,
                columns: 0..width,
            };
            self.rule().decode(&from, part);
            Ok(())
        })
    }

    /// Blocks of some numbers, which are whole blocks.
    ///
    /// # Errors
    /// A number that the format cannot hold: one that is not finite, or that is out of its range.
    pub fn encode_all(self, numbers: &[f32]) -> Result<Vec<u8>, f32> {
        let mut blocks = vec![0; self.bytes(numbers.len() as u64) as usize];
        self.rule().encode(numbers, &mut blocks)?;
        Ok(blocks)
    }
}
