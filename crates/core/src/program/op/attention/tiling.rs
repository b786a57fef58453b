//! How a head is cut up on a GPU, and the numbers its kernels read.

use super::super::launch::{Arg, args};
use super::{Attention, Lengths, Precision, Real};

/// The widest head that a GPU kernel's tiles hold.
pub(in super::super) const WIDEST_HEAD: u64 = 256;

/// The widest head whose products are formed on tensor cores: a warp holds the sums of 16 rows.
pub(in super::super) const WIDEST_ON_CORES: u64 = 128;

/// The widest head whose fragments of own rows a warp holds; their tiles leave their place to a second stage.
const WIDEST_AT_HAND: u32 = 64;

/// How a GPU kernel cuts a head up: tiles of `side` queries or keys, heads of up to `columns` columns; in what numbers
/// products are formed, on tensor cores unless in f32.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tiling {
    pub columns: u32,
    pub products: Precision,
    side: u64,
    head: u64,
    width: u64,
}

impl Tiling {
    /// The tiles for heads of matrices of a width; `None` if they are too wide for shared memory.
    pub fn of(width: u64, heads: u32, precision: Precision) -> Option<Self> {
        let head = width / u64::from(heads.max(1));
        let products = if head <= WIDEST_ON_CORES {
            precision
        } else {
            Precision::F32
        };
        let (columns, side) = match products {
            Precision::F32 => [(64, 64), (128, 32), (WIDEST_HEAD as u32, 16)].as_slice(),
            Precision::Tf32 | Precision::Bf16 => {
                [(WIDEST_AT_HAND, 64), (WIDEST_ON_CORES as u32, 64)].as_slice()
            }
        }
        .iter()
        .copied()
        .find(|&(columns, _)| head <= u64::from(columns))?;
        Some(Self {
            columns,
            products,
            side,
            head,
            width,
        })
    }

    /// Whether products are formed on tensor cores.
    pub const fn on_cores(self) -> bool {
        !matches!(self.products, Precision::F32)
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
        if self.on_cores() { 128 } else { 256 }
    }

    /// Bytes of shared memory of the forward. On tensor cores keys and values are there twice, beside queries that are not
    /// at hand; in f32 they are there in turn, beside queries and a tile of scores.
    pub const fn forward_shared(self) -> u32 {
        let step = match (self.products, self.columns) {
            (Precision::F32, _) => return self.shared(2, 1),
            (Precision::Tf32, WIDEST_AT_HAND) | (Precision::Bf16, _) => 64,
            (Precision::Tf32, _) => 32,
        };
        let own = if self.is_at_hand() { 0 } else { 64 };
        (own + 4 * step) * self.row()
    }

    /// Bytes of shared memory of the backward. On tensor cores it holds the two tiles that pass by, twice where own rows are at
    /// hand, else once beside these, with four words a query; in f32 queries, their outputs' gradients, keys, values and a
    /// tile of scores.
    pub const fn backward_shared(self) -> u32 {
        let (step, stages, own) = match (self.products, self.columns) {
            (Precision::F32, _) => return self.shared(4, 1),
            (_, WIDEST_AT_HAND) => (64, 2, 0),
            (Precision::Bf16, _) => (64, 1, 128),
            (Precision::Tf32, _) => (16, 1, 128),
        };
        (own + 2 * stages * step) * self.row() + stages * 64 * 4 * 4
    }

    const fn is_at_hand(self) -> bool {
        self.columns <= WIDEST_AT_HAND
    }

    /// Bytes of a row of a tile on tensor cores, 16 more than its numbers.
    const fn row(self) -> u32 {
        let size = match self.products {
            Precision::Bf16 => 2,
            Precision::Tf32 | Precision::F32 => 4,
        };
        self.columns * size + 16
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
