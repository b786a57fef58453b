//! The kernels without a GPU: their sources compiled for the host, every op's launches run in an
//! emulation of a grid (`tests/cuda`), results compared with the CPU's.

use std::path::Path;
use std::process::Command;

use half::{bf16, f16};

use super::super::graph::Class;
use super::super::types::{Bindings, Real, TensorType};
use super::contract::{eval, ids, keys, narrow, random, samples, scalar, ty};
use super::launch::{Arg, Launch, Launches, Operand, SOURCES, without_launches};
use super::*;

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
}

impl Case {
    fn new(op: impl Into<Op>, inputs: Vec<Tensor>) -> Self {
        Self {
            op: op.into(),
            inputs,
            taken: None,
            bad: false,
            given: None,
        }
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
        let types: Vec<TensorType> = self.inputs.iter().map(ty).collect();
        self.op
            .rule()
            .infer(&types.iter().collect::<Vec<_>>())
            .unwrap_or_else(|e| panic!("{:?}: {e}", self.op))
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
        let (inputs, outputs) = (
            self.inputs.iter().map(ty).collect::<Vec<_>>(),
            self.outputs(),
        );
        let cx = SizedCx::new(
            &inputs.iter().collect::<Vec<_>>(),
            &outputs.iter().collect::<Vec<_>>(),
            &self.sizes(),
        );
        let found = self.op.rule().launches(&cx);
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
                    let name = format!("{}/{}", call.source, call.kernel);
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
                    let flags =
                        u32::from(p.a_t) | u32::from(p.b_t) << 1 | (p.precision as u32) << 2;
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

/// The kernels of a source: the names behind `__global__ void`, and those that its macros make.
fn kernels(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let identifier = |s: &str| -> String {
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let after = |mark: &'static str| text.split(mark).skip(1).map(identifier).collect::<Vec<_>>();
    for name in after("__global__ void ") {
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
        text.push_str(&format!("namespace of_{} {{\n{own}\n}}\n", source.name));
        table.extend(
            kernels(own)
                .iter()
                .map(|k| format!("KERNEL({}, {k})", source.name)),
        );
        text.push_str("#undef ATTENTION\n#undef ATTENTION_GRAD\n");
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

/// An op as a device runs it: f32 where a sample is of f64.
fn single(op: Op) -> Op {
    match op {
        Op::Gather(_) => Gather { out: DType::F32 }.into(),
        Op::Constant(c) => Constant {
            dtype: DType::F32,
            ..c
        }
        .into(),
        other => other,
    }
}

fn matrix(seed: u64, rows: usize, columns: usize) -> Tensor {
    narrow(&random(seed, &[rows, columns]))
}

/// The same, stored in bf16.
fn narrowed(x: &Tensor) -> Tensor {
    let wide = x.slice::<f32>().expect("f32");
    Tensor::new(wide.iter().map(|&x| bf16::from_f32(x)).collect(), &x.dims)
}

fn list(seed: u64, n: usize) -> Tensor {
    narrow(&random(seed, &[n]))
}

/// Forward and backward of attention over sequences of these lengths.
fn attention(
    heads: u32,
    head: usize,
    fold: u32,
    lengths: &[usize],
    dropout: Option<f64>,
) -> [Case; 2] {
    let (tokens, d): (usize, usize) = (lengths.iter().sum(), heads as usize * head);
    let mut offsets = vec![0_u32];
    offsets.extend(lengths.iter().scan(0, |end, &n| {
        *end += n as u32;
        Some(*end)
    }));
    let dropout = dropout.map(|p| AttentionDropout {
        p: Real::new(p),
        stream: [7, 9],
    });
    let mut tail = vec![ids(&offsets)];
    if dropout.is_some() {
        tail.extend([keys(tokens), ids(&[3])]);
    }
    let scale = Real::new(0.3);
    let (q, k, v) = (
        matrix(1, tokens, d),
        matrix(2, tokens * fold as usize, d),
        matrix(3, tokens * fold as usize, d),
    );
    let forward = Attention {
        heads,
        fold,
        scale,
        dropout: dropout.clone(),
    };
    let inputs: Vec<Tensor> = [q, k, v].into_iter().chain(tail.clone()).collect();
    let made = eval(&forward.clone().into(), &inputs, 1);
    let mut back = vec![matrix(4, tokens, d)];
    back.extend(inputs[..3].to_vec());
    back.extend(made);
    back.extend(tail);
    let backward = AttentionGrad {
        heads,
        fold,
        scale,
        dropout,
    };
    [Case::new(forward, inputs), Case::new(backward, back)]
}

fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = samples()
        .into_iter()
        .map(|(op, inputs)| Case::new(single(op), inputs.iter().map(narrow).collect()))
        .collect();
    let r = Real::new;
    for (heads, head, fold, lengths, dropout) in [
        (1, 64, 1, vec![1], None),
        (2, 64, 1, vec![70, 1, 65, 64], Some(0.2)),
        (3, 33, 2, vec![1, 35, 2], Some(0.1)),
        (1, 8, 3, vec![130], None),
        (2, 100, 1, vec![33, 32, 1], Some(0.5)),
        (1, 128, 2, vec![40], None),
        (1, 200, 1, vec![17, 1], Some(0.1)),
        (1, 256, 3, vec![9, 16], None),
    ] {
        all.extend(attention(heads, head, fold, &lengths, dropout));
    }
    for (rows, d) in [(1, 1), (3, 65), (65, 33), (130, 300), (2, 1025), (1, 768)] {
        let x = || matrix(10, rows, d);
        let norm = vec![x(), list(11, d), list(12, d)];
        let layer_norm: Op = LayerNorm { eps: r(1e-5) }.into();
        let made = eval(&layer_norm, &norm, 1);
        let (mean, rstd) = (made[1].clone(), made[2].clone());
        let up = || matrix(13, rows, d);
        all.push(Case::new(layer_norm, norm));
        let back = vec![up(), x(), mean.clone(), rstd.clone(), list(11, d)];
        all.push(Case::new(LayerNormGrad, back));
        all.push(Case::new(LayerNormGradWeight, vec![up(), x(), mean, rstd]));
        all.push(Case::new(SumRows, vec![x()]));
        all.push(Case::new(SumRowsProduct, vec![x(), up()]));
        all.push(Case::new(MulRows, vec![x(), list(14, d)]));
        let dropout = Dropout {
            p: r(0.1),
            stream: [5, 6],
        };
        all.push(Case::new(dropout, vec![x(), keys(rows), ids(&[11])]));
        let labels: Vec<u32> = (0..rows as u32).map(|i| i * 7 % d as u32).collect();
        let classes = || vec![x(), ids(&labels), scalar(0.125)];
        all.push(Case::new(CrossEntropy, classes()));
        all.push(Case::new(
            CrossEntropyGrad,
            [classes(), vec![list(24, 1)]].concat(),
        ));
        let picked: Vec<u32> = (0..77).map(|i| i * 5 % rows as u32).collect();
        all.push(Case::new(
            Gather { out: DType::F32 },
            vec![x(), ids(&picked)],
        ));
        all.push(Case::new(
            Scatter {
                rows: (rows as u64).into(),
            },
            vec![ids(&picked), matrix(15, 77, d)],
        ));
        let mixed = || vec![x(), up(), list(16, 1)];
        all.push(Case::new(
            Mix {
                temperature: r(0.7),
            },
            mixed(),
        ));
        let back = [vec![matrix(17, rows, d)], mixed()].concat();
        all.push(Case::new(
            MixGrad {
                temperature: r(0.7),
            },
            back,
        ));
        all.push(Case::new(
            GradNorm,
            vec![x(), list(18, 1), list(19, 20_000)],
        ));
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
            for epilogue in [Epilogue::None, Epilogue::Bias, Epilogue::Accumulate] {
                let extra = match epilogue {
                    Epilogue::None => None,
                    Epilogue::Bias => Some(list(22, d)),
                    Epilogue::Accumulate => Some(matrix(23, rows, d)),
                };
                for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
                    let op = MatMul {
                        precision,
                        epilogue,
                        ..MatMul::plain(a_t, b_t, r(1.5))
                    };
                    for b in [&b, &narrowed(&b)] {
                        let inputs = [a.clone(), b.clone()].into_iter().chain(extra.clone());
                        all.push(Case::new(op.clone(), inputs.collect()));
                    }
                }
            }
        }
        let slots = vec![Some(1), None, Some(0), Some(1)];
        all.push(Case::new(
            Window {
                slots: slots.clone(),
            },
            vec![matrix(25, 4, d), x(), up()],
        ));
        all.push(Case::new(
            WindowGrad { slots, features: 3 },
            vec![matrix(26, 4 * rows, d)],
        ));
    }
    let special = [
        0.0,
        -0.0,
        1.0,
        65_504.0,
        65_519.0,
        65_520.0,
        1e9,
        6e-8,
        2.9e-8,
        3.1e-8,
        6.1e-5,
        1e-40,
        -3.3e-5,
        f32::INFINITY,
    ];
    let values: Vec<f32> = special
        .into_iter()
        .chain((0..4000).map(|i| (i as f32 - 2000.0) * 1.7e-3))
        .collect();
    let x = Tensor::new(values.clone(), &[values.len()]);
    for to in [DType::F16, DType::BF16] {
        all.push(Case::new(Cast { to }, vec![x.clone()]));
        let narrow = eval(&Cast { to }.into(), std::slice::from_ref(&x), 1).remove(0);
        all.push(Case::new(Cast { to: DType::F32 }, vec![narrow.clone()]));
        let table = Tensor {
            dims: vec![values.len() / 2, 2],
            ..narrow
        };
        all.push(Case::new(
            Gather { out: DType::F32 },
            vec![table, ids(&[0, 5, 7, 1999])],
        ));
    }
    for kind in [
        ActivationKind::Gelu,
        ActivationKind::GeluTanh,
        ActivationKind::Relu,
        ActivationKind::Tanh,
        ActivationKind::Silu,
    ] {
        let wide: Vec<f32> = (0..3001)
            .map(|i| (i as f32 - 1500.0) * 0.01)
            .chain([f32::NAN, 1e30, -1e30])
            .collect();
        let x = Tensor::new(wide, &[3004]);
        all.push(Case::new(Activation { kind }, vec![x.clone()]));
        all.push(Case::new(ActivationGrad { kind }, vec![list(27, 3004), x]));
    }
    let many: Vec<u32> = (0..700).map(|i| i * i % 11).collect();
    all.push(Case::new(
        Scatter { rows: 12.into() },
        vec![ids(&many), matrix(32, 700, 5)],
    ));
    let by = |a, b, c| Tensor::new(vec![a, b, c], &[3]);
    for n in [1, 2, 3, 4, 5, 65_537] {
        let op = Perturb {
            stream: [n as u32, 77],
            weight_decay: r(0.01),
        };
        all.push(Case::new(
            op,
            vec![list(28, n), by(1e-3_f32, 2e-4, 1e-5), ids(&[9, 2])],
        ));
    }
    let adam = AdamW {
        beta1: r(0.9),
        beta2: r(0.98),
        eps: r(1e-6),
        weight_decay: r(0.1),
    };
    let positive = Tensor::new(
        (0..513).map(|i| i as f32 * 1e-3).collect::<Vec<_>>(),
        &[513],
    );
    let state = vec![
        list(29, 513),
        list(30, 513),
        list(31, 513),
        positive,
        scalar(1e-3),
        ids(&[1000]),
        scalar(0.9),
    ];
    all.push(Case::new(adam, state));
    // What dies may give its buffer away.
    let mut in_place = Vec::new();
    for case in &all {
        let outputs = case.outputs();
        for &i in case.op.rule().in_place() {
            if case
                .inputs
                .get(i)
                .is_some_and(|x| outputs.first() == Some(&ty(x)))
            {
                in_place.push(Case {
                    taken: Some(i),
                    ..Case::new(case.op.clone(), case.inputs.clone())
                });
            }
        }
    }
    assert!(in_place.len() > 40);
    all.extend(in_place);
    let bad = |case: Case| Case { bad: true, ..case };
    all.push(bad(Case::new(
        Gather { out: DType::F32 },
        vec![matrix(1, 3, 2), ids(&[0, 3])],
    )));
    all.push(bad(Case::new(
        Scatter { rows: 3.into() },
        vec![ids(&[0, 3]), matrix(1, 2, 2)],
    )));
    all.push(bad(Case::new(
        CrossEntropy,
        vec![matrix(1, 2, 3), ids(&[0, 3]), scalar(1.0)],
    )));
    for offsets in [[0, 5, 4], [1, 3, 4], [0, 3, 5], [0, 2, 3]] {
        for mut case in attention(1, 4, 1, &[3, 1], None) {
            let at = if case.inputs.len() == 4 { 3 } else { 6 };
            case.inputs[at] = ids(&offsets);
            all.push(bad(case));
        }
    }
    all
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
        let expected = eval(&case.op, &case.inputs, 2);
        let outputs = case.outputs().len();
        let updated = case.op.rule().updates();
        let places = (0..outputs).map(|i| match (i, case.taken) {
            (0, Some(taken)) => taken,
            _ => case.inputs.len() + i,
        });
        for (own, place) in expected.iter().zip(places.chain(updated.iter().copied())) {
            let want = bytes(own);
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
    let ops: Vec<AdamW> = all
        .iter()
        .map(|case| match &case.op {
            Op::AdamW(op) => op.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let sized = all.iter().map(|case| {
        let types: Vec<TensorType> = case.inputs.iter().map(ty).collect();
        SizedCx::new(&types.iter().collect::<Vec<_>>(), &[], &Bindings::default())
    });
    let list: Vec<(&AdamW, SizedCx)> = ops.iter().zip(sized).collect();
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
    for case in cases().into_iter().chain(updates()) {
        for launch in case.launches().list {
            if let Launch::Call(call) = launch {
                launched.push((call.source, call.kernel.to_owned()));
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
            assert!(
                launched.contains(&(source.name, kernel.clone())),
                "{}/{kernel} is never launched",
                source.name
            );
            names.push((source.name, kernel));
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
