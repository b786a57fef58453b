//! What products are tested on.

use super::super::super::types::{DType, Real};
use super::super::Op;
use super::super::fixtures::{Fixtures, SHAPES, in_blocks, list, matrix, random};
use super::super::thin_product;
use super::{Epilogue, MatMul, Precision};

#[expect(clippy::too_many_lines, reason = "a table of samples")]
pub(in super::super) fn fixtures() -> Fixtures {
    let mut all = Fixtures::new();
    all.activations = Some(|op, _| match op {
        Op::MatMul(op) if op.epilogue == Epilogue::Accumulate => (vec![0, 2], vec![0]),
        _ => (vec![0], vec![0]),
    });
    for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
        let (m, k, n) = (5, 7, 3);
        let a = if a_t { [k, m] } else { [m, k] };
        let b = if b_t { [n, k] } else { [k, n] };
        for (epilogue, extra) in [
            (Epilogue::None, None),
            (Epilogue::Bias, Some(vec![n])),
            (Epilogue::Accumulate, Some(vec![m, n])),
        ] {
            let mut inputs = vec![random(1, &a), random(2, &b)];
            inputs.extend(extra.map(|dims| random(3, &dims)));
            let op = MatMul::plain(a_t, b_t, Real::new(0.7));
            all.sample(MatMul { epilogue, ..op }, inputs);
        }
    }
    for (m, k, n) in [
        (416, 768, 64),
        (1, 300, 500),
        (300, 1, 2),
        (64, 64, 64),
        (257, 129, 383),
        (40, 2048, 33),
    ] {
        for (a_t, b_t) in [(false, true), (false, false), (true, false)] {
            let a = if a_t {
                matrix(1, k, m)
            } else {
                matrix(1, m, k)
            };
            let b = if b_t {
                matrix(2, n, k)
            } else {
                matrix(2, k, n)
            };
            all.large(MatMul::plain(a_t, b_t, Real::new(1.0)), [a, b]);
        }
    }
    for (rows, d) in SHAPES {
        for (k, a_t, b_t) in [(5, false, true), (64, false, false), (33, true, false)] {
            let a = if a_t {
                matrix(20, k, rows)
            } else {
                matrix(20, rows, k)
            };
            let b = if b_t {
                matrix(21, d, k)
            } else {
                matrix(21, k, d)
            };
            let mut turn = 0;
            for (epilogue, extra) in [
                (Epilogue::None, None),
                (Epilogue::Bias, Some(list(22, d))),
                (Epilogue::Accumulate, Some(matrix(23, rows, d))),
            ] {
                for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                    turn += 1;
                    let op = MatMul {
                        precision,
                        epilogue,
                        ..MatMul::plain(a_t, b_t, Real::new(1.5))
                    };
                    // Each format of blocks has its turn.
                    let blocks = in_blocks(&b).into_iter().enumerate();
                    let own = |(i, _): &(usize, _)| match precision {
                        Precision::Bf16 => i % 3 == turn / 3 % 3,
                        Precision::F32 | Precision::Tf32 => {
                            i % 6 == (turn / 3 * 2 + turn % 3 - 1) % 6
                        }
                    };
                    let blocks = blocks.filter(own).map(|(_, b)| b);
                    let narrow = std::iter::once(b.cast(DType::BF16)).chain(blocks);
                    for b in std::iter::once(b.clone()).chain(narrow) {
                        let inputs = [a.clone(), b].into_iter().chain(extra.clone());
                        all.case(op.clone(), inputs.collect::<Vec<_>>());
                    }
                }
            }
        }
    }
    thin_product::fixtures(&mut all);
    all
}
