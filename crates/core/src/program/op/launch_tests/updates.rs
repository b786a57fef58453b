//! Updates of many tensors by one launch.

use super::fixtures::{ids, list, scalar};
use super::*;

/// Updates of tensors of several sizes and decays: each for itself, and all together as the last case.
pub(super) fn updates() -> Vec<Case> {
    let [lr, step, factor] = [scalar(1e-3), ids(&[9]), scalar(0.7)];
    let mut all: Vec<Case> = [1, 5, 255, 256, 257, 4000, 70_001]
        .into_iter()
        .enumerate()
        .map(|(i, n)| {
            let i = i as u64;
            let op = AdamW {
                beta1: Real::new(0.9),
                beta2: Real::new(0.98),
                eps: Real::new(1e-6),
                weight_decay: Real::new(0.1 * (i % 2) as f64),
                since: 0,
            };
            let second: Vec<f32> = (0..n).map(|i| (i % 91) as f32 * 1e-3).collect();
            let own = [40 + i, 50 + i, 60 + i].map(|seed| list(seed, n));
            let own = own.into_iter().chain([Tensor::new(second, &[n])]);
            let shared = [lr.clone(), step.clone(), factor.clone()];
            Case::new(op, own.chain(shared).collect())
        })
        .collect();
    let ops: Vec<Op> = all.iter().map(|case| case.op.clone()).collect();
    let sized = all.iter().map(|case| {
        let types: Vec<TensorType> = case.inputs.iter().map(ty).collect();
        SizedCx::new(&types.iter().collect::<Vec<_>>(), &[], &Bindings::default())
    });
    let list: Vec<(&Op, SizedCx)> = ops.iter().zip(sized).collect();
    let inputs = all.iter().flat_map(|case| case.inputs.clone()).collect();
    all.push(Case {
        given: Some(AdamW::together(&list).expect("launches")),
        ..Case::new(ops[0].clone(), inputs)
    });
    all
}

#[test]
fn updates_together_have_the_bits_of_each_alone() {
    let cases = updates();
    let Some(mut answers) = emulate("updates", &cases) else {
        return;
    };
    let together = answers.pop().expect("the last");
    for (i, (case, alone)) in cases.iter().zip(&answers).enumerate() {
        let updated = eval(&case.op, &case.inputs, 1);
        for (&at, new) in case.op.rule().updates().iter().zip(updated) {
            assert_ne!(
                bytes(&case.inputs[at]),
                alone[at],
                "{i}: nothing was updated"
            );
            assert_eq!(
                elements(DType::F32, &alone[at]).len(),
                elements(DType::F32, &bytes(&new)).len()
            );
            assert!(
                together[7 * i + at] == alone[at],
                "{i}, input {at}: other bits"
            );
        }
    }
}
