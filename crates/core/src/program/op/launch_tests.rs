//! The kernels without a GPU: their sources compiled for the host, every op's launches run in an
//! emulation of a grid (`tests/cuda`), results compared with the CPU's.

use std::sync::OnceLock;

use half::{bf16, f16};

use super::super::graph::{Axis, Class, Def, Feed, Value};
use super::super::stored;
use super::super::together::launches;
use super::super::types::{Bindings, DType, Real, TensorType};
use super::super::{Numbers, verify};
use super::fixtures::{self, eval, ids, keys, narrow, random, ty};
use super::launch::{Launch, Launches, Operand, without_launches};
use super::*;

mod attention;
mod case;
mod cases;
mod chains;
mod emulator;
mod updates;

use case::{Case, bytes};
use cases::cases;
use chains::chains;
use emulator::{emulate, in_namespace, is_stored_in, kernels};
use updates::updates;

/// Elements of an output, floats as f64; whether two are alike.
fn elements(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let words = |n: usize| bytes.chunks_exact(n);
    match dtype {
        DType::F32 => words(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().expect("four"))))
            .collect(),
        DType::U32 => words(4)
            .map(|b| f64::from(u32::from_le_bytes(b.try_into().expect("four"))))
            .collect(),
        _ => words(2)
            .map(|b| f64::from(u16::from_le_bytes(b.try_into().expect("two"))))
            .collect(),
    }
}

/// Compares what was made beside operands in 16 bits: a result there may be rounded the other way, and a sum of
/// such, twice.
fn near_as_held(
    case: &Case,
    own: &Tensor,
    answer: &[u8],
    dtype: DType,
    what: &dyn Fn() -> String,
) -> usize {
    let is_biased = matches!(&case.op, Op::MatMul(op) if op.epilogue == Epilogue::Bias)
        && own.dtype() == DType::BF16;
    let wide = |x: &Tensor| -> Vec<f32> { x.cast(DType::F32).slice().expect("f32").to_vec() };
    let mut got = own.clone();
    // A buffer of nothing need not be aligned.
    if answer.is_empty() {
        assert!(own.dims.contains(&0), "{}: no answer", what());
        return 0;
    }
    match own.dtype() {
        DType::F32 => got
            .slice_mut::<f32>()
            .expect("f32")
            .copy_from_slice(bytemuck::cast_slice(answer)),
        DType::F16 => got
            .slice_mut::<f16>()
            .expect("f16")
            .copy_from_slice(bytemuck::cast_slice(answer)),
        _ => got
            .slice_mut::<bf16>()
            .expect("bf16")
            .copy_from_slice(bytemuck::cast_slice(answer)),
    }
    let place = match (own.dtype(), dtype) {
        (DType::F32, _) => 1e-4,
        (_, DType::F16) => 2.0_f32.powi(-10),
        _ => 2.0_f32.powi(-7),
    };
    // A product is rounded before its bias is added, and then again.
    let place = if is_biased { 2.0 * place } else { place };
    let (a, b) = (wide(own), wide(&got));
    let largest = a.iter().fold(
        0.0_f32,
        |m, x| if x.is_finite() { m.max(x.abs()) } else { m },
    );
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let near = a == b
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= place * if is_biased { largest } else { a.abs() } + 2e-6 * largest;
        assert!(
            near,
            "{} held in {dtype} [{i}]: {a} on the CPU, {b} emulated",
            what()
        );
    }
    a.len()
}

/// The ops whose kernels have the CPU's bits.
fn same_bits() -> &'static [&'static str] {
    static NAMES: OnceLock<Vec<&str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let all = all_fixtures().into_iter();
        all.filter_map(|(name, own)| own.same_bits.then_some(name))
            .collect()
    })
}

#[test]
fn every_op_on_the_device_agrees_with_the_cpu() {
    let cases = cases();
    let same_bits = same_bits();
    let Some(answers) = emulate("ops", &cases) else {
        return;
    };
    let (mut compared, mut rounded) = (0, 0);
    for (case, answer) in cases.iter().zip(&answers) {
        let what = || {
            format!(
                "{:?} of {:?}, taking {:?}",
                case.op,
                case.inputs.iter().map(|t| &t.dims).collect::<Vec<_>>(),
                case.taken
            )
        };
        let fault = &answer[answer.len() - 1];
        assert_eq!(fault[0] != 0, case.bad, "{}: fault {fault:?}", what());
        if case.bad {
            continue;
        }
        let expected = case.expected();
        let of_rounded = attention::of_rounded(case);
        let outputs = case.outputs().len();
        let updated = case.op.rule().updates();
        let places = (0..outputs).map(|i| match (i, case.taken) {
            (0, Some(taken)) => taken,
            _ => case.inputs.len() + i,
        });
        for (own, place) in expected.iter().zip(places.chain(updated.iter().copied())) {
            let want = bytes(own);
            if let Some(of_rounded) = &of_rounded {
                let i = place - case.inputs.len();
                compared += of_rounded.compare(i, own.dtype(), &answer[place], &what);
                continue;
            }
            if let Some((dtype, _, _)) = &case.stored_in {
                compared += near_as_held(case, own, &answer[place], *dtype, &what);
                continue;
            }
            if same_bits.contains(&case.op.name()) {
                let same = want == answer[place];
                let nan = || {
                    elements(own.dtype(), &want)
                        .iter()
                        .zip(elements(own.dtype(), &answer[place]))
                        .all(|(a, b)| *a == b || (a.is_nan() && b.is_nan()))
                };
                assert!(
                    same || (own.dtype() == DType::F32 && nan()),
                    "{}: other bits",
                    what()
                );
            }
            let (a, b) = (
                elements(own.dtype(), &want),
                elements(own.dtype(), &answer[place]),
            );
            if case.precision() == Precision::Bf16 && case.taken.is_none() {
                let off = case.off_from_rounded(&b);
                assert!(off < 1e-4, "{}: {off} from rounded operands", what());
                rounded += 1;
            }
            let largest = a.iter().fold(
                0.0_f64,
                |m, x| if x.is_finite() { m.max(x.abs()) } else { m },
            );
            // In TF32 each operand has ten bits of its own; the CPU takes all it has.
            let (own, of_all) = match case.precision() {
                Precision::Tf32 => (0.0, 2e-3),
                Precision::F32 | Precision::Bf16 => (1e-4, 2e-6),
            };
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                let near = a == b
                    || (a.is_nan() && b.is_nan())
                    || (a - b).abs() <= own * a.abs() + of_all * largest;
                assert!(near, "{} [{i}]: {a} on the CPU, {b} emulated", what());
                compared += 1;
            }
        }
    }
    assert!(compared > 100_000 && rounded > 100, "{compared} {rounded}");
}

/// Whether activations are among a kernel's arguments; results of parts, say, are of f32.
fn reads_activations(source: &str, kernel: &str) -> bool {
    let arguments = source.split(&format!("NAMED({kernel})(")).nth(1);
    arguments.is_none_or(|rest| rest.split(')').next().unwrap_or("").contains("act*"))
}

#[test]
fn every_kernel_is_launched_and_every_launch_has_a_kernel() {
    let mut launched = Vec::new();
    let chained = chains().into_iter().flat_map(|(_, both, _)| both);
    for case in cases().into_iter().chain(updates()).chain(chained) {
        for launch in case.launches().list {
            if let Launch::Call(call) = launch {
                launched.push((call.source, call.name()));
            }
        }
    }
    let mut names = Vec::new();
    for source in sources() {
        let own = source
            .text
            .strip_prefix(include_str!("common.cuh"))
            .expect("the common part first");
        for kernel in kernels(own) {
            for stored_in in [DType::F32, DType::F16, DType::BF16] {
                let name = in_namespace(&kernel, stored_in);
                // Products make f32 or bf16.
                let of_product = ["matmul", "thin_product"].contains(&source.name)
                    || kernel.starts_with("bias_");
                let never =
                    !reads_activations(own, &kernel) || (of_product && stored_in == DType::F16);
                let known = stored_in == DType::F32 || is_stored_in(own) && !never;
                assert!(
                    !known || launched.contains(&(source.name, name.clone())),
                    "{}/{name} is never launched",
                    source.name
                );
                names.push((source.name, name));
            }
        }
    }
    assert!(launched.iter().all(|call| names.contains(call)));
    let count = names.len();
    names.sort_by(|a, b| a.1.cmp(&b.1));
    names.dedup_by(|a, b| a.1 == b.1);
    assert_eq!(count, names.len(), "two kernels have one name");
}

#[test]
fn what_no_kernel_does_is_named() {
    let mut b = Builder::new("wide");
    let ty = |w: u64| TensorType::fixed(DType::F32, &[4, w]);
    let x = b.resident("x", ty(600), Class::Frozen);
    let offsets = b.resident("o", TensorType::fixed(DType::U32, &[2]), Class::Frozen);
    let op = |heads| Attention::plain(Heads::each(heads), Real::new(1.0));
    b.push(op(3), &[x, x, x, offsets]);
    let good = b.finish();
    assert!(without_launches(&good).is_empty());
    let mut b = Builder::new("wide");
    let x = b.resident("x", ty(600), Class::Frozen);
    let offsets = b.resident("o", TensorType::fixed(DType::U32, &[2]), Class::Frozen);
    b.push(op(2), &[x, x, x, offsets]);
    b.push(
        Constant {
            value: Real::new(1.0),
            dtype: DType::F64,
        },
        &[],
    );
    b.label("side.cross.0");
    b.push(op(1), &[x, x, x, offsets]);
    let missing = without_launches(&b.finish());
    let said: Vec<_> = missing
        .iter()
        .map(|m| (m.op, m.why.as_str(), m.label.as_str()))
        .collect();
    let wide = |head| format!("heads are {head} wide, and kernels hold at most 256 columns");
    assert_eq!(
        said,
        [
            ("attention", wide(300).as_str(), ""),
            ("attention", wide(600).as_str(), "side.cross.0"),
            ("constant", "it would be of f64", ""),
        ]
    );
}
