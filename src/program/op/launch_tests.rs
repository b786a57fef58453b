//! The kernels without a GPU: their sources compiled for the host, every op's launches run in an
//! emulation of a grid (`tests/cuda`), results compared with the CPU's.

use std::path::Path;
use std::process::Command;

use half::{bf16, f16};

use super::super::graph::{Class, Def, Feed, Rows, Value};
use super::super::stored;
use super::super::together::launches;
use super::super::types::{Bindings, Real, TensorType};
use super::super::{Numbers, verify};
use super::contract::{eval, ids, keys, narrow, random, samples, scalar, ty};
use super::launch::{Arg, Launch, Launches, Operand, SOURCES, held_as, without_launches};
use super::*;

mod cases;
mod chains;

use cases::{cases, list};
use chains::chains;

/// Ops whose kernels do the CPU's operations in the CPU's order: the bits are the same.
const SAME_BITS: &[&str] = &[
    "accumulate",
    "activation",
    "activation_grad",
    "add",
    "cast",
    "clip",
    "constant",
    "dropout",
    "fill",
    "gather",
    "indices",
    "layer_norm_grad_weight",
    "mul_rows",
    "perturb",
    "scatter",
    "sgd",
    "square_accumulate",
    "squared_error_grad",
    "sum_rows",
    "sum_rows_product",
    "window",
    "window_grad",
];

/// One application to run.
struct Case {
    op: Op,
    inputs: Vec<Tensor>,
    taken: Option<usize>,
    /// Whether an index is outside its table.
    bad: bool,
    /// What is launched, if it is no single application.
    given: Option<Launches>,
    /// Which inputs and outputs are held in 16 bits, and in which.
    held: Option<(DType, Vec<usize>, Vec<usize>)>,
}

impl Case {
    fn new(op: impl Into<Op>, inputs: Vec<Tensor>) -> Self {
        Self {
            op: op.into(),
            inputs,
            taken: None,
            bad: false,
            given: None,
            held: None,
        }
    }

    /// The same with some operands held in 16 bits.
    fn held(&self, dtype: DType, inputs: &[usize], outputs: &[usize]) -> Self {
        let own = self.inputs.iter().enumerate();
        let own = own.map(|(i, x)| match inputs.contains(&i) {
            true => x.cast(dtype),
            false => x.clone(),
        });
        Self {
            held: Some((dtype, inputs.to_vec(), outputs.to_vec())),
            ..Self::new(self.op.clone(), own.collect())
        }
    }

    /// Types of the inputs, as computed and held.
    fn types(&self) -> Vec<TensorType> {
        let all = self.inputs.iter().enumerate();
        all.map(|(i, x)| match &self.held {
            Some((dtype, inputs, _)) if inputs.contains(&i) => TensorType {
                dtype: DType::F32,
                ..ty(x)
            }
            .stored_as(*dtype),
            _ => ty(x),
        })
        .collect()
    }

    /// What the CPU makes of the inputs: of those held in 16 bits, widened; what is so held, rounded.
    fn expected(&self) -> Vec<Tensor> {
        let Some((dtype, inputs, outputs)) = &self.held else {
            return eval(&self.op, &self.inputs, 2);
        };
        let wide = self.inputs.iter().enumerate();
        let wide = wide.map(|(i, x)| match inputs.contains(&i) {
            true => x.cast(DType::F32),
            false => x.clone(),
        });
        let made = eval(&self.op, &wide.collect::<Vec<_>>(), 2)
            .into_iter()
            .enumerate();
        made.map(|(i, x)| match outputs.contains(&i) {
            true => x.cast(*dtype),
            false => x,
        })
        .collect()
    }

    /// In what numbers its product is, if it is one.
    fn precision(&self) -> Precision {
        match &self.op {
            Op::MatMul(product) => product.precision,
            _ => Precision::F32,
        }
    }

    /// The largest difference of a product from that of the same operands, rounded to bf16, in f64, relative to
    /// the sum of its terms' sizes.
    fn off_from_rounded(&self, got: &[f64]) -> f64 {
        let Op::MatMul(op) = &self.op else {
            panic!("no product");
        };
        let wide = |t: &Tensor| -> Vec<f64> {
            match (t.slice::<f32>(), t.slice::<bf16>()) {
                (Some(x), _) => x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect(),
                (_, Some(x)) => x.iter().map(|x| x.to_f64()).collect(),
                _ => panic!("floats"),
            }
        };
        let (a, b) = (wide(&self.inputs[0]), wide(&self.inputs[1]));
        let added = self.inputs.get(2).map(|t| t.slice::<f32>().expect("f32"));
        let dims = &self.outputs()[0].dims(&Bindings::default());
        let (m, n) = (dims[0], dims[1]);
        let k = a.len() / m;
        let mut most = 0.0_f64;
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let terms = (0..k).map(|p| {
                let x = a[if op.a_t { p * m + i } else { i * k + p }];
                x * b[if op.b_t { j * k + p } else { p * n + j }]
            });
            let (sum, size) = terms.fold((0.0, 0.0), |(s, z): (f64, f64), t| (s + t, z + t.abs()));
            let more = match (op.epilogue, added) {
                (Epilogue::Bias, Some(x)) => f64::from(x[j]),
                (Epilogue::Accumulate, Some(x)) => f64::from(x[i * n + j]),
                _ => 0.0,
            };
            let want = op.alpha.get() * sum + more;
            most = most.max((got[i * n + j] - want).abs() / (size + more.abs() + 1e-6));
        }
        most
    }

    fn outputs(&self) -> Vec<TensorType> {
        if self.given.is_some() {
            return Vec::new();
        }
        let types: Vec<TensorType> = self.types().iter().map(TensorType::computed).collect();
        let made = self
            .op
            .rule()
            .infer(&types.iter().collect::<Vec<_>>())
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.op));
        let held = |(i, ty): (usize, TensorType)| match &self.held {
            Some((dtype, _, outputs)) if outputs.contains(&i) => ty.stored_as(*dtype),
            _ => ty,
        };
        made.into_iter().enumerate().map(held).collect()
    }

    /// The batch, as the offsets say.
    fn sizes(&self) -> Bindings {
        let at = match self.op {
            Op::Attention(_) => 3,
            Op::AttentionGrad(_) => 6,
            _ => return Bindings::default(),
        };
        let offsets = self.inputs[at].slice::<u32>().expect("offsets");
        let lengths = offsets
            .windows(2)
            .map(|w| w[1].saturating_sub(w[0]) as usize);
        Bindings::of_lengths(lengths)
    }

    fn launches(&self) -> Launches {
        if let Some(given) = &self.given {
            return given.clone();
        }
        let (inputs, outputs) = (self.types(), self.outputs());
        let cx = SizedCx::new(
            &inputs.iter().collect::<Vec<_>>(),
            &outputs.iter().collect::<Vec<_>>(),
            &self.sizes(),
        );
        let found = stored::launches(&self.op, &cx);
        found.unwrap_or_else(|| panic!("{:?} has no launches", self.op))
    }
}

fn bytes(t: &Tensor) -> Vec<u8> {
    if let Some(x) = t.slice::<f32>() {
        bytemuck::cast_slice(x).to_vec()
    } else if let Some(x) = t.slice::<u32>() {
        bytemuck::cast_slice(x).to_vec()
    } else if let Some(x) = t.slice::<f16>() {
        x.iter().flat_map(|x| x.to_le_bytes()).collect()
    } else if let Some(x) = t.slice::<bf16>() {
        x.iter().flat_map(|x| x.to_le_bytes()).collect()
    } else {
        panic!("{:?} is no type of a device", t.dtype())
    }
}

/// The request the emulator reads, and the sizes of the buffers it answers with.
fn request(cases: &[Case]) -> (Vec<u8>, Vec<Vec<usize>>) {
    let (mut out, mut sizes) = (Vec::new(), Vec::new());
    let word = |out: &mut Vec<u8>, x: u32| out.extend(x.to_le_bytes());
    word(&mut out, cases.len() as u32);
    for case in cases {
        let launches = case.launches();
        let mut buffers: Vec<Vec<u8>> = case.inputs.iter().map(bytes).collect();
        let outputs = case.outputs();
        let garbage = |n: u64| vec![0xff_u8; n as usize];
        buffers.extend(
            outputs
                .iter()
                .map(|t| garbage(t.bytes(&Bindings::default()))),
        );
        buffers.extend(launches.scratch.iter().map(|&n| garbage(n)));
        buffers.push(vec![0; 12]);
        let place = |operand: Operand| -> u32 {
            let at = match operand {
                Operand::In(i) => i,
                Operand::Out(0) if case.taken.is_some() => case.taken.unwrap_or(0),
                Operand::Out(i) => case.inputs.len() + i,
                Operand::Scratch(i) => case.inputs.len() + outputs.len() + i,
                Operand::Fault => buffers.len() - 1,
            };
            at as u32
        };
        word(&mut out, buffers.len() as u32);
        for buffer in &buffers {
            out.extend((buffer.len() as u64).to_le_bytes());
            out.extend(buffer);
        }
        word(&mut out, launches.list.len() as u32);
        for launch in &launches.list {
            match launch {
                Launch::Call(call) => {
                    out.push(0);
                    let name = format!("{}/{}", in_namespace(call.source, call.held), call.name());
                    word(&mut out, name.len() as u32);
                    out.extend(name.as_bytes());
                    for x in [call.grid[0], call.grid[1], call.block, call.shared] {
                        word(&mut out, x);
                    }
                    word(&mut out, call.args.len() as u32);
                    for &arg in &call.args {
                        let (kind, value) = match arg {
                            Arg::At(operand) => (0, u64::from(place(operand))),
                            Arg::Null => (1, 0),
                            Arg::U32(x) => (2, u64::from(x)),
                            Arg::U64(x) => (3, x),
                            Arg::F32(x) => (4, u64::from(x.to_bits())),
                            Arg::F64(x) => (5, x.to_bits()),
                        };
                        out.push(kind);
                        out.extend(value.to_le_bytes());
                    }
                }
                Launch::Product(p) => {
                    out.push(1);
                    let flags = u32::from(p.a_t)
                        | u32::from(p.b_t) << 1
                        | (p.precision as u32) << 2
                        | u32::from(p.narrow) << 4;
                    for x in [
                        flags,
                        p.m,
                        p.n,
                        p.k,
                        place(p.a),
                        place(p.b),
                        p.lda,
                        p.ldb,
                        p.ldc,
                    ] {
                        word(&mut out, x);
                    }
                    out.extend(p.alpha.to_le_bytes());
                    out.extend(p.beta.to_le_bytes());
                    word(&mut out, place(p.c));
                }
                Launch::Copy { from, to } => {
                    out.push(2);
                    word(&mut out, place(*from));
                    word(&mut out, place(*to));
                }
                Launch::Table { to, words } => {
                    out.push(4);
                    word(&mut out, place(*to));
                    word(&mut out, words.len() as u32);
                    for &arg in words {
                        out.push(u8::from(matches!(arg, Arg::At(_))));
                        let value = arg.word(|operand| Ok::<u64, ()>(place(operand).into()));
                        out.extend(value.expect("a word").to_le_bytes());
                    }
                }
                Launch::Upload { to, words } => {
                    out.push(3);
                    word(&mut out, place(*to));
                    word(&mut out, words.len() as u32 * 4);
                    out.extend(words.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
        sizes.push(buffers.iter().map(Vec::len).collect());
    }
    (out, sizes)
}

/// The namespace of a source with activations held so.
fn in_namespace(source: &str, held: DType) -> String {
    match held {
        DType::F32 => source.to_owned(),
        held => format!("{source}_as_{held}"),
    }
}

/// The kernels of a source: the names behind `__global__ void`, and those that its macros make.
fn kernels(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let identifier = |s: &str| -> String {
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let after = |mark: &'static str| text.split(mark).skip(1).map(identifier).collect::<Vec<_>>();
    let plain = after("__global__ void ");
    let plain = plain.into_iter().filter(|name| name != "NAMED");
    for name in plain.chain(after("__global__ void NAMED(")) {
        match name.as_str() {
            "name" => names.extend(after("\nATTENTION(")),
            "attention_grad_queries_" | "attention_grad_keys_" => {
                names.extend(
                    after("\nATTENTION_GRAD(")
                        .iter()
                        .map(|n| format!("{name}{n}")),
                );
            }
            _ => names.push(name),
        }
    }
    names
}

/// Whether a source's kernels know activations in 16 bits.
fn is_held(own: &str) -> bool {
    own.contains("NAMED(")
        && own
            .split("#endif")
            .last()
            .is_some_and(|kernels| kernels.contains("act* "))
}

/// The emulator's source: shim, what kernels share, each kernel source in a namespace, the table.
fn program() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a source");
    let common = include_str!("common.cuh");
    let mut text = format!("{}\n{common}\n", read("shim.h"));
    let mut table = Vec::new();
    for source in SOURCES {
        let own = source
            .text
            .strip_prefix(common)
            .expect("the common part first");
        let kinds: &[DType] = match is_held(own) {
            true => &[DType::F32, DType::F16, DType::BF16],
            false => &[DType::F32],
        };
        for &held in kinds {
            let name = in_namespace(source.name, held);
            text.push_str(held_as(held));
            text.push_str(&format!("namespace of_{name} {{\n{own}\n}}\n"));
            table.extend(kernels(own).iter().map(|k| {
                let kernel = in_namespace(k, held);
                format!("KERNEL({name}, {kernel})")
            }));
            for name in ["HELD", "NAMED", "ATTENTION", "ATTENTION_GRAD"] {
                text.push_str(&format!("#undef {name}\n"));
            }
        }
    }
    let emulator = read("emulator.cpp").replace("{KERNELS}", &format!("{{{}}}", table.join(", ")));
    text + &emulator
}

/// Runs cases through the emulation; the buffers of each afterwards. `None` where there is no compiler.
fn emulate(cases: &[Case]) -> Option<Vec<Vec<Vec<u8>>>> {
    let dir = tempfile::tempdir().expect("a folder");
    // Kept for a look at what went wrong.
    let kept = std::env::var_os("EMULATION").map(std::path::PathBuf::from);
    let at = |name: &str| kept.as_deref().unwrap_or(dir.path()).join(name);
    let (request, sizes) = request(cases);
    std::fs::write(at("kernels.cpp"), program()).expect("written");
    std::fs::write(at("in"), request).expect("written");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let flags = [
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        "-fno-strict-aliasing",
        "-w",
        "-o",
    ];
    let built = Command::new(&compiler)
        .args(flags)
        .arg(at("emulator"))
        .arg(at("kernels.cpp"))
        .output();
    let built = match built {
        Ok(built) => built,
        Err(why) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "`{compiler}` cannot be run ({why}): the CUDA kernels are not tested"
            );
            eprintln!("THE CUDA KERNELS ARE NOT TESTED: `{compiler}` cannot be run ({why})");
            return None;
        }
    };
    let log = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the kernels do not compile:\n{log}");
    let ran = Command::new(at("emulator"))
        .args([at("in"), at("out")])
        .output()
        .expect("the emulator runs");
    let log = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success(),
        "the emulator ended with {:?}: {log}",
        ran.status
    );
    let answer = std::fs::read(at("out")).expect("an answer");
    let mut rest = answer.as_slice();
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    Some(
        sizes
            .iter()
            .map(|list| list.iter().map(|&n| take(n)).collect())
            .collect(),
    )
}

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

#[test]
fn every_op_on_the_device_agrees_with_the_cpu() {
    let cases = cases();
    for name in NAMES {
        assert!(
            cases.iter().any(|c| c.op.name() == *name),
            "{name} is not emulated"
        );
    }
    let Some(answers) = emulate(&cases) else {
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
        let outputs = case.outputs().len();
        let updated = case.op.rule().updates();
        let places = (0..outputs).map(|i| match (i, case.taken) {
            (0, Some(taken)) => taken,
            _ => case.inputs.len() + i,
        });
        for (own, place) in expected.iter().zip(places.chain(updated.iter().copied())) {
            let want = bytes(own);
            if let Some((dtype, _, _)) = &case.held {
                compared += near_as_held(case, own, &answer[place], *dtype, &what);
                continue;
            }
            if SAME_BITS.contains(&case.op.name()) {
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

/// Updates of tensors of several sizes and decays: each for itself, and all together as the last case.
fn updates() -> Vec<Case> {
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
    let Some(mut answers) = emulate(&cases) else {
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
    for source in SOURCES {
        let own = source
            .text
            .strip_prefix(include_str!("common.cuh"))
            .expect("the common part first");
        for kernel in kernels(own) {
            for held in [DType::F32, DType::F16, DType::BF16] {
                let name = in_namespace(&kernel, held);
                // Sums of runs are of f32, whatever the rows are held in, and products make f32 or bf16.
                let of_product = kernel == "add_bias" || kernel.starts_with("bias_");
                let never = kernel == "sum_runs" || (of_product && held == DType::F16);
                let known = held == DType::F32 || is_held(own) && !never;
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
    let op = |heads| Attention {
        heads,
        fold: 1,
        scale: Real::new(1.0),
        dropout: None,
    };
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
