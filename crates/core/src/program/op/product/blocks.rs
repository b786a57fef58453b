//! Products of few rows with a matrix in blocks, as a text is generated with, where the processor has AVX-512: blocks are
//! decoded in registers, sixteen of the matrix' rows at a time, and nothing is packed. They take about as long as it takes to
//! read the matrix.
//!
//! An element has the bits that it has in a larger product: a number is decoded by the same operations, and sums are chains in
//! order of depth, begun anew every [`DEPTH`].

#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod wide;

use super::operand::{InBlocks, Source};
use super::{DEPTH, Start};
use crate::program::op::tile::Strided;

/// Most rows that are multiplied so.
const ROWS: usize = 8;

/// [`product`](super::product) where there are few rows, the processor has the instructions, and the format is known here;
/// `false`, with nothing done, elsewhere.
pub(super) fn product<S: Source<f32>>(
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    a: Strided<'_, S>,
    b: InBlocks<'_>,
    (alpha, start): (f32, Start<'_, f32>),
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if (1..=ROWS).contains(&m)
        && n > 0
        && k > 0
        && b.transposed
        && wide::is_here()
        && let Some(rows) = wide::Rows::new((n, k), b)
    {
        rows.multiply(m, out, a, (alpha, start));
        return true;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = (ROWS, DEPTH, m, n, k, out, a, b, alpha, start);
    false
}

#[cfg(test)]
mod tests {
    use super::super::{Start, product as any};
    use super::*;
    use crate::program::op::Storage;
    use crate::program::op::fixtures::{in_blocks, matrix};

    #[test]
    fn rows_have_the_bits_of_larger_products() {
        let mut known = 0;
        for (n, k) in [
            (1, 256),
            (16, 512),
            (37, 768),
            (65, 1280),
            (300, 256),
            (5, 96),
            (33, 320),
        ] {
            let (x, c) = (matrix(1, 20, k), matrix(2, 20, n));
            let (x, c) = (
                x.slice::<f32>().expect("f32"),
                c.slice::<f32>().expect("f32"),
            );
            let left = Strided {
                data: x,
                row: k,
                column: 1,
            };
            for weights in in_blocks(&matrix(3, n, k)) {
                let Storage::Blocks(format, data) = &weights.storage else {
                    panic!("they are blocks");
                };
                let right = InBlocks {
                    format: *format,
                    data,
                    width: k,
                    first: 0,
                    transposed: true,
                };
                for kind in 0..3 {
                    let start = || [Start::Zero, Start::Out, Start::Row(&c[..n])][kind];
                    let mut whole = c.to_vec();
                    any((20, n, k), &mut whole, left, right, 0.7, start());
                    for m in 1..=ROWS {
                        let mut own = c[..m * n].to_vec();
                        if product((m, n, k), &mut own, left, right, (0.7, start())) {
                            assert_eq!(own, whole[..m * n], "{format:?} {m}×{n}×{k} {kind}");
                            known += 1;
                        }
                    }
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        assert!(known > 500 || !wide::is_here(), "{known}");
        #[cfg(not(target_arch = "x86_64"))]
        assert_eq!(known, 0);
    }

    #[test]
    fn rows_from_the_middle_of_a_matrix_are_multiplied() {
        // As the head reads a part of its table.
        for weights in in_blocks(&matrix(3, 40, 256)) {
            let Storage::Blocks(format, data) = &weights.storage else {
                panic!("they are blocks");
            };
            let x = matrix(1, 1, 256);
            let left = Strided {
                data: x.slice::<f32>().expect("f32"),
                row: 256,
                column: 1,
            };
            let from = |first: usize| InBlocks {
                format: *format,
                data,
                width: 256,
                first,
                transposed: true,
            };
            let (mut all, mut part) = (vec![0.0; 40], vec![0.0; 9]);
            any((1, 40, 256), &mut all, left, from(0), 1.0, Start::Zero);
            if product((1, 9, 256), &mut part, left, from(31), (1.0, Start::Zero)) {
                assert_eq!(part, all[31..], "{format:?}");
            }
        }
    }
}
