//! What every op is applied to: what its file gives, in place where that may be, and stored in 16 bits.

use super::fixtures::{Fixtures, Sample};
use super::*;

/// Which inputs and outputs of an op may be activations.
type Activations = fn(&Op, usize) -> (Vec<usize>, Vec<usize>);

/// A case with activations stored in 16 bits, all of them and some.
fn stored_in(case: &Case, activations: Activations) -> Vec<Case> {
    let single = |x: &Tensor| matches!(x.dtype(), DType::F32 | DType::U32);
    let (reads, makes) = activations(&case.op, case.inputs.len());
    if case.precision() == Precision::Tf32 || !reads.iter().all(|&i| single(&case.inputs[i])) {
        return Vec::new();
    }
    let elements = |t: &Tensor| t.dims.iter().product::<usize>();
    if matches!(case.op, Op::MatMul(_)) && case.inputs.iter().map(elements).max() > Some(5000) {
        return Vec::new();
    }
    let mut list = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        list.push(case.stored_in(dtype, &reads, &makes));
    }
    // Beside operands in f32: what goes from f32 to 16 bits, and from there.
    list.push(case.stored_in(DType::BF16, &reads, &[]));
    list.push(case.stored_in(DType::F16, reads.get(..1).unwrap_or_default(), &makes));
    if matches!(case.op, Op::MatMul(_)) && case.inputs[1].dtype() == DType::F32 {
        list.push(case.stored_in(DType::BF16, &[0, 1], &[]));
    }
    list
}

/// A case where output 0 takes over the buffer of an input, for each input that may give its own away.
fn in_place(case: &Case) -> Vec<Case> {
    let outputs = case.outputs();
    let fits = |i: &&usize| {
        let input = case.inputs.get(**i);
        input.is_some_and(|x| outputs.first() == Some(&ty(x)))
    };
    let taking = |&i: &usize| Case {
        taken: Some(i),
        offsets: case.offsets,
        ..Case::new(case.op.clone(), case.inputs.clone())
    };
    let rule = case.op.rule();
    rule.in_place().iter().filter(fits).map(taking).collect()
}

/// The cases of one op.
fn of_op(own: Fixtures) -> Vec<Case> {
    let offsets = own.offsets;
    let case = |(op, inputs): (Op, Vec<Tensor>)| Case {
        offsets,
        ..Case::new(op, inputs.iter().map(narrow).collect())
    };
    let sample = |s: Sample| (s.single, s.inputs);
    let samples = own.samples.into_iter().map(sample);
    let mut all: Vec<Case> = samples.chain(own.cases).map(case).collect();
    let mut more: Vec<Case> = all.iter().flat_map(in_place).collect();
    if let Some(activations) = own.activations {
        more.extend(all.iter().flat_map(|case| stored_in(case, activations)));
    }
    all.extend(more);
    let bad = |case: Case| Case { bad: true, ..case };
    all.extend(own.faults.into_iter().map(case).map(bad));
    all
}

pub(super) fn cases() -> Vec<Case> {
    let fixtures = all_fixtures().into_iter();
    let all: Vec<Case> = fixtures.flat_map(|(_, own)| of_op(own)).collect();
    let count = |is: fn(&Case) -> bool| all.iter().filter(|case| is(case)).count();
    assert!(count(|case| case.taken.is_some()) > 40);
    assert!(count(|case| case.stored_in.is_some()) > 300);
    assert!(count(|case| case.bad) > 10);
    all
}
