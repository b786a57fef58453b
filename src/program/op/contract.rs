//! Laws over the op table: every op has a sample; shapes are as inferred; gradients equal central
//! differences in f64; f32 agrees with f64; bits do not depend on threads; buffers taken over give
//! the same result.

use super::super::builder::Builder;
use super::super::graph::{Class, Def, Program, Value};
use super::super::types::{Bindings, DType, Dim, Real, TensorType};
use super::matmul::Precision;
use super::*;
use crate::base::rng::Stream;

const MACHINE: Machine = Machine::cpu(2);

pub(super) fn random(seed: u64, dims: &[usize]) -> Tensor {
    let n = dims.iter().product::<usize>() as u64;
    let stream = Stream::new(seed, "sample");
    Tensor::new((0..n).map(|i| stream.normal(i)).collect::<Vec<f64>>(), dims)
}

pub(super) fn ids(list: &[u32]) -> Tensor {
    Tensor::new(list.to_vec(), &[list.len()])
}

pub(super) fn keys(rows: usize) -> Tensor {
    Tensor::new(
        (0..rows as u32)
            .flat_map(|i| [i / 3, i % 3])
            .collect::<Vec<u32>>(),
        &[rows, 2],
    )
}

pub(super) fn scalar(x: f32) -> Tensor {
    Tensor::new(vec![x], &[1])
}

/// One or more samples of every op.
pub(super) fn samples() -> Vec<(Op, Vec<Tensor>)> {
    let r = Real::new;
    let mut list: Vec<(Op, Vec<Tensor>)> = Vec::new();
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
            list.push((
                MatMul {
                    a_t,
                    b_t,
                    alpha: r(0.7),
                    epilogue,
                    detached: false,
                    precision: Precision::F32,
                }
                .into(),
                inputs,
            ));
        }
    }
    let x = || random(4, &[6, 5]);
    list.push((Add.into(), vec![x(), random(5, &[6, 5])]));
    list.push((MulRows.into(), vec![x(), random(6, &[5])]));
    list.push((SumRows.into(), vec![random(7, &[150, 5])]));
    list.push((
        SumRowsProduct.into(),
        vec![random(7, &[150, 5]), random(8, &[150, 5])],
    ));
    list.push((
        Gather { out: DType::F64 }.into(),
        vec![x(), ids(&[3, 0, 3, 5])],
    ));
    list.push((
        Gather { out: DType::F64 }.into(),
        vec![random(40, &[6]), ids(&[3, 0, 3, 5])],
    ));
    list.push((
        Scatter { rows: Dim::from(7) }.into(),
        vec![ids(&[6, 0, 6]), random(41, &[3])],
    ));
    list.push((
        Indices {
            list: vec![4, 0, 4],
        }
        .into(),
        vec![],
    ));
    list.push((
        Scatter {
            rows: Dim::from(300),
        }
        .into(),
        vec![ids(&[299, 0, 7, 299]), random(9, &[4, 5])],
    ));
    let norm = vec![random(10, &[6, 37]), random(11, &[37]), random(12, &[37])];
    list.push((LayerNorm { eps: r(1e-5) }.into(), norm));
    list.push((
        LayerNormGrad.into(),
        vec![
            x(),
            random(13, &[6, 5]),
            random(14, &[6]),
            random(15, &[6]),
            random(16, &[5]),
        ],
    ));
    list.push((
        LayerNormGradWeight.into(),
        vec![x(), random(13, &[6, 5]), random(14, &[6]), random(15, &[6])],
    ));
    for kind in ActivationKind::ALL {
        list.push((Activation { kind }.into(), vec![x()]));
        list.push((
            ActivationGrad { kind }.into(),
            vec![x(), random(17, &[6, 5])],
        ));
    }
    list.push((
        Dropout {
            p: r(0.3),
            stream: [1, 2],
        }
        .into(),
        vec![random(18, &[6, 300]), keys(6), ids(&[4])],
    ));
    for dropout in [
        None,
        Some(AttentionDropout {
            p: r(0.25),
            stream: [3, 4],
        }),
    ] {
        let qkv = || {
            [
                random(19, &[9, 8]),
                random(20, &[9, 8]),
                random(21, &[9, 8]),
            ]
        };
        let mut tail = vec![ids(&[0, 4, 5, 9])];
        if dropout.is_some() {
            tail.extend([keys(9), ids(&[2])]);
        }
        let forward = Attention {
            heads: 2,
            fold: 1,
            scale: r(0.5),
            dropout: dropout.clone(),
        };
        list.push((
            forward.clone().into(),
            qkv().into_iter().chain(tail.clone()).collect(),
        ));
        let made = eval(
            &forward.into(),
            &qkv().into_iter().chain(tail.clone()).collect::<Vec<_>>(),
            1,
        );
        let mut inputs = vec![random(22, &[9, 8])];
        inputs.extend(qkv());
        inputs.extend(made);
        inputs.extend(tail);
        list.push((
            AttentionGrad {
                heads: 2,
                fold: 1,
                scale: r(0.5),
                dropout,
            }
            .into(),
            inputs,
        ));
    }
    // Two keys a token, and sequences longer than the tiles of queries.
    for (fold, lengths) in [(2_usize, vec![4, 1, 4]), (1, vec![150, 3]), (3, vec![70])] {
        let tokens: usize = lengths.iter().sum();
        let mut offsets = vec![0_u32];
        for n in lengths {
            offsets.push(offsets[offsets.len() - 1] + n as u32);
        }
        let inputs = vec![
            random(30, &[tokens, 4]),
            random(31, &[fold * tokens, 4]),
            random(32, &[fold * tokens, 4]),
            ids(&offsets),
        ];
        let forward = Attention {
            heads: 2,
            fold: fold as u32,
            scale: r(0.5),
            dropout: None,
        };
        let made = eval(&forward.clone().into(), &inputs, 1);
        let mut backward = vec![random(33, &[tokens, 4])];
        backward.extend(inputs[..3].to_vec());
        backward.extend(made);
        backward.push(inputs[3].clone());
        list.push((forward.into(), inputs));
        list.push((
            AttentionGrad {
                heads: 2,
                fold: fold as u32,
                scale: r(0.5),
                dropout: None,
            }
            .into(),
            backward,
        ));
    }
    let mixed = || vec![x(), random(34, &[6, 5]), random(35, &[1])];
    list.push((
        Mix {
            temperature: r(0.7),
        }
        .into(),
        mixed(),
    ));
    list.push((
        MixGrad {
            temperature: r(0.7),
        }
        .into(),
        [vec![random(36, &[6, 5])], mixed()].concat(),
    ));
    let slots = vec![None, Some(1), Some(0), Some(1)];
    list.push((
        Window {
            slots: slots.clone(),
        }
        .into(),
        vec![random(37, &[4, 5]), x(), random(38, &[6, 5])],
    ));
    list.push((
        WindowGrad { slots, features: 2 }.into(),
        vec![random(39, &[280, 5])],
    ));
    let classes = || vec![random(23, &[4, 3]), ids(&[2, 0, 1, 1]), scalar(0.25)];
    list.push((CrossEntropy.into(), classes()));
    list.push((
        CrossEntropyGrad.into(),
        [classes(), vec![random(24, &[1])]].concat(),
    ));
    let numbers = || {
        vec![
            random(25, &[4, 1]),
            Tensor::new(vec![0.5_f32, -1.0, 2.0, 0.0], &[4]),
            scalar(0.25),
        ]
    };
    list.push((SquaredError.into(), numbers()));
    list.push((
        SquaredErrorGrad.into(),
        [numbers(), vec![random(26, &[1])]].concat(),
    ));
    list.push((
        Constant {
            value: r(2.0),
            dtype: DType::F64,
        }
        .into(),
        vec![],
    ));
    list.push((Accumulate.into(), vec![x(), random(27, &[6, 5])]));
    list.push((SquareAccumulate.into(), vec![x(), random(43, &[6, 5])]));
    let by = Tensor::new(vec![0.5_f32, 0.25, 0.1], &[3]);
    list.push((
        Perturb {
            stream: [5, 6],
            weight_decay: r(0.01),
        }
        .into(),
        vec![random(42, &[20_001]), by, ids(&[3, 1])],
    ));
    list.push((Fill { value: r(3.0) }.into(), vec![x()]));
    let single = |t: Tensor| narrow(&t);
    list.push((
        GradNorm.into(),
        vec![single(x()), single(random(28, &[20_000]))],
    ));
    list.push((ClipFactor { max: r(1.0) }.into(), vec![scalar(3.0)]));
    list.push((Cast { to: DType::F16 }.into(), vec![single(x())]));
    let adam = AdamW {
        beta1: r(0.9),
        beta2: r(0.999),
        eps: r(1e-8),
        weight_decay: r(0.01),
    };
    let positive = Tensor::new(vec![0.5_f32; 30], &[6, 5]);
    list.push((
        adam.into(),
        vec![
            single(x()),
            single(x()),
            single(x()),
            positive,
            scalar(0.1),
            ids(&[3]),
            scalar(0.5),
        ],
    ));
    list.push((
        Sgd {
            momentum: r(0.0),
            weight_decay: r(0.1),
            nesterov: false,
        }
        .into(),
        vec![single(x()), single(x()), scalar(0.1), scalar(1.0)],
    ));
    list.push((
        Sgd {
            momentum: r(0.9),
            weight_decay: r(0.1),
            nesterov: true,
        }
        .into(),
        vec![
            single(x()),
            single(x()),
            single(x()),
            scalar(0.1),
            scalar(1.0),
        ],
    ));
    list
}

pub(super) fn narrow(t: &Tensor) -> Tensor {
    match t.slice::<f64>() {
        Some(x) => Tensor::new(x.iter().map(|&x| x as f32).collect::<Vec<f32>>(), &t.dims),
        None => t.clone(),
    }
}

pub(super) fn ty(t: &Tensor) -> TensorType {
    TensorType::new(t.dtype(), t.dims.iter().map(|&n| Dim::from(n as u64)))
}

/// Outputs of an op (and then the updated inputs), from buffers filled with garbage.
pub(super) fn eval(op: &Op, inputs: &[Tensor], threads: usize) -> Vec<Tensor> {
    eval_taking(op, inputs, threads, None)
}

fn eval_taking(op: &Op, inputs: &[Tensor], threads: usize, taken: Option<usize>) -> Vec<Tensor> {
    let types: Vec<TensorType> = inputs.iter().map(ty).collect();
    let outs = op
        .rule()
        .infer(&types.iter().collect::<Vec<_>>())
        .unwrap_or_else(|e| panic!("{op:?}: {e}"));
    let mut outputs: Vec<Tensor> = outs
        .iter()
        .map(|t| Tensor::zeros(t.dtype, &t.dims(&Bindings::default())))
        .collect();
    for out in &mut outputs {
        if let Some(x) = out.slice_mut::<f64>() {
            x.fill(f64::NAN)
        } else if let Some(x) = out.slice_mut::<f32>() {
            x.fill(f32::NAN)
        }
    }
    if let Some(i) = taken {
        outputs[0] = inputs[i].clone();
    }
    let updates = op.rule().updates();
    let mut updated: Vec<Tensor> = updates.iter().map(|&i| inputs[i].clone()).collect();
    let machine = Machine::cpu(threads);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a pool");
    pool.install(|| {
        let mut io = Io {
            inputs: inputs
                .iter()
                .enumerate()
                .map(|(i, t)| (!updates.contains(&i) && taken != Some(i)).then(|| t.view()))
                .collect(),
            updates: updated.iter_mut().map(Tensor::view_mut).collect(),
            outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
            taken,
        };
        op.rule()
            .eval(&Kernel::new(&machine), &mut io)
            .unwrap_or_else(|e| panic!("{op:?}: {e}"));
    });
    outputs.extend(updated);
    outputs
}

pub(super) fn floats(t: &Tensor) -> Vec<f64> {
    match (t.slice::<f64>(), t.slice::<f32>()) {
        (Some(x), _) => x.to_vec(),
        (_, Some(x)) => x.iter().map(|&x| f64::from(x)).collect(),
        _ => Vec::new(),
    }
}

/// Runs a small program over given resident tensors.
fn interpret(program: &Program, residents: &[Tensor]) -> Vec<Option<Tensor>> {
    let mut slots: Vec<Option<Tensor>> = vec![None; program.values.len()];
    for (i, info) in program.values.iter().enumerate() {
        if let Def::Resident(r) = info.def {
            slots[i] = Some(residents[r as usize].clone());
        }
    }
    for node in &program.nodes {
        let inputs: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|v| slots[v.index()].clone().expect("defined"))
            .collect();
        for (&out, tensor) in node.outputs.iter().zip(eval(&node.op, &inputs, 1)) {
            slots[out.index()] = Some(tensor);
        }
    }
    slots
}

#[test]
fn every_op_has_a_sample() {
    let sampled: Vec<&str> = samples().iter().map(|(op, _)| op.name()).collect();
    assert!(NAMES.len() > 20);
    for name in NAMES {
        assert!(sampled.contains(name), "{name} has no sample");
    }
}

#[test]
fn gradients_equal_central_differences() {
    let mut checked = 0;
    for (op, inputs) in samples() {
        let wanted: Vec<bool> = (0..inputs.len())
            .map(|i| op.rule().differentiable(i) && inputs[i].dtype() == DType::F64)
            .collect();
        if !wanted.contains(&true) {
            continue;
        }
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
                needs: &wanted,
            },
        );
        let program = b.finish();
        let mut residents = inputs.clone();
        residents.push(up_tensor.clone());
        let slots = interpret(&program, &residents);
        let objective = |inputs: &[Tensor]| -> f64 {
            floats(&eval(&op, inputs, 1)[0])
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
                    let mut moved = inputs.clone();
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
    }
    assert!(checked > 1000, "{checked}");
}

fn ty_dims(ty: &TensorType) -> Vec<usize> {
    ty.dims(&Bindings::default())
}

#[test]
fn single_precision_agrees_with_double() {
    for (op, inputs) in samples().into_iter().filter(|(op, inputs)| {
        inputs.iter().any(|t| t.dtype() == DType::F64)
            && !matches!(op, Op::Gather(_) | Op::Constant(_))
    }) {
        let narrow: Vec<Tensor> = inputs.iter().map(narrow).collect();
        for (wide, single) in eval(&op, &inputs, 1).iter().zip(eval(&op, &narrow, 1)) {
            for (a, b) in floats(wide).iter().zip(floats(&single)) {
                assert!(
                    (a - b).abs() <= 2e-5 * (1.0 + a.abs()),
                    "{op:?}: {a} against {b}"
                );
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let bits = |list: Vec<Tensor>| -> Vec<u64> {
        list.iter().flat_map(floats).map(f64::to_bits).collect()
    };
    let mut cases = samples();
    for (m, k, n) in [
        (416, 768, 64),
        (1, 300, 500),
        (300, 1, 2),
        (64, 64, 64),
        (257, 129, 383),
        (40, 2048, 33),
    ] {
        for (a_t, b_t) in [(false, true), (false, false), (true, false)] {
            let a = narrow(&random(1, &if a_t { [k, m] } else { [m, k] }));
            let b = narrow(&random(2, &if b_t { [n, k] } else { [k, n] }));
            cases.push((MatMul::plain(a_t, b_t, Real::new(1.0)).into(), vec![a, b]));
        }
    }
    cases.push((SumRows.into(), vec![narrow(&random(3, &[1000, 77]))]));
    let big = |seed| narrow(&random(seed, &[300, 128]));
    cases.push((
        LayerNorm {
            eps: Real::new(1e-5),
        }
        .into(),
        vec![
            big(4),
            narrow(&random(5, &[128])),
            narrow(&random(6, &[128])),
        ],
    ));
    for (op, inputs) in cases {
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
fn a_buffer_taken_over_gives_the_same_result() {
    let mut checked = 0;
    for (op, inputs) in samples() {
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

#[test]
fn dropout_keeps_the_rate_and_does_not_depend_on_packing() {
    let op: Op = Dropout {
        p: Real::new(0.3),
        stream: [5, 6],
    }
    .into();
    let x = Tensor::new(vec![1.0_f32; 40 * 300], &[40, 300]);
    let y = eval(&op, &[x.clone(), keys(40), ids(&[1])], 1);
    let zeros = floats(&y[0]).iter().filter(|x| **x == 0.0).count() as f64 / 12_000.0;
    assert!((zeros - 0.3).abs() < 0.02, "{zeros}");
    let mut reversed: Vec<[u32; 2]> = (0..40_u32).map(|i| [i / 3, i % 3]).collect();
    reversed.reverse();
    let reversed = Tensor::new(reversed.concat(), &[40, 2]);
    let z = eval(&op, &[x.clone(), reversed, ids(&[1])], 1);
    let rows: Vec<Vec<f64>> = floats(&y[0]).chunks(300).map(<[f64]>::to_vec).collect();
    let back: Vec<Vec<f64>> = floats(&z[0])
        .chunks(300)
        .rev()
        .map(<[f64]>::to_vec)
        .collect();
    assert_eq!(rows, back);
    assert_ne!(
        floats(&y[0]),
        floats(&eval(&op, &[x, keys(40), ids(&[2])], 1)[0]),
        "steps differ"
    );
}

#[test]
fn attention_does_not_depend_on_grouping_and_equals_the_plain_formula() {
    let (q, k, v) = (random(1, &[7, 6]), random(2, &[7, 6]), random(3, &[7, 6]));
    let op: Op = Attention {
        heads: 2,
        fold: 1,
        scale: Real::new(0.6),
        dropout: None,
    }
    .into();
    let all = floats(&eval(&op, &[q.clone(), k.clone(), v.clone(), ids(&[0, 3, 7])], 1)[0]);
    let rows =
        |t: &Tensor, a: usize, b: usize| Tensor::new(floats(t)[a * 6..b * 6].to_vec(), &[b - a, 6]);
    let alone = floats(
        &eval(
            &op,
            &[rows(&q, 3, 7), rows(&k, 3, 7), rows(&v, 3, 7), ids(&[0, 4])],
            1,
        )[0],
    );
    assert_eq!(&all[18..], &alone[..]);
    let (q, k, v) = (floats(&q), floats(&k), floats(&v));
    for (i, h) in [(0, 0), (2, 1)] {
        let score = |j: usize| {
            (0..3)
                .map(|c| q[i * 6 + h * 3 + c] * k[j * 6 + h * 3 + c])
                .sum::<f64>()
                * 0.6
        };
        let sum: f64 = (0..3).map(|j| score(j).exp()).sum();
        let out: f64 = (0..3)
            .map(|j| score(j).exp() / sum * v[j * 6 + h * 3])
            .sum();
        assert!((out - all[i * 6 + h * 3]).abs() < 1e-12);
    }
}

#[test]
fn bad_indices_are_errors() {
    let gather: Op = Gather { out: DType::F32 }.into();
    let table = narrow(&random(1, &[3, 2]));
    let ids = ids(&[3]);
    let mut out = Tensor::zeros(DType::F32, &[1, 2]);
    let mut io = Io {
        inputs: vec![Some(table.view()), Some(ids.view())],
        updates: vec![],
        outputs: vec![out.view_mut()],
        taken: None,
    };
    assert!(matches!(
        gather.rule().eval(&Kernel::new(&MACHINE), &mut io),
        Err(OpError::Index { index: 3, rows: 3 })
    ));
}
