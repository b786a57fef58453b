//! Products with few rows, as a text is generated with: they take as long as it takes to read the right operand.
//!
//! A task packs a panel of the right operand and multiplies it while it is in the first-level cache, so that the operand is
//! read from memory once and nothing of it is written there. An element has the bits that it has in a larger product.

use rayon::prelude::*;

use super::operand::Operand;
use super::panels::{Panels, Part};
use super::{Arithmetic, Block, DEPTH, Shared, Start, Task};

/// Most rows.
pub(super) const ROWS: usize = 16;
/// Elements of the right operand below which handing work to other threads costs more than it saves.
pub(super) const WORTH_SHARING: usize = 1 << 16;

impl<T> Shared<T> {
    /// The place so many elements behind.
    ///
    /// # Safety
    /// It lies inside the result.
    const unsafe fn behind(self, elements: usize) -> Self {
        // SAFETY: the caller promises it.
        Self(unsafe { self.0.add(elements) })
    }
}

/// Elements packed at once: on every thread that has a panel of the right operand, the left one as well.
pub(super) fn packed(m: u64, columns: u64, width: u64) -> u64 {
    columns.div_ceil(width) * (m + width)
}

/// [`product`](super::product) of at most [`ROWS`] rows and at least one element.
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn product<K: Arithmetic, A: Operand<K::Out>, B: Operand<K::Out>>(
    by: K,
    (m, n, k): (usize, usize, usize),
    out: &mut [K::Out],
    a: A,
    b: B,
    alpha: K::Out,
    start: Start<'_, K::Out>,
) {
    let registers = by.shape();
    let width = registers.columns;
    let depth = k.min(DEPTH).div_ceil(K::PER);
    let out = Shared(out.as_mut_ptr());
    let panel = |i: usize| {
        let column = i * width;
        let columns = width.min(n - column);
        let mut left = Panels::<K::Packed>::new(depth * m, registers.rows);
        let mut right = Panels::<K::Packed>::new(depth * width, width);
        for from in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - from);
            let of_left = Part {
                row: 0,
                column: from,
                count: m,
                depth,
                right: false,
            };
            let of_right = Part {
                row: from,
                column,
                count: columns,
                depth,
                right: true,
            };
            left.pack(by, &a, of_left, false);
            right.pack(by, &b, of_right, false);
            let block = Block {
                by,
                sizes: (m, columns),
                lines: depth.div_ceil(K::PER),
                left: &left,
                right: &right,
                // SAFETY: `column` lies inside the result.
                out: unsafe { out.behind(column) },
                stride: n,
                alpha,
                start: match start {
                    _ if from > 0 => Start::Out,
                    Start::Row(bias) => Start::Row(&bias[column..column + columns]),
                    other => other,
                },
            };
            by.run(&Task {
                block: &block,
                rows: 0..m,
                columns: 0..columns,
            });
        }
    };
    let panels = n.div_ceil(width);
    if n * k > WORTH_SHARING && rayon::current_num_threads() > 1 {
        (0..panels).into_par_iter().for_each(panel);
    } else {
        (0..panels).for_each(panel);
    }
}
