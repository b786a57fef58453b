//! Operands and cases of the head's loss and of its gradient.

use super::super::fixtures::{Fixtures, ids, in_blocks, matrix, narrow, random, scalar};
use super::super::{Precision, Tensor};
use super::{HeadLoss, StatesGradient};
use crate::program::types::{DType, Real};

/// States, a head, targets and a scale.
pub(in super::super) fn operands(rows: usize, d: usize, vocabulary: usize) -> Vec<Tensor> {
    let targets: Vec<u32> = (0..rows)
        .map(|i| ((i * 7 + 3) % vocabulary) as u32)
        .collect();
    let head = random(51, &[vocabulary, d]);
    vec![random(50, &[rows, d]), head, ids(&targets), scalar(0.125)]
}

/// The same operands with a bias.
pub(in super::super) fn biased(mut operands: Vec<Tensor>) -> Vec<Tensor> {
    let bias = random(53, &[operands[1].dims[0]]);
    operands.push(match operands[0].dtype() {
        DType::F32 => narrow(&bias),
        _ => bias,
    });
    operands
}

/// A head with a bias, and a soft cap.
pub(in super::super) fn with_bias() -> HeadLoss {
    HeadLoss {
        bias: true,
        softcap: Some(Real::new(1.5)),
        ..HeadLoss::plain(Real::new(0.7))
    }
}

/// Heads with a soft cap and without.
pub(in super::super) fn kinds() -> [HeadLoss; 2] {
    [None, Some(Real::new(1.5))].map(|softcap| HeadLoss {
        softcap,
        ..HeadLoss::plain(Real::new(0.7))
    })
}

/// Operands in f32, some with the head in bf16; pieces of the vocabulary on either device.
pub(in super::super) fn cases() -> Vec<Vec<Tensor>> {
    let single = |(rows, d, vocabulary)| -> Vec<Tensor> {
        operands(rows, d, vocabulary).iter().map(narrow).collect()
    };
    let shapes = [(1, 1, 1), (3, 5, 65), (7, 16, 300), (2, 3, 8500), (0, 4, 9)];
    let mut all: Vec<_> = shapes.map(single).to_vec();
    for shape in [(5, 8, 40), (2, 3, 8500)] {
        let mut inputs = single(shape);
        inputs[1] = inputs[1].cast(DType::BF16);
        all.push(inputs);
    }
    // One format within a piece of the vocabulary, one in several.
    for (shape, format) in [((2, 256, 30), "q4_k"), ((1, 64, 8500), "nf4")] {
        let mut inputs = single(shape);
        // So small that no token is all but certain: a gradient of nearly nothing would be rounding alone.
        let head = inputs[1].slice_mut::<f32>().expect("f32");
        head.iter_mut().for_each(|x| *x *= 0.05);
        let heads = in_blocks(&inputs[1]).into_iter();
        for head in heads.filter(|h| h.format().name() == format) {
            let mut inputs = inputs.clone();
            inputs[1] = head;
            all.push(inputs);
        }
    }
    all
}

/// With the states' gradient as a result, of either kind.
pub(super) fn with_gradient(op: &HeadLoss) -> [HeadLoss; 2] {
    [StatesGradient::Loss, StatesGradient::Rows].map(|gradient| HeadLoss {
        gradient,
        ..op.clone()
    })
}

/// Losses in bf16 over several pieces. The first token has the largest logit of all, so that weights are rounded alike
/// whatever pieces there are.
fn rounded(all: &mut Fixtures) {
    for inputs in cases().into_iter().filter(|x| x[1].dims[0] > 2048) {
        let mut inputs = biased(inputs);
        inputs[4].slice_mut::<f32>().expect("f32")[0] = 12.0;
        let of = HeadLoss {
            softcap: None,
            precision: Precision::Bf16,
            ..with_bias()
        };
        for op in with_gradient(&of) {
            all.case(op, inputs.clone());
        }
    }
}

/// Losses that make the states' gradient.
fn gradients(all: &mut Fixtures) {
    for op in kinds().iter().flat_map(with_gradient) {
        all.sample(op.clone(), operands(4, 5, 7));
        let large = operands(70, 16, 4500);
        all.large(op.clone(), large.iter().map(narrow).collect::<Vec<_>>());
        for inputs in cases() {
            all.case(op.clone(), inputs.clone());
            if inputs[1].dims[0] <= 2048 {
                let op = HeadLoss {
                    precision: Precision::Bf16,
                    ..op.clone()
                };
                all.case(op, inputs);
            }
        }
    }
    rounded(all);
    for op in with_gradient(&with_bias()) {
        all.sample(op.clone(), biased(operands(4, 5, 7)));
        for inputs in cases() {
            all.case(op.clone(), biased(inputs));
        }
    }
}

pub(in super::super) fn fixtures() -> Fixtures {
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0], vec![]));
    gradients(&mut all);
    for op in kinds() {
        all.sample(op.clone(), operands(4, 5, 7));
        all.large(
            op.clone(),
            operands(70, 16, 4500)
                .iter()
                .map(narrow)
                .collect::<Vec<_>>(),
        );
        for inputs in cases() {
            for precision in [Precision::F32, Precision::Bf16] {
                let op = HeadLoss {
                    precision,
                    ..op.clone()
                };
                all.case(op, inputs.clone());
            }
        }
        let outside = [matrix(1, 2, 3), matrix(2, 5, 3), ids(&[4, 5]), scalar(1.0)];
        for op in with_gradient(&op).into_iter().chain([op]) {
            all.fault(op, outside.clone());
        }
    }
    all.sample(with_bias(), biased(operands(4, 5, 7)));
    let uncapped = HeadLoss {
        softcap: None,
        ..with_bias()
    };
    for op in [with_bias(), uncapped] {
        for inputs in cases() {
            all.case(op.clone(), biased(inputs));
        }
    }
    all
}
