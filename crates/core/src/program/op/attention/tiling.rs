//! How a head is cut up on a GPU, and the numbers its kernels read.

use super::super::launch::{Arg, args};
use super::{Attention, Lengths, Precision, Real};

/// The widest head that a GPU kernel's tiles hold.
pub(in super::super) const WIDEST_HEAD: u64 = 256;

/// The widest head whose products are formed on tensor cores: a warp holds the sums of 16 rows.
pub(in super::super) const WIDEST_IN_BF16: u64 = 128;

/// How a GPU kernel cuts a head up: tiles of `side` queries or keys, heads of up to `columns` columns; whether products are
/// of bf16 numbers.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tiling {
    pub columns: u32,
    pub in_bf16: bool,
    side: u64,
    head: u64,
    width: u64,
}

impl Tiling {
    /// The tiles for heads of matrices of a width; `None` if they are too wide for shared memory.
    pub fn of(width: u64, heads: u32, precision: Precision) -> Option<Self> {
        let head = width / u64::from(heads.max(1));
        let in_bf16 = precision == Precision::Bf16 && head <= WIDEST_IN_BF16;
        let (columns, side) = match in_bf16 {
            true => [(64, 64), (WIDEST_IN_BF16 as u32, 64)].as_slice(),
            false => [(64, 64), (128, 32), (WIDEST_HEAD as u32, 16)].as_slice(),
        }
        .iter()
        .copied()
        .find(|&(columns, _)| head <= u64::from(columns))?;
        Some(Self {
            columns,
            in_bf16,
            side,
            head,
            width,
        })
    }

    /// The kernel for its columns, of those for 64, 128 and 256 of them.
    pub const fn kernel(self, all: [&'static str; 3]) -> &'static str {
        match self.columns {
            64 => all[0],
            128 => all[1],
            _ => all[2],
        }
    }

    /// Queries or keys of a tile.
    pub const fn side(self) -> u64 {
        self.side
    }

    /// Threads of a block.
    pub const fn threads(self) -> u32 {
        if self.in_bf16 { 128 } else { 256 }
    }

    /// Bytes of shared memory of the forward: queries, then keys and values, in turn where there is a tile of scores, else
    /// twice.
    pub const fn forward_shared(self) -> u32 {
        if self.in_bf16 {
            self.rows_in_bf16(5)
        } else {
            self.shared(2, 1)
        }
    }

    /// Bytes of shared memory of the backward: queries, their outputs' gradients, keys and values; and a tile of scores, or
    /// two numbers and the draw's two a query. Of narrow heads in bf16, what passes by is there twice.
    pub const fn backward_shared(self) -> u32 {
        if self.in_bf16 {
            let stages = if self.columns == 64 { 2 } else { 1 };
            self.rows_in_bf16(2 + 2 * stages as u64) + stages * 64 * 4 * 4
        } else {
            self.shared(4, 1)
        }
    }

    /// Tiles of rows of bf16 numbers, eight further apart than they are long.
    const fn rows_in_bf16(self, tiles: u64) -> u32 {
        (tiles * self.side * (self.columns as u64 + 8) * 2) as u32
    }

    /// Bytes for some tiles of rows of a head and some of scores.
    pub const fn shared(self, rows: u64, scores: u64) -> u32 {
        ((rows * self.head + scores * self.side) * (self.side + 1) * 4) as u32
    }

    /// A block for each tile of the longest sequence, of each sequence, and each head.
    pub fn grid(self, lengths: Lengths, longest: u64, heads: u32) -> [u32; 2] {
        [
            (lengths.sequences * longest.div_ceil(self.side)) as u32,
            heads,
        ]
    }

    /// The kernels' numbers: rows, width, heads of queries and of keys, sequences, tiles of the longest, its tokens,
    /// fold, prefix, the mask's bounds, scale, soft cap (0 for none).
    pub fn sizes(self, lengths: Lengths, longest: u64, op: &Attention) -> Vec<Arg> {
        let tiles = longest.div_ceil(self.side) as u32;
        let Lengths {
            sequences,
            tokens,
            longest,
            fold,
            prefix,
            ..
        } = lengths;
        let [behind, ahead] = op.mask.bounds();
        args![
            tokens as u32,
            self.width as u32,
            op.heads.queries,
            op.heads.keys,
            sequences as u32,
            tiles,
            longest as u32,
            fold as u32,
            prefix as u32,
            behind,
            ahead,
            op.scale.get() as f32,
            op.softcap.map_or(0.0, Real::get) as f32
        ]
    }
}
