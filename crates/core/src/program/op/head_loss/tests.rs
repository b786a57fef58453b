use super::super::super::autodiff::differentiate;
use super::super::super::graph::Class;
use super::super::fixtures::{eval, floats, ids, interpret, narrow, random, scalar, ty};
use super::super::{Machine, Op, Tensor};
use super::fixtures::with_gradient;
use super::*;

/// Loss, sums, rows, and both gradients, from all logits at once.
struct Reference {
    loss: f64,
    lse: Vec<f64>,
    rows: Vec<f64>,
    dx: Vec<f64>,
    dhead: Vec<f64>,
}

fn reference(op: &HeadLoss, inputs: &[Tensor], up: f64) -> Reference {
    let (x, head) = (floats(&inputs[0]), floats(&inputs[1]));
    let targets = inputs[2].slice::<u32>().expect("targets");
    let scale = f64::from(inputs[3].slice::<f32>().expect("a scale")[0]);
    let (d, alpha) = (inputs[0].dims[1], op.alpha.get());
    let mut own = Reference {
        loss: 0.0,
        lse: vec![],
        rows: vec![],
        dx: vec![0.0; x.len()],
        dhead: vec![0.0; head.len()],
    };
    for (r, (x, &target)) in x.chunks(d).zip(targets).enumerate() {
        let raw = head
            .chunks(d)
            .map(|h| alpha * h.iter().zip(x).map(|(a, b)| a * b).sum::<f64>());
        let raw: Vec<f64> = raw.collect();
        let cap = |z: f64| op.softcap.map_or(z, |c| c.get() * (z / c.get()).tanh());
        let logits: Vec<f64> = raw.iter().map(|&z| cap(z)).collect();
        let lse = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        let loss = lse - logits[target as usize];
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        own.loss += scale * loss;
        own.lse.push(lse);
        own.rows.extend([loss, best.expect("a token") as f64]);
        for (v, h) in head.chunks(d).enumerate() {
            let hit = if v == target as usize { 1.0 } else { 0.0 };
            let slope = op
                .softcap
                .map_or(1.0, |c| 1.0 - (logits[v] / c.get()).powi(2));
            let dz = up * scale * ((logits[v] - lse).exp() - hit) * slope * alpha;
            for i in 0..d {
                own.dx[r * d + i] += dz * h[i];
                own.dhead[v * d + i] += dz * x[i];
            }
        }
    }
    own
}

fn near(what: &str, made: &Tensor, want: &[f64]) {
    let made = floats(made);
    assert_eq!(made.len(), want.len(), "{what}");
    for (i, (a, b)) in made.iter().zip(want).enumerate() {
        assert!(
            (a - b).abs() < 1e-9 * (1.0 + b.abs()),
            "{what} [{i}]: {a} for {b}"
        );
    }
}

/// The bits of floats; those of one sign of zero are those of the other.
fn bits(t: &Tensor) -> Vec<u64> {
    floats(t).iter().map(|x| (x + 0.0).to_bits()).collect()
}

fn back(of: &HeadLoss, (input, head): (bool, bool), inputs: &[Tensor]) -> Vec<Tensor> {
    let of = of.clone();
    let operands = super::super::head_loss_grad::operands(&of, inputs);
    eval(&HeadLossGrad { of, input, head }.into(), &operands, 2)
}

#[test]
fn pieces_of_rows_and_of_the_vocabulary_give_what_all_logits_give() {
    for op in kinds() {
        for (rows, d, vocabulary) in [(5, 3, 5000), (2100, 2, 7), (3, 4, 2048), (1, 1, 1)] {
            let inputs = operands(rows, d, vocabulary);
            let want = reference(&op, &inputs, 0.7);
            let made = eval(&op.clone().into(), &inputs, 2);
            near("loss", &made[0], &[want.loss]);
            near("lse", &made[1], &want.lse);
            near("rows", &made[2], &want.rows);
            let made = back(&op, (true, true), &inputs);
            near("dx", &made[0], &want.dx);
            near("dhead", &made[1], &want.dhead);
            let alone = [(true, false), (false, true)].map(|w| back(&op, w, &inputs)[0].clone());
            for (alone, both) in alone.iter().zip(&made) {
                assert_eq!(bits(alone), bits(both), "one gradient alone");
            }
            let plain = eval(&op.clone().into(), &inputs, 2);
            let [of_loss, of_rows] = with_gradient(&op).map(|op| eval(&op.into(), &inputs, 2));
            for own in [&of_loss, &of_rows] {
                for (own, plain) in own.iter().zip(&plain) {
                    assert_eq!(bits(own), bits(plain), "a loss beside its gradient");
                }
            }
            let times = |factor: f64| want.dx.iter().map(|x| x * factor).collect::<Vec<f64>>();
            near("dx of the loss", &of_loss[3], &times(1.0 / 0.7));
            near("dx of the rows", &of_rows[3], &times(1.0 / 0.7 / 0.125));
        }
    }
}

/// What a loss over a head gives its states for a gradient, and the kinds of its ops.
fn through_rule(head: Class, of_rows: bool, factor: f64) -> (Tensor, Vec<&'static str>) {
    let inputs = operands(5, 3, 2500);
    let mut b = Builder::new("rule");
    let classes = [Class::Trainable, head, Class::Frozen, Class::Frozen];
    let values: Vec<Value> = (inputs.iter().zip(classes).enumerate())
        .map(|(i, (t, class))| b.resident(&format!("x{i}"), ty(t), class))
        .collect();
    let factor = Real::new(factor);
    let made = b.push(HeadLoss::plain(Real::new(0.7)), &values);
    let dtype = DType::F64;
    let times = b.push1(
        Constant {
            value: factor,
            dtype,
        },
        &[],
    );
    let broadcast = Broadcast::Scalar;
    let kind = BinaryKind::Mul;
    let mul = Elementwise { kind, broadcast };
    let loss = match of_rows {
        false if factor.get() == 1.0 => made[0],
        false => b.push1(mul, &[made[0], times]),
        true => {
            let (from, to, groups) = (0, 1, 1);
            let own = b.push1(Columns { from, to, groups }, &[made[2]]);
            let each = Elementwise {
                kind,
                broadcast: Broadcast::Full,
            };
            let squares = b.push1(each, &[own, own]);
            let over = super::super::Over::All;
            let kind = super::super::ReduceKind::Sum;
            b.push1(super::super::Reduce { over, kind }, &[squares])
        }
    };
    let grads = differentiate(&mut b, loss, &[values[0]]);
    let program = b.finish();
    super::super::super::verify(program.clone()).expect("a sound program");
    let slots = interpret(&program, &inputs);
    let own = slots[grads[0].expect("a gradient").index()].clone();
    let names = program.nodes.iter().map(|node| node.op.name());
    (own.expect("made"), names.collect())
}

#[test]
fn under_a_frozen_head_the_loss_makes_the_gradient_by_its_states() {
    for (of_rows, factor) in [(false, 1.0), (false, 0.3), (true, 1.0)] {
        let (own, names) = through_rule(Class::Frozen, of_rows, factor);
        assert!(!names.contains(&"head_loss_grad"), "{names:?}");
        let (want, names) = through_rule(Class::Trainable, of_rows, factor);
        assert!(names.contains(&"head_loss_grad"), "{names:?}");
        near("dx", &own, &floats(&want));
        if factor == 1.0 && !of_rows {
            let (_, names) = through_rule(Class::Frozen, of_rows, factor);
            assert_eq!(names, ["head_loss", "constant", "constant"]);
        }
    }
}

/// The target's slope is nearly nothing: what its weight would lose in bf16 is all there is of the gradient.
#[test]
fn a_gradient_at_a_token_that_is_all_but_certain_keeps_its_places_in_bf16() {
    let rounded = |t: &Tensor| narrow(t).cast(DType::BF16).cast(DType::F32);
    let wide = |t: &Tensor| Tensor::new(floats(t), &t.dims);
    let head = rounded(&random(2, &[40, 6]));
    let rows: Vec<Vec<f64>> = floats(&head).chunks(6).map(<[f64]>::to_vec).collect();
    let size = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
    let best = (0..40).max_by(|&a, &b| size(&rows[a]).total_cmp(&size(&rows[b])));
    let best = best.expect("a token");
    let states = Tensor::new(rows[best].clone(), &[1, 6]);
    let states = rounded(&states);
    let [of, _] = with_gradient(&HeadLoss::plain(Real::new(0.7)));
    let operands = [states, head, ids(&[best as u32]), scalar(1.0)];
    let mut exact = operands.clone();
    exact[..2].iter_mut().for_each(|t| *t = wide(t));
    let want = eval(&of.clone().into(), &exact, 1);
    let of = HeadLoss {
        precision: Precision::Bf16,
        ..of
    };
    let made = eval(&of.into(), &operands, 1);
    let loss = floats(&want[0])[0];
    assert!(loss > 1e-4 && loss < 0.1, "{loss}");
    let want = floats(&want[3]);
    let largest = want.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (a, b) in floats(&made[3]).iter().zip(want) {
        assert!((a - b).abs() < 0.01 * largest, "{a} for {b}");
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    for op in kinds() {
        let inputs: Vec<Tensor> = operands(7, 6, 5000).iter().map(narrow).collect();
        let (made, dx) = (
            eval(&op.clone().into(), &inputs, 2),
            back(&op, (true, false), &inputs),
        );
        let part = |t: &Tensor, row: usize| {
            let all = bits(t);
            let each = all.len() / 7;
            all[row * each..(row + 1) * each].to_vec()
        };
        for row in 0..7 {
            let x = inputs[0].slice::<f32>().expect("f32")[row * 6..(row + 1) * 6].to_vec();
            let target = inputs[2].slice::<u32>().expect("targets")[row];
            let alone = [
                Tensor::new(x, &[1, 6]),
                inputs[1].clone(),
                ids(&[target]),
                inputs[3].clone(),
            ];
            let own = eval(&op.clone().into(), &alone, 1);
            assert_eq!(bits(&own[1]), part(&made[1], row), "lse of {row}");
            assert_eq!(bits(&own[2]), part(&made[2], row), "results of {row}");
            let own = back(&op, (true, false), &alone);
            assert_eq!(bits(&own[0]), part(&dx[0], row), "gradient of {row}");
        }
    }
}

#[test]
fn a_head_in_bf16_is_read_as_its_widened_copy() {
    for op in kinds() {
        for precision in [Precision::F32, Precision::Bf16] {
            let op = HeadLoss {
                precision,
                ..op.clone()
            };
            let mut inputs: Vec<Tensor> = operands(5, 6, 2500).iter().map(narrow).collect();
            inputs[1] = inputs[1].cast(DType::BF16);
            let mut wide = inputs.clone();
            wide[1] = wide[1].cast(DType::F32);
            let both = [&inputs, &wide].map(|inputs| {
                let mut made = eval(&op.clone().into(), inputs, 2);
                made.extend(back(&op, (true, false), inputs));
                made.iter().flat_map(bits).collect::<Vec<u64>>()
            });
            assert_eq!(both[0], both[1], "{op:?}");
        }
    }
}

#[test]
fn a_bias_is_a_column_of_the_head_that_reads_ones() {
    let of = with_bias();
    let inputs = biased(operands(5, 3, 5000));
    let (x, head) = (floats(&inputs[0]), floats(&inputs[1]));
    let bias = floats(&inputs[4]);
    let wider = |rows: &[f64], own: &dyn Fn(usize) -> f64| -> Tensor {
        let each = rows.chunks(3).enumerate();
        let list: Vec<f64> = each
            .flat_map(|(i, row)| row.iter().copied().chain([own(i)]).collect::<Vec<f64>>())
            .collect();
        let count = list.len() / 4;
        Tensor::new(list, &[count, 4])
    };
    let plain = HeadLoss {
        bias: false,
        ..of.clone()
    };
    let others = [
        wider(&x, &|_| 1.0),
        wider(&head, &|i| bias[i] / of.alpha.get()),
        inputs[2].clone(),
        inputs[3].clone(),
    ];
    let want = reference(&plain, &others, 0.7);
    let made = eval(&of.clone().into(), &inputs, 2);
    near("loss", &made[0], &[want.loss]);
    near("lse", &made[1], &want.lse);
    near("rows", &made[2], &want.rows);
    let made = back(&of, (true, true), &inputs);
    let narrower = |rows: &[f64]| -> Vec<f64> {
        let each = rows.chunks(4);
        each.flat_map(|row| row[..3].to_vec()).collect()
    };
    near("dx", &made[0], &narrower(&want.dx));
    near("dhead", &made[1], &narrower(&want.dhead));
}

#[test]
fn ties_go_to_the_first_token_and_no_number_stays_none() {
    let [op, _] = kinds();
    let head = Tensor::new(vec![1.0_f32, 3.0, 3.0, 2.0], &[4, 1]);
    let states = |x: f32| Tensor::new(vec![x], &[1, 1]);
    let rows = |x: f32| {
        let inputs = [states(x), head.clone(), ids(&[1]), scalar(1.0)];
        floats(&eval(&op.clone().into(), &inputs, 1)[2])
    };
    assert_eq!(rows(1.0)[1], 1.0);
    assert_eq!(rows(-1.0)[1], 0.0);
    assert!(rows(f32::NAN).iter().all(|x| x.is_nan()));
}

#[test]
fn a_target_outside_the_vocabulary_is_an_error() {
    let [of, _] = kinds();
    let inputs = [
        random(1, &[2, 3]),
        random(2, &[5, 3]),
        ids(&[0, 5]),
        scalar(1.0),
    ];
    let good = [
        random(1, &[2, 3]),
        random(2, &[5, 3]),
        ids(&[0, 4]),
        scalar(1.0),
    ];
    let mut operands = super::super::head_loss_grad::operands(&of, &good);
    operands[3] = ids(&[0, 5]);
    let back = HeadLossGrad {
        of: of.clone(),
        input: true,
        head: true,
    };
    let run = |op: Op, inputs: &[Tensor]| {
        let types: Vec<TensorType> = inputs.iter().map(ty).collect();
        let outs = op
            .rule()
            .infer(&types.iter().collect::<Vec<_>>())
            .expect("well typed");
        let mut outs: Vec<Tensor> = outs
            .iter()
            .map(|t| Tensor::zeros(t.dtype, &t.dims(&Default::default())))
            .collect();
        let mut io = Io {
            inputs: inputs.iter().map(|t| Some(t.view())).collect(),
            updates: vec![],
            outputs: outs.iter_mut().map(Tensor::view_mut).collect(),
            taken: None,
        };
        op.rule().eval(&Kernel::new(&Machine::cpu(1)), &mut io)
    };
    for made in [run(of.into(), &inputs), run(back.into(), &operands)] {
        assert!(matches!(made, Err(OpError::Index { index: 5, rows: 5 })));
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let [op, _] = kinds();
    let inputs: Vec<TensorType> = operands(2, 3, 5)
        .iter()
        .map(narrow)
        .map(|t| ty(&t))
        .collect();
    let fits =
        |op: &HeadLoss, inputs: &[TensorType]| op.infer(&inputs.iter().collect::<Vec<_>>()).is_ok();
    assert!(fits(&op, &inputs));
    let with = |i: usize, dtype: DType, dims: &[u64]| {
        let mut own = inputs.clone();
        own[i] = TensorType::fixed(dtype, dims);
        fits(&op, &own)
    };
    assert!(with(1, DType::BF16, &[5, 3]));
    assert!(!with(1, DType::F16, &[5, 3]) && !with(1, DType::F32, &[5, 4]));
    assert!(!with(1, DType::F32, &[0, 3]) && !with(1, DType::F32, &[LARGEST + 1, 3]));
    assert!(!with(2, DType::U32, &[3]) && !with(3, DType::F32, &[2]));
    let bias = |dims: &[u64]| [&inputs[..], &[TensorType::fixed(DType::F32, dims)]].concat();
    assert!(fits(&with_bias(), &bias(&[5])) && !fits(&with_bias(), &bias(&[4])));
    assert!(!fits(&op, &bias(&[5])) && !fits(&with_bias(), &inputs));
    let softcap = Some(Real::new(0.0));
    assert!(!fits(
        &HeadLoss {
            softcap,
            ..op.clone()
        },
        &inputs
    ));
    let mut operands = vec![TensorType::scalar(DType::F32)];
    operands.extend(inputs);
    operands.push(TensorType::fixed(DType::F32, &[2]));
    let wanted = |input: bool, head: bool, operands: &[TensorType]| {
        let of = op.clone();
        let grad = HeadLossGrad { of, input, head };
        grad.infer(&operands.iter().collect::<Vec<_>>())
            .map(|outs| outs.len())
    };
    assert_eq!(wanted(true, true, &operands), Ok(2));
    assert_eq!(wanted(true, false, &operands), Ok(1));
    assert!(wanted(false, false, &operands).is_err());
    operands[2] = TensorType::fixed(DType::BF16, &[5, 3]);
    assert_eq!(wanted(true, false, &operands), Ok(1));
    assert!(wanted(false, true, &operands).is_err());
}
