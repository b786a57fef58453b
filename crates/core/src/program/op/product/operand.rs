//! What a product reads: matrices of numbers, and matrices in blocks, which are decoded a panel at a time.

use half::bf16;

use super::panels::Side;
use super::{DEPTH, WIDEST};
use crate::program::format::{Packed, Ranges};
use crate::program::op::tile::Strided;

/// What an operand's elements are stored as.
pub trait Source<T>: Copy + Send + Sync {
    /// In the type of the result.
    fn read(self) -> T;
}
impl Source<Self> for f32 {
    #[inline(always)]
    fn read(self) -> Self {
        self
    }
}
impl Source<Self> for f64 {
    #[inline(always)]
    fn read(self) -> Self {
        self
    }
}
impl Source<f64> for f32 {
    #[inline(always)]
    fn read(self) -> f64 {
        self.into()
    }
}
impl Source<f32> for bf16 {
    #[inline(always)]
    fn read(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// An operand of a product.
pub trait Operand<T>: Copy + Sync {
    /// What its panels are packed from.
    type Element: Source<T>;
    /// Where the elements of one panel are decoded, if they are.
    type Decoded: Default;

    /// Whether it has an element in row `row` and column `column`.
    fn has(&self, row: usize, column: usize) -> bool;

    /// The elements of one panel.
    fn side<'a>(&'a self, at: Corner, to: &'a mut Self::Decoded) -> Side<'a, Self::Element>;
}

/// Which elements a panel holds.
#[derive(Clone, Copy, Debug)]
pub struct Corner {
    /// The first row.
    pub row: usize,
    /// The first column.
    pub column: usize,
    /// Rows or columns side by side: at most [`WIDEST`].
    pub here: usize,
    /// Elements of each: at most [`DEPTH`].
    pub depth: usize,
    /// Whether columns lie side by side, as in the right operand's panels, not rows.
    pub columns: bool,
}

impl<T, S: Source<T>> Operand<T> for Strided<'_, S> {
    type Element = S;
    type Decoded = ();

    fn has(&self, row: usize, column: usize) -> bool {
        row * self.row + column * self.column < self.data.len()
    }

    fn side<'a>(&'a self, at: Corner, (): &'a mut ()) -> Side<'a, S> {
        let (across, along) = if at.columns {
            (self.column, self.row)
        } else {
            (self.row, self.column)
        };
        Side {
            data: &self.data[at.row * self.row + at.column * self.column..],
            across,
            along,
        }
    }
}

/// A matrix in blocks.
#[derive(Clone, Copy, Debug)]
pub struct InBlocks<'a> {
    /// Their format.
    pub format: Packed,
    /// The blocks.
    pub data: &'a [u8],
    /// Numbers of a stored row.
    pub width: usize,
    /// The stored row that is the operand's first.
    pub first: usize,
    /// Whether stored rows are the operand's columns.
    pub transposed: bool,
}

/// The decoded elements of one panel.
#[derive(Debug)]
pub struct Panel([f32; DEPTH * WIDEST]);

impl Default for Panel {
    fn default() -> Self {
        Self([0.0; DEPTH * WIDEST])
    }
}

impl<T> Operand<T> for InBlocks<'_>
where
    f32: Source<T>,
{
    type Element = f32;
    type Decoded = Panel;

    fn has(&self, row: usize, column: usize) -> bool {
        let (row, column) = if self.transposed {
            (column, row)
        } else {
            (row, column)
        };
        column < self.width
            && self
                .format
                .bytes(((self.first + row + 1) * self.width) as u64)
                <= self.data.len() as u64
    }

    fn side<'a>(&'a self, at: Corner, Panel(to): &'a mut Panel) -> Side<'a, f32> {
        let (row, column) = if self.transposed {
            (at.column, at.row)
        } else {
            (at.row, at.column)
        };
        // Stored rows are what lies side by side, or they are its lines.
        let beside = self.transposed == at.columns;
        let (rows, columns) = if beside {
            (at.here, at.depth)
        } else {
            (at.depth, at.here)
        };
        let to = &mut to[..rows * columns];
        let from = Ranges {
            data: self.data,
            width: self.width,
            rows: self.first + row..self.first + row + rows,
            columns: column..column + columns,
        };
        self.format.rule().decode(&from, to);
        let (across, along) = if beside { (columns, 1) } else { (1, columns) };
        Side {
            data: to,
            across,
            along,
        }
    }
}
