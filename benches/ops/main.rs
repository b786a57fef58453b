//! Speed of the kernels that training spends its time in: medians of repeated applications at the
//! sizes of a BERT-base layer over 16 sequences of 26 tokens. Run with `cargo bench --bench ops`; one
//! argument filters by name, `THREADS` sets the pool's size.

mod decoder;
mod packing;

use std::time::Instant;

use peftc::program::format::NAMES;
use peftc::program::op::{
    Activation, ActivationGrad, ActivationKind, AdamW, Add, Attention, AttentionDropout,
    AttentionGrad, Cast, Dropout, Epilogue, GradNorm, Heads, Io, Kernel, LayerNorm, LayerNormGrad,
    LayerNormGradWeight, Machine, MatMul, Op, Precision, Scatter, Tensor, TensorMut,
};
use peftc::program::{Bindings, DType, Dim, Format, Real, TensorType};

const TOKENS: usize = 416;
const WIDTH: usize = 768;

/// What a figure is quoted in.
enum Unit {
    /// 10⁹ floating-point operations a second.
    Flops(u64),
    /// 10⁹ bytes read and written a second.
    Bytes,
}

fn floats(dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    Tensor::new(
        (0..n as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
            .collect::<Vec<f32>>(),
        dims,
    )
}

fn words(list: Vec<u32>) -> Tensor {
    let n = list.len();
    Tensor::new(list, &[n])
}

fn ty(t: &Tensor) -> TensorType {
    TensorType::new(t.dtype(), t.dims.iter().map(|&n| Dim::from(n as u64)))
}

#[expect(
    clippy::too_many_arguments,
    reason = "what one row of the table is measured of"
)]
fn measure(
    filter: &str,
    machine: &Machine,
    name: &str,
    op: impl Into<Op>,
    mut inputs: Vec<Tensor>,
    unit: &Unit,
) {
    if !name.contains(filter) {
        return;
    }
    let op = op.into();
    let types: Vec<TensorType> = inputs.iter().map(ty).collect();
    let outs = op
        .rule()
        .infer(&types.iter().collect::<Vec<_>>())
        .expect("a well-typed benchmark");
    let sizes = Bindings::default();
    let mut outputs: Vec<Tensor> = outs
        .iter()
        .map(|t| Tensor::zeros(t.dtype, &t.dims(&sizes)))
        .collect();
    let bytes: u64 = inputs
        .iter()
        .chain(&outputs)
        .map(Tensor::bytes)
        .sum::<u64>()
        + op.rule().updates().len() as u64 * inputs.first().map_or(0, Tensor::bytes);
    let mut times: Vec<f64> = Vec::new();
    let begin = Instant::now();
    while times.len() < 15 || (begin.elapsed().as_secs_f64() < 0.7 && times.len() < 400) {
        let mut reads = Vec::new();
        let mut updates: Vec<TensorMut<'_>> = Vec::new();
        for (i, t) in inputs.iter_mut().enumerate() {
            if op.rule().updates().contains(&i) {
                reads.push(None);
                updates.push(t.view_mut());
            } else {
                reads.push(Some(t.view()));
            }
        }
        let mut io = Io {
            inputs: reads,
            updates,
            outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
            taken: None,
        };
        let cx = Kernel::new(machine);
        let start = Instant::now();
        op.rule()
            .eval(&cx, &mut io)
            .expect("a benchmark's data is good");
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let (amount, unit) = match unit {
        Unit::Flops(n) => (*n, "GFLOP/s"),
        Unit::Bytes => (bytes, "GB/s"),
    };
    println!(
        "{name:<34} {:>9.1} µs {:>8.1} {unit}",
        median * 1e6,
        amount as f64 / median * 1e-9
    );
}

/// Runs an op under a name.
type Run<'a> = dyn Fn(&str, Op, Vec<Tensor>, Unit) + 'a;

fn all(filter: &str, machine: &Machine) {
    let run = |name: &str, op: Op, inputs: Vec<Tensor>, unit: Unit| {
        measure(filter, machine, name, op, inputs, &unit)
    };
    products(&run);
    layers(&run);
    decoder::all(&run);
    attention(&run);
    updates(&run);
}

/// Linear layers and LoRA.
#[expect(clippy::too_many_lines, reason = "the rows of one table")]
fn products(run: &Run<'_>) {
    let linear = |a_t, b_t, epilogue| {
        let product = MatMul::plain(a_t, b_t, Real::new(1.0));
        Op::from(MatMul {
            epilogue,
            ..product
        })
    };
    for n in [768_usize, 3072] {
        let flops = 2 * (TOKENS * WIDTH * n) as u64;
        run(
            &format!("linear {TOKENS}x768x{n}"),
            linear(false, true, Epilogue::Bias),
            vec![floats(&[TOKENS, WIDTH]), floats(&[n, WIDTH]), floats(&[n])],
            Unit::Flops(flops),
        );
        let product = MatMul::linear(Real::new(1.0), Epilogue::None);
        let op = Op::from(product.clone());
        run(
            &format!("bf16 linear {TOKENS}x768x{n}"),
            Op::from(MatMul {
                precision: Precision::Bf16,
                ..product
            }),
            vec![floats(&[TOKENS, WIDTH]), floats(&[n, WIDTH])],
            Unit::Flops(flops),
        );
        run(
            &format!("linear input gradient {n}"),
            linear(false, false, Epilogue::None),
            vec![floats(&[TOKENS, n]), floats(&[n, WIDTH])],
            Unit::Flops(flops),
        );
        // As a frozen weight is stored, where the product reads it so.
        let stored = NAMES.iter().filter_map(|name| Format::named(name));
        for format in stored.filter(|f| op.rule().reads(1, *f)) {
            let weight = || floats(&[n, WIDTH]).stored_as(format).expect("finite");
            run(
                &format!("{format} weight {TOKENS}x768x{n}"),
                linear(false, true, Epilogue::Bias),
                vec![floats(&[TOKENS, WIDTH]), weight(), floats(&[n])],
                Unit::Flops(flops),
            );
            run(
                &format!("{format} weight, input gradient {n}"),
                linear(false, false, Epilogue::None),
                vec![floats(&[TOKENS, n]), weight()],
                Unit::Flops(flops),
            );
        }
        run(
            &format!("linear weight gradient {n}"),
            linear(true, false, Epilogue::None),
            vec![floats(&[TOKENS, n]), floats(&[TOKENS, WIDTH])],
            Unit::Flops(flops),
        );
    }
    run(
        "lora down 768x8",
        linear(false, true, Epilogue::None),
        vec![floats(&[TOKENS, WIDTH]), floats(&[8, WIDTH])],
        Unit::Flops(2 * (TOKENS * WIDTH * 8) as u64),
    );
    run(
        "lora up 8x768",
        linear(false, true, Epilogue::Accumulate),
        vec![
            floats(&[TOKENS, 8]),
            floats(&[WIDTH, 8]),
            floats(&[TOKENS, WIDTH]),
        ],
        Unit::Flops(2 * (TOKENS * WIDTH * 8) as u64),
    );
    // Few rows, as a text is generated with.
    for name in ["q8_0", "q4_0", "q4_k", "nf4", "f32"] {
        let format = Format::named(name).expect("a format");
        let weight = floats(&[3072, WIDTH]);
        let weight = weight.stored_as(format).expect("finite");
        for rows in [1_usize, 4] {
            run(
                &format!("{format} weight {rows}x768x3072"),
                linear(false, true, Epilogue::None),
                vec![floats(&[rows, WIDTH]), weight.clone()],
                Unit::Bytes,
            );
        }
    }
}

/// Additions, activations and norms.
fn layers(run: &Run<'_>) {
    let (x, wide) = (|| floats(&[TOKENS, WIDTH]), || floats(&[TOKENS, 3072]));
    run("add 416x768", Add.into(), vec![x(), x()], Unit::Bytes);
    for (name, kind) in [
        ("gelu", ActivationKind::Gelu),
        ("gelu tanh", ActivationKind::GeluTanh),
        ("tanh", ActivationKind::Tanh),
        ("silu", ActivationKind::Silu),
        ("relu", ActivationKind::Relu),
    ] {
        run(
            &format!("{name} 416x3072"),
            Activation { kind }.into(),
            vec![wide()],
            Unit::Bytes,
        );
        run(
            &format!("{name} gradient"),
            ActivationGrad { kind }.into(),
            vec![wide(), wide()],
            Unit::Bytes,
        );
    }
    run(
        "layer norm 416x768",
        LayerNorm {
            eps: Real::new(1e-5),
        }
        .into(),
        vec![x(), floats(&[WIDTH]), floats(&[WIDTH])],
        Unit::Bytes,
    );
    let stats = || [floats(&[TOKENS]), floats(&[TOKENS])];
    run(
        "layer norm input gradient",
        LayerNormGrad.into(),
        [vec![x(), x()], stats().to_vec(), vec![floats(&[WIDTH])]].concat(),
        Unit::Bytes,
    );
    run(
        "layer norm weight gradient",
        LayerNormGradWeight.into(),
        [vec![x(), x()], stats().to_vec()].concat(),
        Unit::Bytes,
    );
}

/// Dropout and attention.
fn attention(run: &Run<'_>) {
    let x = || floats(&[TOKENS, WIDTH]);
    let keys = || {
        Tensor::new(
            (0..TOKENS as u32)
                .flat_map(|t| [t / 26, t % 26])
                .collect::<Vec<u32>>(),
            &[TOKENS, 2],
        )
    };
    run(
        "dropout 416x768",
        Dropout {
            p: Real::new(0.1),
            stream: [1, 2],
        }
        .into(),
        vec![x(), keys(), words(vec![3])],
        Unit::Bytes,
    );
    run(
        "dropout 416x3072",
        Dropout {
            p: Real::new(0.1),
            stream: [1, 2],
        }
        .into(),
        vec![floats(&[TOKENS, 3072]), keys(), words(vec![3])],
        Unit::Bytes,
    );
    for (what, dropout) in [
        ("", None),
        (
            " + dropout",
            Some(AttentionDropout {
                p: Real::new(0.1),
                stream: [1, 2],
            }),
        ),
    ] {
        for length in [26_usize, 208] {
            let offsets = words((0..=TOKENS / length).map(|s| (s * length) as u32).collect());
            let tail = || {
                if dropout.is_some() {
                    vec![offsets.clone(), keys(), words(vec![3])]
                } else {
                    vec![offsets.clone()]
                }
            };
            let pairs = (TOKENS * length * WIDTH) as u64;
            let forward = Attention {
                dropout: dropout.clone(),
                ..Attention::plain(Heads::each(12), Real::new(0.125))
            };
            run(
                &format!("attention {length}{what}"),
                forward.clone().into(),
                [vec![x(), x(), x()], tail()].concat(),
                Unit::Flops(4 * pairs),
            );
            let lse = Tensor::new(vec![5.0_f32; TOKENS * 12], &[TOKENS, 12]);
            let backward = AttentionGrad(forward.clone());
            run(
                &format!("attention gradient {length}{what}"),
                backward.into(),
                [vec![x(), x(), x(), x(), x(), lse], tail()].concat(),
                Unit::Flops(10 * pairs),
            );
        }
    }
}

/// What is done once a step, and rows of tables.
fn updates(run: &Run<'_>) {
    let one = |x: f32| Tensor::new(vec![x], &[1]);
    let x = || floats(&[TOKENS, WIDTH]);
    let big = || floats(&[7_000_000]);
    let adam = AdamW {
        beta1: Real::new(0.9),
        beta2: Real::new(0.999),
        eps: Real::new(1e-8),
        weight_decay: Real::new(0.01),
        since: 0,
    };
    let second = Tensor::new(vec![0.5_f32; 7_000_000], &[7_000_000]);
    run(
        "adamw 7M",
        adam.into(),
        vec![
            big(),
            big(),
            big(),
            second,
            one(1e-4),
            words(vec![3]),
            one(1.0),
        ],
        Unit::Bytes,
    );
    run("grad norm 7M", GradNorm.into(), vec![big()], Unit::Bytes);
    run(
        "scatter into 30k x 768",
        Scatter {
            rows: Dim::from(30_522),
        }
        .into(),
        vec![
            words((0..TOKENS as u32).map(|i| i * 7 % 900).collect()),
            x(),
        ],
        Unit::Bytes,
    );
    let half = |to: DType| Tensor::zeros(to, &[3072, WIDTH]);
    run(
        "widen bf16 3072x768",
        Cast { to: DType::F32 }.into(),
        vec![half(DType::BF16)],
        Unit::Bytes,
    );
    run(
        "widen f16 3072x768",
        Cast { to: DType::F32 }.into(),
        vec![half(DType::F16)],
        Unit::Bytes,
    );
}

fn main() {
    let filter = std::env::args()
        .skip(1)
        .find(|a| !a.starts_with('-'))
        .unwrap_or_default();
    let threads = std::env::var("THREADS")
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(2);
    let machine = Machine::cpu(threads);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a thread pool");
    println!("{threads} threads");
    pool.install(|| all(&filter, &machine));
    packing::packing(&filter);
}
