//! What every op is applied to.

use super::*;

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

pub(super) fn list(seed: u64, n: usize) -> Tensor {
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

/// Which inputs and outputs of an op may be activations.
fn activations(op: &Op, inputs: usize) -> Option<(Vec<usize>, Vec<usize>)> {
    let (reads, makes): (Vec<usize>, Vec<usize>) = match op {
        Op::Add(_) | Op::ActivationGrad(_) => (vec![0, 1], vec![0]),
        Op::Activation(_) | Op::LayerNorm(_) | Op::Dropout(_) | Op::MulRows(_) => {
            (vec![0], vec![0])
        }
        Op::Attention(_) => (vec![0, 1, 2], vec![0]),
        Op::AttentionGrad(_) => (vec![0, 1, 2, 3, 4], vec![0, 1, 2]),
        Op::LayerNormGrad(_) => (vec![0, 1], vec![0]),
        Op::LayerNormGradWeight(_) | Op::SumRowsProduct(_) => (vec![0, 1], vec![]),
        Op::SumRows(_) => (vec![0], vec![]),
        Op::Mix(_) => (vec![0, 1], vec![0]),
        Op::MixGrad(_) => (vec![0, 1, 2], vec![0, 1]),
        Op::Scatter(_) => (vec![1], vec![]),
        Op::Gather(_) => (vec![], vec![0]),
        Op::Window(_) => ((1..inputs).collect(), vec![0]),
        Op::WindowGrad(op) => (vec![0], (1..=op.features as usize).collect()),
        Op::MatMul(op) => match op.epilogue {
            Epilogue::Accumulate => (vec![0, 2], vec![0]),
            Epilogue::None | Epilogue::Bias => (vec![0], vec![0]),
        },
        _ => return None,
    };
    Some((reads, makes))
}

/// A case with activations held in 16 bits, all of them and some.
fn held(case: &Case) -> Vec<Case> {
    let single = |x: &Tensor| matches!(x.dtype(), DType::F32 | DType::U32);
    let found = activations(&case.op, case.inputs.len());
    let Some((reads, makes)) = found.filter(|_| case.taken.is_none() && !case.bad) else {
        return Vec::new();
    };
    if case.precision() == Precision::Tf32 || !reads.iter().all(|&i| single(&case.inputs[i])) {
        return Vec::new();
    }
    let elements = |t: &Tensor| t.dims.iter().product::<usize>();
    if matches!(case.op, Op::MatMul(_)) && case.inputs.iter().map(elements).max() > Some(5000) {
        return Vec::new();
    }
    let mut list = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        list.push(case.held(dtype, &reads, &makes));
    }
    // Beside operands in f32: what goes from f32 to 16 bits, and from there.
    list.push(case.held(DType::BF16, &reads, &[]));
    list.push(case.held(DType::F16, reads.get(..1).unwrap_or_default(), &makes));
    if matches!(case.op, Op::MatMul(_)) && case.inputs[1].dtype() == DType::F32 {
        list.push(case.held(DType::BF16, &[0, 1], &[]));
    }
    list
}

pub(super) fn cases() -> Vec<Case> {
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
                    for b in [&b, &b.cast(DType::BF16)] {
                        let inputs = [a.clone(), b.clone()].into_iter().chain(extra.clone());
                        all.push(Case::new(op.clone(), inputs.collect()));
                    }
                }
            }
        }
        for last in [Some(1), None] {
            let slots = vec![Some(1), None, Some(0), last];
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
    for kind in ActivationKind::ALL {
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
    let held = all.iter().flat_map(held).collect::<Vec<_>>();
    assert!(held.len() > 300, "{}", held.len());
    all.extend(held);
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
