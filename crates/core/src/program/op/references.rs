//! The ops of decoders against transformers and PyTorch (`tests/reference/decoder_ops.json`).

use serde_json::Value;

use super::fixtures::{eval, floats, ids, scalar};
use super::*;
use crate::program::DType;
use crate::program::types::Real;

fn reference(op: &str) -> (Value, Vec<Value>) {
    let all = include_str!("../../../../../tests/reference/decoder_ops.json");
    let mut all: Value = serde_json::from_str(all).expect("it is JSON");
    let list = all[op].take();
    (all, list.as_array().expect("a list").clone())
}

fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().expect("a list").iter();
    list.map(|x| x.as_f64().expect("a number")).collect()
}

/// Numbers of a case in f32, or f64, in so many rows.
fn tensor(list: &Value, rows: usize, dtype: DType) -> Tensor {
    let all = numbers(list);
    let dims = [rows, all.len() / rows];
    match dtype {
        DType::F64 => Tensor::new(all, &dims),
        _ => Tensor::new(all.iter().map(|&x| x as f32).collect::<Vec<f32>>(), &dims),
    }
}

fn vector(list: &Value) -> Tensor {
    let mut own = tensor(list, 1, DType::F32);
    own.dims.remove(0);
    own
}

fn near(case: &Value, what: &str, made: &Tensor, within: f64) {
    let (made, want) = (floats(made), numbers(&case[what]));
    assert_eq!(made.len(), want.len());
    for (i, (a, b)) in made.iter().zip(&want).enumerate() {
        let is_near = (a - b).abs() <= within * (1.0 + b.abs());
        assert!(is_near, "{} {what} [{i}]: {a} for {b}", case["name"]);
    }
}

#[test]
fn rotations_are_those_of_transformers() {
    let (all, cases) = reference("rotary");
    let positions: Vec<u32> = numbers(&all["positions"])
        .iter()
        .map(|&p| p as u32)
        .collect();
    let rows = positions.len();
    for case in &cases {
        let op = Rotary {
            width: case["width"].as_u64().expect("a width") as u32,
            frequencies: Frequencies::new(numbers(&case["frequencies"])),
            beyond: None,
            scale: Real::new(case["scale"].as_f64().expect("a scale")),
            interleaved: case["interleaved"] == true,
            inverse: false,
        };
        let x = tensor(&case["x"], rows, DType::F32);
        let made = eval(&op.into(), &[x, ids(&positions)], 1);
        near(case, "y", &made[0], 1e-6);
    }
    assert_eq!(cases.len(), 4);
}

#[test]
fn norms_are_those_of_transformers() {
    let (_, cases) = reference("rms_norm");
    for case in &cases {
        let eps = Real::new(1e-6);
        let plus_one = case["plus_one"] == true;
        let op = RmsNorm { eps, plus_one };
        let [x, up] = ["x", "up"].map(|name| tensor(&case[name], 5, DType::F32));
        let weight = vector(&case["weight"]);
        let width = weight.dims[0] as u64;
        let made = eval(&op.clone().into(), &[x.clone(), weight.clone()], 1);
        near(case, "y", &made[0], 1e-6);
        let made = eval(&RmsNormGrad(op).into(), &[up.clone(), x.clone(), weight], 1);
        near(case, "dx", &made[0], 2e-6);
        let made = eval(&RmsNormGradWeight { eps, width }.into(), &[up, x], 1);
        near(case, "dweight", &made[0], 2e-6);
    }
    assert_eq!(cases.len(), 3);
}

#[test]
fn gated_activations_are_those_of_pytorch() {
    let (_, cases) = reference("gated");
    for kind in ActivationKind::ALL {
        let name = format!("{kind:?}");
        let case = cases.iter().find(|case| case["name"] == name.as_str());
        let case = case.expect("a case a function");
        let [g, u, up] = ["g", "u", "up"].map(|name| tensor(&case[name], 3, DType::F32));
        let made = eval(&Gated { kind }.into(), &[g.clone(), u.clone()], 1);
        near(case, "y", &made[0], 2e-6);
        let made = eval(&GatedGrad { kind }.into(), &[up, g, u], 1);
        near(case, "dg", &made[0], 2e-6);
        near(case, "du", &made[1], 2e-6);
    }
}

#[test]
fn losses_of_a_head_are_those_of_pytorch() {
    let (_, cases) = reference("head_loss");
    for case in &cases {
        let of = HeadLoss {
            softcap: case["softcap"].as_f64().map(Real::new),
            ..HeadLoss::plain(Real::new(0.8))
        };
        let targets: Vec<u32> = numbers(&case["targets"])
            .iter()
            .map(|&t| t as u32)
            .collect();
        let rows = targets.len();
        let [x, head] =
            [("x", rows), ("head", 11)].map(|(n, rows)| tensor(&case[n], rows, DType::F64));
        let inputs = [x, head, ids(&targets), scalar(0.25)];
        let made = eval(&of.clone().into(), &inputs, 1);
        assert!((floats(&made[0])[0] - case["loss"].as_f64().expect("a loss")).abs() < 1e-12);
        near(case, "lse", &made[1], 1e-12);
        let (each, best) = (numbers(&case["each"]), numbers(&case["best"]));
        for (row, (each, best)) in floats(&made[2]).chunks(2).zip(each.iter().zip(best)) {
            assert!((row[0] - each).abs() < 1e-12 && row[1] == best, "{row:?}");
        }
        let up = Tensor::new(vec![1.0_f64], &[1]);
        let operands = [vec![up], inputs.to_vec(), vec![made[1].clone()]].concat();
        let own = HeadLossGrad {
            of: of.clone(),
            input: true,
            head: true,
        };
        let made = eval(&own.into(), &operands, 1);
        near(case, "dx", &made[0], 1e-12);
        near(case, "dhead", &made[1], 1e-12);
        let gradient = StatesGradient::Loss;
        let of = HeadLoss { gradient, ..of };
        near(case, "dx", &eval(&of.into(), &inputs, 1)[3], 1e-12);
    }
    assert_eq!(cases.len(), 2);
}
