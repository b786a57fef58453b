//! Methods and layers that need no op of their own: composed of general ones, differentiated, and compared with
//! their formulas and with central differences in f64.

use super::super::autodiff::differentiate;
use super::super::builder::Builder;
use super::super::graph::{Class, Value};
use super::super::types::{DType, Real};
use super::fixtures::{floats, interpret, random, random_positive, ty};
use super::*;

/// A composition under test: what is given, what is made of it, and the formula.
struct Composition {
    name: &'static str,
    given: Vec<Tensor>,
    build: fn(&mut Builder, &[Value]) -> Value,
    formula: fn(&[Vec<f64>]) -> Vec<f64>,
}

fn binary(b: &mut Builder, kind: BinaryKind, broadcast: Broadcast, x: [Value; 2]) -> Value {
    b.push1(Elementwise { kind, broadcast }, &x)
}

fn unary(b: &mut Builder, kind: UnaryKind, x: Value) -> Value {
    b.push1(Unary { kind }, &[x])
}

fn reduce(b: &mut Builder, kind: ReduceKind, over: Over, x: Value) -> Value {
    b.push1(Reduce { kind, over }, &[x])
}

fn number(b: &mut Builder, value: f64) -> Value {
    let value = Real::new(value);
    let dtype = DType::F64;
    b.push1(Constant { value, dtype }, &[])
}

/// `x Wᵀ`
fn linear(b: &mut Builder, x: Value, w: Value) -> Value {
    b.push1(MatMul::plain(false, true, Real::new(1.0)), &[x, w])
}

/// `B A`
fn product(b: &mut Builder, left: Value, right: Value) -> Value {
    b.push1(MatMul::plain(false, false, Real::new(1.0)), &[left, right])
}

/// `x / √(mean x² + ε) ⊙ w` on every row (Zhang and Sennrich 2019, arXiv 1910.07467).
fn rms_norm(b: &mut Builder, x: &[Value]) -> Value {
    let square = unary(b, UnaryKind::Square, x[0]);
    let mean = reduce(b, ReduceKind::Mean, Over::Columns, square);
    let eps = number(b, 0.1);
    let sum = binary(b, BinaryKind::Add, Broadcast::Scalar, [mean, eps]);
    let factor = unary(b, UnaryKind::Rsqrt, sum);
    let y = binary(b, BinaryKind::Mul, Broadcast::Column, [x[0], factor]);
    binary(b, BinaryKind::Mul, Broadcast::Row, [y, x[1]])
}

/// `x (m ⊙ (W + B A) / ‖W + B A‖)ᵀ` with a norm for each row (Liu et al. 2024, arXiv 2402.09353).
fn dora(b: &mut Builder, x: &[Value]) -> Value {
    let [input, w, left, right, magnitude] = x else {
        panic!("five are given");
    };
    let delta = product(b, *left, *right);
    let w = binary(b, BinaryKind::Add, Broadcast::Full, [*w, delta]);
    let squares = reduce(b, ReduceKind::SumOfSquares, Over::Columns, w);
    let norm = unary(b, UnaryKind::Sqrt, squares);
    let factor = binary(b, BinaryKind::Div, Broadcast::Full, [*magnitude, norm]);
    let w = binary(b, BinaryKind::Mul, Broadcast::Column, [w, factor]);
    linear(b, *input, w)
}

/// `x (B₁A₁ ⊙ B₂A₂)ᵀ` (Hyeon-Woo et al. 2021, arXiv 2108.06098).
fn loha(b: &mut Builder, x: &[Value]) -> Value {
    let (first, second) = (product(b, x[1], x[2]), product(b, x[3], x[4]));
    let delta = binary(b, BinaryKind::Mul, Broadcast::Full, [first, second]);
    linear(b, x[0], delta)
}

/// `x ⊙ l` on every row (Liu et al. 2022, arXiv 2205.05638).
fn ia3(b: &mut Builder, x: &[Value]) -> Value {
    binary(b, BinaryKind::Mul, Broadcast::Row, [x[0], x[1]])
}

/// The logarithm of the softmax of every row.
fn log_softmax(b: &mut Builder, x: &[Value]) -> Value {
    let max = reduce(b, ReduceKind::Max, Over::Columns, x[0]);
    let below = binary(b, BinaryKind::Sub, Broadcast::Column, [x[0], max]);
    let exp = unary(b, UnaryKind::Exp, below);
    let sum = reduce(b, ReduceKind::Sum, Over::Columns, exp);
    let softmax = binary(b, BinaryKind::Div, Broadcast::Column, [exp, sum]);
    unary(b, UnaryKind::Log, softmax)
}

/// Row-major `[m, k] · [k, n]`.
fn times(a: &[f64], b: &[f64], m: usize, n: usize) -> Vec<f64> {
    let k = a.len() / m;
    let at = |i: usize, j: usize| (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum();
    (0..m * n).map(|c| at(c / n, c % n)).collect()
}

fn transposed(a: &[f64], rows: usize) -> Vec<f64> {
    let d = a.len() / rows;
    (0..a.len()).map(|c| a[c % rows * d + c / rows]).collect()
}

fn compositions() -> Vec<Composition> {
    let w = || random(3, &[4, 3]);
    let low = |seed| [random(seed, &[4, 2]), random(seed + 1, &[2, 3])];
    let x = || random(1, &[5, 3]);
    let [a1, b1] = low(5);
    let [a2, b2] = low(7);
    vec![
        Composition {
            name: "RMSNorm",
            given: vec![x(), random(2, &[3])],
            build: rms_norm,
            formula: |x| {
                let of_row = |row: &[f64]| {
                    let mean = row.iter().map(|x| x * x).sum::<f64>() / 3.0;
                    let factor = (mean + 0.1).sqrt().recip();
                    let each = row.iter().zip(&x[1]).map(move |(x, w)| x * factor * w);
                    each.collect::<Vec<f64>>()
                };
                x[0].chunks(3).flat_map(of_row).collect()
            },
        },
        Composition {
            name: "DoRA",
            given: vec![x(), w(), a1.clone(), b1.clone(), random_positive(9, &[4])],
            build: dora,
            formula: |x| {
                let delta = times(&x[2], &x[3], 4, 3);
                let mut w: Vec<f64> = x[1].iter().zip(&delta).map(|(w, d)| w + d).collect();
                for (row, m) in w.chunks_mut(3).zip(&x[4]) {
                    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                    row.iter_mut().for_each(|x| *x *= m / norm);
                }
                times(&x[0], &transposed(&w, 4), 5, 4)
            },
        },
        Composition {
            name: "LoHa",
            given: vec![x(), a1, b1, a2, b2],
            build: loha,
            formula: |x| {
                let (a, b) = (times(&x[1], &x[2], 4, 3), times(&x[3], &x[4], 4, 3));
                let w: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a * b).collect();
                times(&x[0], &transposed(&w, 4), 5, 4)
            },
        },
        Composition {
            name: "IA3",
            given: vec![x(), random(2, &[3])],
            build: ia3,
            formula: |x| {
                x[0].iter()
                    .enumerate()
                    .map(|(i, y)| y * x[1][i % 3])
                    .collect()
            },
        },
        Composition {
            name: "log-softmax",
            given: vec![x()],
            build: log_softmax,
            formula: |x| {
                let of_row = |row: &[f64]| {
                    let sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                    row.iter().map(move |x| x - sum).collect::<Vec<f64>>()
                };
                x[0].chunks(3).flat_map(of_row).collect()
            },
        },
    ]
}

#[test]
fn compositions_equal_their_formulas_and_their_gradients_central_differences() {
    for own in compositions() {
        let mut b = Builder::new(own.name);
        let given: Vec<Value> = own
            .given
            .iter()
            .enumerate()
            .map(|(i, t)| b.resident(&format!("x{i}"), ty(t), Class::Trainable))
            .collect();
        let out = (own.build)(&mut b, &given);
        // The loss: every element of the result with a weight of its own.
        let weights = random(99, &b.ty(out).dims(&Default::default()));
        let by = b.resident("weights", ty(&weights), Class::Frozen);
        let weighted = binary(&mut b, BinaryKind::Mul, Broadcast::Full, [out, by]);
        let loss = reduce(&mut b, ReduceKind::Sum, Over::All, weighted);
        let grads = differentiate(&mut b, loss, &given);
        let program = b.finish();
        let run = |given: &[Tensor]| {
            let residents = [given, std::slice::from_ref(&weights)].concat();
            interpret(&program, &residents)
        };
        let all = |slots: &[Option<Tensor>], v: Value| {
            floats(slots[v.index()].as_ref().expect("computed"))
        };
        let slots = run(&own.given);
        let inputs: Vec<Vec<f64>> = own.given.iter().map(floats).collect();
        for (own, wanted) in all(&slots, out).iter().zip((own.formula)(&inputs)) {
            assert!((own - wanted).abs() < 1e-12, "{own} and not {wanted}");
        }
        for (i, grad) in grads.iter().enumerate() {
            let grad = all(&slots, grad.expect("a gradient"));
            for (j, own_grad) in grad.iter().enumerate() {
                let shifted = |h: f64| {
                    let mut moved = own.given.clone();
                    moved[i].slice_mut::<f64>().expect("f64")[j] += h;
                    all(&run(&moved), loss)[0]
                };
                let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!(
                    (own_grad - numeric).abs() <= 1e-6 * (1.0 + numeric.abs()),
                    "{}, x{i}[{j}]: {own_grad} against {numeric}",
                    own.name
                );
            }
        }
    }
}
