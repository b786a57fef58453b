//! Products of few rows with a matrix as it is stored, as a text is generated with, where the processor has AVX-512 or AVX2:
//! some of the matrix' rows are decoded in registers side by side, and nothing is packed. They take about as long as it takes
//! to read the matrix.
//!
//! An element has the bits that it has in a larger product: a number is decoded by the same operations, and sums are chains in
//! order of depth, begun anew every [`DEPTH`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod formats;
#[cfg(target_arch = "x86_64")]
mod rows;
#[cfg(target_arch = "x86_64")]
mod vectors;

use super::operand::{InBlocks, Source};
use super::{DEPTH, Start};
use crate::program::op::tile::Strided;

/// Most rows that are multiplied so.
const ROWS: usize = 8;

/// Numbers that are stored one by one.
pub trait Plain: Source<f32> + bytemuck::Pod {
    /// Whether they are in bf16.
    const IS_NARROW: bool;
}
impl Plain for f32 {
    const IS_NARROW: bool = false;
}
impl Plain for half::bf16 {
    const IS_NARROW: bool = true;
}

/// A matrix on the right of a product.
pub(super) enum Right<'a, B> {
    /// Plain numbers.
    Plain(Strided<'a, B>),
    /// Blocks.
    Blocks(InBlocks<'a>),
}

/// [`product`](super::product) where there are few rows, the processor has the instructions, and the matrix is transposed and
/// of a format that is known here; `false`, with nothing done, elsewhere.
pub(super) fn product<S: Source<f32>, B: Plain>(
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    a: Strided<'_, S>,
    b: Right<'_, B>,
    how: (f32, Start<'_, f32>),
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if (1..=ROWS).contains(&m)
        && n > 0
        && k > 0
        && let Some(set) = rows::Set::here().next()
        && let Some(rows) = match b {
            Right::Plain(b) => rows::Rows::plain((n, k), b),
            Right::Blocks(b) => rows::Rows::in_blocks((n, k), b),
        }
    {
        rows.multiply(set, m, out, (a, how));
        return true;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = (ROWS, DEPTH, m, n, k, out, a, b, how);
    false
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::super::{Start, product as any};
    use super::rows::{Rows, Set};
    use super::*;
    use crate::program::op::fixtures::{in_blocks, matrix};
    use crate::program::op::{Storage, Tensor};

    fn floats(t: &Tensor) -> &[f32] {
        t.slice().expect("f32")
    }

    fn left(data: &[f32], k: usize) -> Strided<'_, f32> {
        Strided {
            data,
            row: k,
            column: 1,
        }
    }

    fn blocks(weights: &Tensor, first: usize) -> InBlocks<'_> {
        let Storage::Blocks(format, data) = &weights.storage else {
            panic!("they are blocks");
        };
        InBlocks {
            format: *format,
            data,
            width: weights.dims[1],
            first,
            transposed: true,
        }
    }

    /// Compares rows by each instruction set that is here with those of a larger product.
    fn compare(
        (n, k): (usize, usize),
        rows: Option<Rows<'_>>,
        whole: impl Fn(&mut [f32], Strided<'_, f32>, Start<'_, f32>),
        what: &dyn std::fmt::Debug,
    ) -> usize {
        let Some(rows) = rows else { return 0 };
        let (x, c) = (matrix(1, 20, k), matrix(2, 20, n));
        let (x, c) = (floats(&x), floats(&c));
        let mut compared = 0;
        for kind in 0..3 {
            let start = || [Start::Zero, Start::Out, Start::Row(&c[..n])][kind];
            let mut all = c.to_vec();
            whole(&mut all, left(x, k), start());
            for m in 1..=ROWS {
                for set in Set::here() {
                    let mut own = c[..m * n].to_vec();
                    rows.multiply(set, m, &mut own, (left(x, k), (0.7, start())));
                    assert_eq!(own, all[..m * n], "{what:?} {set:?} {m}×{n}×{k} {kind}");
                    compared += 1;
                }
            }
        }
        compared
    }

    const SIZES: [(usize, usize); 7] = [
        (1, 256),
        (16, 512),
        (37, 768),
        (65, 1280),
        (300, 256),
        (5, 96),
        (33, 320),
    ];

    #[test]
    fn rows_have_the_bits_of_larger_products_with_blocks() {
        let mut compared = 0;
        for (n, k) in SIZES {
            for weights in in_blocks(&matrix(3, n, k)) {
                let right = blocks(&weights, 0);
                compared += compare(
                    (n, k),
                    Rows::in_blocks((n, k), right),
                    |out, x, start| any((20, n, k), out, x, right, 0.7, start),
                    &right.format,
                );
            }
        }
        assert!(compared > 800 * Set::here().count(), "{compared}");
    }

    #[test]
    fn rows_have_the_bits_of_larger_products_with_plain_numbers() {
        fn of<B: Plain>(sizes: (usize, usize), weights: &[B]) -> usize {
            let right = Strided {
                data: weights,
                row: 1,
                column: sizes.1,
            };
            let whole = |out: &mut [f32], x: Strided<'_, f32>, start: Start<'_, f32>| {
                any((20, sizes.0, sizes.1), out, x, right, 0.7, start);
            };
            compare(sizes, Rows::plain(sizes, right), whole, &B::IS_NARROW)
        }
        let mut compared = 0;
        for (n, k) in SIZES.into_iter().chain([(9, 8), (40, 24), (40, 264)]) {
            let weights = matrix(3, n, k);
            let rounded: Vec<half::bf16> = floats(&weights)
                .iter()
                .map(|&x| half::bf16::from_f32(x))
                .collect();
            compared += of((n, k), floats(&weights)) + of((n, k), &rounded);
        }
        let each = 3 * ROWS * Set::here().count();
        assert_eq!(compared, (10 + 7) * each);
    }

    #[test]
    fn what_does_not_fit_is_left_to_others() {
        let numbers = vec![0.0_f32; 12 * 16];
        let at = |row, column| Strided {
            data: &numbers[..],
            row,
            column,
        };
        assert!(
            Rows::plain((16, 12), at(1, 12)).is_none(),
            "no whole vectors"
        );
        assert!(Rows::plain((12, 16), at(12, 1)).is_none(), "not transposed");
        assert!(Rows::plain((13, 16), at(1, 16)).is_none(), "too many rows");
        assert!(Rows::plain((12, 16), at(1, 16)).is_some());
    }

    #[test]
    fn rows_from_the_middle_of_a_matrix_are_multiplied() {
        // As the head reads a part of its table.
        for weights in in_blocks(&matrix(3, 40, 256)) {
            let x = matrix(1, 1, 256);
            let left = left(floats(&x), 256);
            let (mut all, mut part) = (vec![0.0; 40], vec![0.0; 9]);
            let right = blocks(&weights, 0);
            any((1, 40, 256), &mut all, left, right, 1.0, Start::Zero);
            let how = (1.0, Start::Zero);
            let right = Right::<f32>::Blocks(blocks(&weights, 31));
            if product((1, 9, 256), &mut part, left, right, how) {
                assert_eq!(part, all[31..], "{:?}", weights.storage.format());
            }
        }
    }
}
