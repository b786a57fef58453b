//! A packed block of a product, cut into tasks and register tiles.

use rayon::prelude::*;

use super::panels::Panels;
use super::{Arithmetic, Start, TASK_COLUMNS, TASK_ROWS};

/// A pointer that threads write disjoint tiles through.
#[derive(Clone, Copy)]
pub(super) struct Shared<T>(pub(super) *mut T);
// SAFETY: tasks write disjoint rows and columns, and the slice behind it outlives them.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// A packed block of a product and the part of the result it belongs to.
pub(super) struct Block<'a, K: Arithmetic> {
    pub(super) by: K,
    pub(super) sizes: (usize, usize),
    pub(super) lines: usize,
    pub(super) left: &'a Panels<K::Packed>,
    pub(super) right: &'a Panels<K::Packed>,
    pub(super) out: Shared<K::Out>,
    pub(super) stride: usize,
    pub(super) alpha: K::Out,
    pub(super) start: Start<'a, K::Out>,
}

impl<K: Arithmetic> Block<'_, K> {
    /// Cuts the block into tasks. How does not change a bit of the result.
    pub(super) fn run(&self, shared: bool) {
        let (m, n) = self.sizes;
        let (height, width) = (self.left.width, self.right.width);
        let (mut rows, mut columns) = (TASK_ROWS, TASK_COLUMNS);
        if shared {
            let wanted = 8 * rayon::current_num_threads();
            while m.div_ceil(rows) * n.div_ceil(columns) < wanted {
                if columns > 2 * width {
                    columns /= 2;
                } else if rows > height {
                    rows = (rows / height).div_ceil(2) * height;
                } else {
                    break;
                }
            }
        }
        let down = m.div_ceil(rows);
        let task = |i: usize| {
            let (row, column) = (i % down * rows, i / down * columns);
            let task = Task {
                block: self,
                rows: row..m.min(row + rows),
                columns: column..n.min(column + columns),
            };
            self.by.run(&task);
        };
        let tasks = down * n.div_ceil(columns);
        if shared {
            (0..tasks).into_par_iter().with_max_len(1).for_each(task);
        } else {
            (0..tasks).for_each(task);
        }
    }
}

/// The rows and columns of a block that one thread does.
pub(super) struct Task<'a, K: Arithmetic> {
    pub(super) block: &'a Block<'a, K>,
    pub(super) rows: std::ops::Range<usize>,
    pub(super) columns: std::ops::Range<usize>,
}

impl<K: Arithmetic> Task<'_, K> {
    /// Calls `f` with each register tile, its rows, and whether it has more than one vector of columns. The
    /// panels hold the tile's lines of those rows and of two vectors, and the result has its rows and columns.
    #[inline(always)]
    pub(super) fn tiles(&self, f: impl Each<K>) {
        let block = self.block;
        let lines = block.lines;
        let (height, width) = (block.left.width, block.right.width);
        for column in self.columns.clone().step_by(width) {
            for row in self.rows.clone().step_by(height) {
                let columns = width.min(self.columns.end - column);
                let tile = Tile {
                    lines,
                    left: block.left.panel(row, lines),
                    right: block.right.panel(column, lines),
                    // SAFETY: the row and the column lie inside the result.
                    out: unsafe { block.out.0.add(row * block.stride + column) },
                    stride: block.stride,
                    columns,
                    alpha: block.alpha,
                    start: match block.start {
                        Start::Row(bias) => Start::Row(&bias[column..column + columns]),
                        other => other,
                    },
                };
                f.tile(&tile, height.min(self.rows.end - row), 2 * columns > width);
            }
        }
    }
}

/// What is done with each tile of a task. Not a closure: one is not compiled for the instruction set of the
/// function it is written in.
pub(super) trait Each<K: Arithmetic> {
    fn tile(&self, tile: &Tile<'_, K::Packed, K::Out>, rows: usize, both: bool);
}

/// A tile of the result and the two panels it is the product of.
pub struct Tile<'a, P, T> {
    pub(super) lines: usize,
    pub(super) left: *const P,
    pub(super) right: *const P,
    pub(super) out: *mut T,
    pub(super) stride: usize,
    pub(super) columns: usize,
    pub(super) alpha: T,
    pub(super) start: Start<'a, T>,
}

/// Rows and columns of a register tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
}
