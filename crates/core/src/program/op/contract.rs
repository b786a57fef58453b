//! Laws over the op table: every op has a sample; shapes are as inferred; gradients equal central
//! differences in f64; f32 agrees with f64; bits do not depend on threads; buffers taken over give
//! the same result.

use super::super::builder::Builder;
use super::super::graph::{Class, Value};
use super::super::types::{Bindings, DType, TensorType};
use super::fixtures::{
    Application, Sample, eval, eval_taking, floats, interpret, narrow, random, ty,
};
use super::*;

fn samples() -> impl Iterator<Item = Sample> {
    all_fixtures().into_iter().flat_map(|(_, own)| own.samples)
}

#[test]
fn every_op_has_samples_of_its_own() {
    assert!(NAMES.len() > 20);
    for (name, own) in all_fixtures() {
        assert!(!own.samples.is_empty(), "{name} has no sample");
        let samples = own.samples.iter().flat_map(|s| [&s.op, &s.single]);
        let others = own.large.iter().chain(&own.cases).chain(&own.faults);
        for op in samples.chain(others.map(|(op, _)| op)) {
            assert_eq!(op.name(), name);
        }
    }
}

#[test]
fn gradients_equal_central_differences() {
    let mut checked = 0;
    for Sample { op, inputs, .. } in samples() {
        let wanted: Vec<bool> = (0..inputs.len())
            .map(|i| op.rule().differentiable(i) && inputs[i].dtype() == DType::F64)
            .collect();
        let count = wanted.iter().filter(|w| **w).count();
        if count > 0 {
            checked += compare_with_differences(&op, &inputs, &wanted);
        }
        // A rule may do otherwise where the others are frozen.
        for i in (0..inputs.len()).filter(|&i| count > 1 && wanted[i]) {
            let alone: Vec<bool> = (0..inputs.len()).map(|j| i == j).collect();
            checked += compare_with_differences(&op, &inputs, &alone);
        }
    }
    assert!(checked > 1000, "{checked}");
}

/// Compares the wanted gradients of an op with differences; gives how many numbers they have.
fn compare_with_differences(op: &Op, inputs: &[Tensor], wanted: &[bool]) -> usize {
    let mut checked = 0;
    let mut b = Builder::new("law");
    let values: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| b.resident(&format!("x{i}"), ty(t), Class::Trainable))
        .collect();
    let outputs = b.push(op.clone(), &values);
    // Only the first output carries gradient: the others are statistics.
    let up_tensor = random(99, &ty_dims(b.ty(outputs[0])));
    let up = b.resident("up", ty(&up_tensor), Class::Frozen);
    let ups: Vec<Option<Value>> = (0..outputs.len()).map(|i| (i == 0).then_some(up)).collect();
    let grads = op.rule().grad(
        &mut b,
        At {
            inputs: &values,
            outputs: &outputs,
            up: &ups,
            needs: wanted,
        },
    );
    let program = b.finish();
    let mut residents = inputs.to_vec();
    residents.push(up_tensor.clone());
    let slots = interpret(&program, &residents);
    let objective = |inputs: &[Tensor]| -> f64 {
        floats(&eval(op, inputs, 1)[0])
            .iter()
            .zip(floats(&up_tensor))
            .map(|(y, u)| y * u)
            .sum()
    };
    for (i, grad) in grads.iter().enumerate().filter(|(i, _)| wanted[*i]) {
        let grad = floats(
            slots[grad.expect("a wanted gradient is built").index()]
                .as_ref()
                .expect("computed"),
        );
        for (j, &own) in grad.iter().enumerate() {
            let shifted = |h: f64| {
                let mut moved = inputs.to_vec();
                moved[i].slice_mut::<f64>().expect("f64")[j] += h;
                objective(&moved)
            };
            let h = 1e-5;
            let numeric = (shifted(h) - shifted(-h)) / (2.0 * h);
            assert!(
                (own - numeric).abs() <= 1e-6 * (1.0 + numeric.abs()),
                "{op:?} input {i}[{j}]: {own} against {numeric}"
            );
            checked += 1;
        }
    }
    checked
}

fn ty_dims(ty: &TensorType) -> Vec<usize> {
    ty.dims(&Bindings::default())
}

#[test]
fn single_precision_agrees_with_double() {
    let mut compared = 0;
    for Sample { op, single, inputs } in samples() {
        let narrowed: Vec<Tensor> = inputs.iter().map(narrow).collect();
        for (wide, single) in eval(&op, &inputs, 1)
            .iter()
            .zip(eval(&single, &narrowed, 1))
        {
            for (a, b) in floats(wide).iter().zip(floats(&single)) {
                assert!(
                    (a - b).abs() <= 2e-5 * (1.0 + a.abs()),
                    "{op:?}: {a} against {b}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

#[test]
fn bits_do_not_depend_on_threads() {
    let bits = |list: Vec<Tensor>| -> Vec<u64> {
        list.iter().flat_map(floats).map(f64::to_bits).collect()
    };
    let own = |(_, own): (&str, fixtures::Fixtures)| -> Vec<Application> {
        let samples = own.samples.into_iter().map(|s| (s.op, s.inputs));
        samples.chain(own.large).collect()
    };
    for (op, inputs) in all_fixtures().into_iter().flat_map(own) {
        let one = bits(eval(&op, &inputs, 1));
        for threads in [2, 3] {
            assert_eq!(
                one,
                bits(eval(&op, &inputs, threads)),
                "{op:?} with {threads} threads"
            );
        }
    }
}

#[test]
fn scratch_is_within_what_the_op_says() {
    let mut used = 0;
    for (_, own) in all_fixtures() {
        let samples = own.samples.into_iter().map(|s| (s.op, s.inputs));
        for (op, inputs) in samples.chain(own.large) {
            let types: Vec<TensorType> = inputs.iter().map(ty).collect();
            let types: Vec<&TensorType> = types.iter().collect();
            let outs = op.rule().infer(&types).expect("a sample is well typed");
            let outs: Vec<&TensorType> = outs.iter().collect();
            let sizes = fixtures::sizes(&op, &inputs, own.offsets);
            let bound = op
                .rule()
                .workspace(&SizedCx::new(&types, &outs, &sizes), &Machine::cpu(2));
            let (_, peak) = fixtures::eval_counting(&op, &inputs, 2, None);
            assert!(peak <= bound, "{op:?} uses {peak} bytes, and says {bound}");
            used += usize::from(peak > 0);
        }
    }
    assert!(used > 10, "{used} use any");
}

#[test]
fn a_buffer_taken_over_gives_the_same_result() {
    let mut checked = 0;
    for Sample { op, inputs, .. } in samples() {
        for &i in op.rule().in_place() {
            if i < inputs.len() {
                let (apart, taken) = (eval(&op, &inputs, 1), eval_taking(&op, &inputs, 1, Some(i)));
                assert_eq!(floats(&apart[0]), floats(&taken[0]), "{op:?} taking {i}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 10);
}
