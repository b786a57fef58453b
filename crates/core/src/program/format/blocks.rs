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
    /// What some blocks share, where there is such a thing.
    const GROUP: Group = Group { blocks: 1, head: 0 };
    /// Places in a block of numbers in f16, which must be finite for its own to be.
    const HALVES: &'static [usize];
    /// The kernels that decode on a GPU, to f32 and to bf16, and their source: `decoders` makes them of a function. Where
    /// there is none yet, `check` says so for a recipe on a GPU.
    const KERNELS: Option<(KernelSource, [&'static str; 2])> = None;
    /// Stores the numbers of a block; none where such blocks are read from files and never made. An error is a number
    /// that the format cannot hold.
    const ENCODE: Option<Encode> = None;

    /// Writes a block's numbers to `out`, which has as many places. `head` is what its group shares. To be inlined: the
    /// loops around it are compiled for the processor's widest vectors.
    fn decode(head: &[u8], block: &[u8], out: &mut [f32]);

    /// What a block's numbers give to the scales that are stored last, all together.
    fn measure(_: &[f32]) -> f32 {
        0.0
    }

    /// Stores those, of all blocks in order.
    fn close(_: &[f32], _: &mut [u8]) {}
}

/// [`Blocks::ENCODE`]
pub type Encode = fn(&[f32], &mut [u8]) -> Result<(), f32>;

/// Blocks that share bytes, which are in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many blocks; the last group may have fewer.
    pub blocks: usize,
    /// Bytes that they share.
    pub head: usize,
}

impl Group {
    /// Where block `i` begins, of blocks of so many bytes.
    #[must_use]
    pub const fn place(self, i: usize, bytes: usize) -> usize {
        i * bytes + (i / self.blocks + 1) * self.head
    }

    /// Where the bytes are that block `i` shares.
    #[must_use]
    pub const fn shared(self, i: usize, bytes: usize) -> usize {
        i / self.blocks * (self.blocks * bytes + self.head)
    }
}

/// The kernels of a format in CUDA C++, `decode_NAME` and `decode_NAME_bf16`: `n` numbers of a tensor from `first` on, by
/// its function `NAME_number(blocks, i)`.
macro_rules! decoders {
    ($name:literal) => {
        concat!(
            "extern \"C\" __global__ void decode_",
            $name,
            "(const unsigned char* x, float* out, u64 first, u64 n) {\n    make_numbers<Floats>(out, first, n, [=](u64 i) { return ",
            $name,
            "_number(x, i); });\n}\n\nextern \"C\" __global__ void decode_",
            $name,
            "_bf16(const unsigned char* x, u16* out, u64 first, u64 n) {\n    make_numbers<Halves>(out, first, n, [=](u64 i) { return float_to_bfloat(",
            $name,
            "_number(x, i)); });\n}\n"
        )
    };
}
pub(super) use decoders;

/// The same without its type, for tables and types of tensors.
pub trait BlockFormat: Debug + Sync {
    /// [`Blocks::NAME`]
    fn name(&self) -> &'static str;
    /// [`Blocks::NUMBERS`]
    fn numbers(&self) -> usize;
    /// [`Blocks::BYTES`]
    fn bytes(&self) -> usize;
    /// [`Blocks::GROUP`]
    fn group(&self) -> Group;
    /// [`Blocks::HALVES`]
    fn halves(&self) -> &'static [usize];
    /// [`Blocks::KERNELS`]
    fn kernels(&self) -> Option<(KernelSource, [&'static str; 2])>;
    /// [`Blocks::ENCODE`]
    fn encode(&self) -> Option<Encode>;
    /// [`Blocks::measure`]
    fn measure(&self, numbers: &[f32]) -> f32;
    /// [`Blocks::close`]
    fn close(&self, measured: &[f32], data: &mut [u8]);
    /// Decodes parts of rows.
    fn decode(&self, from: &Ranges<'_>, out: &mut [f32]);
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

    fn group(&self) -> Group {
        B::GROUP
    }

    fn halves(&self) -> &'static [usize] {
        B::HALVES
    }

    fn kernels(&self) -> Option<(KernelSource, [&'static str; 2])> {
        B::KERNELS
    }

    fn encode(&self) -> Option<Encode> {
        B::ENCODE
    }

    fn measure(&self, numbers: &[f32]) -> f32 {
        B::measure(numbers)
    }

    fn close(&self, measured: &[f32], data: &mut [u8]) {
        B::close(measured, data);
    }

    fn decode(&self, from: &Ranges<'_>, out: &mut [f32]) {
        pulp::Arch::new().dispatch(Decode::<B> {
            from,
            out,
            of: PhantomData,
        });
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
        let count = columns.len();
        if count == 0 {
            return;
        }
        for (row, out) in rows.clone().zip(self.out.chunks_exact_mut(count)) {
            let begin = row * (width / B::NUMBERS);
            let one = |i: usize, out: &mut [f32]| {
                let head = &data[B::GROUP.shared(begin + i, B::BYTES)..][..B::GROUP.head];
                let block = &data[B::GROUP.place(begin + i, B::BYTES)..][..B::BYTES];
                B::decode(head, block, out);
            };
            if whole {
                for (i, out) in (first..).zip(out.chunks_exact_mut(B::NUMBERS)) {
                    one(i, out);
                }
                continue;
            }
            // The first and the last block are read in part.
            let mut wide = [0.0; LONGEST];
            let wide = &mut wide[..B::NUMBERS];
            for i in first..last {
                one(i, wide);
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
        assert!(blocks.len() as u64 == self.bytes(out.len() as u64));
        self.decode_part(blocks, 0, out);
    }

    /// The numbers of a tensor from `first` on, which begins a block.
    ///
    /// # Panics
    /// If there are fewer (a bug).
    pub fn decode_part(self, data: &[u8], first: usize, out: &mut [f32]) {
        let share = SHARE * self.rule().numbers();
        let parts = out.par_chunks_mut(share).enumerate();
        parts.for_each(|(i, out)| {
            let begin = first + i * share;
            let from = Ranges {
                data,
                width: begin + out.len(),
                rows: 0..1,
                columns: begin..begin + out.len(),
            };
            self.rule().decode(&from, out);
        });
    }

    /// Turns numbers into what their blocks stand for.
    ///
    /// # Errors
    /// A number that the format cannot hold.
    pub fn round(self, numbers: &mut [f32]) -> Result<(), f32> {
        let blocks = self.encode_all(numbers)?;
        self.decode_all(&blocks, numbers);
        Ok(())
    }

    /// Blocks of some numbers, which are whole blocks.
    ///
    /// # Errors
    /// A number that the format cannot hold: one that is not finite, or that is out of its range.
    pub fn encode_all(self, numbers: &[f32]) -> Result<Vec<u8>, f32> {
        let mut encoder = Encoder::new(self, numbers.len() as u64);
        encoder.push(numbers)?;
        Ok(encoder.finish())
    }

    /// Whether the numbers that blocks are scaled by are finite.
    #[must_use]
    pub fn is_finite(self, blocks: &[u8]) -> bool {
        let rule = self.rule();
        // Formats whose blocks share something have none in their blocks.
        let all = |block: &[u8]| {
            let mut halves = rule.halves().iter();
            halves.all(|&at| half_at(block, at).is_finite())
        };
        rule.halves().is_empty() || blocks.par_chunks(rule.bytes()).with_min_len(SHARE).all(all)
    }
}

/// The number of the largest magnitude, the first among equals; 0 where all are 0.
///
/// # Errors
/// A number that is not finite.
pub(super) fn farthest(numbers: &[f32]) -> Result<f32, f32> {
    let mut most = 0.0_f32;
    for &x in numbers {
        if !x.is_finite() {
            return Err(x);
        }
        most = if x.abs() > most.abs() { x } else { most };
    }
    Ok(most)
}

/// A number in f16 at a place of a block.
#[inline(always)]
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    match block.get(at..at + 2) {
        Some(&[low, high]) => half::f16::from_le_bytes([low, high]).to_f32_const(),
        _ => 0.0,
    }
}

/// Numbers on their way into blocks, some at a time.
#[derive(Debug)]
pub struct Encoder {
    format: Packed,
    data: Vec<u8>,
    /// Blocks that are made.
    made: usize,
    measured: Vec<f32>,
}

impl Encoder {
    /// For so many numbers, which are whole blocks.
    #[must_use]
    pub fn new(format: Packed, numbers: u64) -> Self {
        let blocks = numbers as usize / format.rule().numbers();
        let keeps = format.rule().group().head > 0;
        Self {
            format,
            data: vec![0; format.bytes(numbers) as usize],
            made: 0,
            measured: Vec::with_capacity(if keeps { blocks } else { 0 }),
        }
    }

    /// The next numbers, which are whole groups of blocks but for the last ones.
    ///
    /// # Errors
    /// A number that the format cannot hold.
    ///
    /// # Panics
    /// If such blocks are never made, or there are more numbers than were announced (a bug).
    pub fn push(&mut self, numbers: &[f32]) -> Result<(), f32> {
        let rule = self.format.rule();
        let Some(encode) = rule.encode() else {
            panic!("{} is read, and never made", rule.name())
        };
        let (count, bytes, group) = (rule.numbers(), rule.bytes(), rule.group());
        let grouped = group.head > 0;
        if grouped {
            let measures = numbers.par_chunks_exact(count).map(|x| rule.measure(x));
            self.measured.par_extend(measures);
        }
        let share = if grouped { group.blocks } else { SHARE };
        let begin = self.made * bytes + self.made / group.blocks * group.head;
        let parts = self.data[begin..]
            .par_chunks_mut(share * bytes + group.head)
            .zip(numbers.par_chunks(share * count));
        self.made += numbers.len() / count;
        parts.try_for_each(|(data, numbers)| {
            let blocks = data[group.head..].chunks_exact_mut(bytes);
            let mut each = numbers.chunks_exact(count).zip(blocks);
            each.try_for_each(|(numbers, block)| encode(numbers, block))
        })
    }

    /// The blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.format.rule().close(&self.measured, &mut self.data);
        self.data
    }
}
