//! The losses of vectors, composed of general ops.

use crate::program::op::CrossEntropy;
use crate::program::op::{
    BinaryKind, Broadcast, Constant, Elementwise, Epilogue, Expand, Gather, MatMul, Over, Reduce,
    ReduceKind, Reshape, RmsNorm, Scatter, SquaredError,
};
use crate::program::{Axis, Builder, DType, Dim, Feed, Real, TargetKind, Value};

/// What keeps a vector of zeros from being divided by its length: it stays one of zeros.
const EPS: f64 = 1e-24;

/// What is added to the cosine with what is no candidate: its share of a softmax is 0.
const NEVER: f64 = -1e9;

/// Columns of a matrix.
fn width(b: &Builder, x: Value) -> u64 {
    let columns = b.ty(x).matrix().and_then(|(_, width)| width.as_const());
    columns.unwrap_or(1).max(1)
}

/// A number as often as a shape has places.
fn full(b: &mut Builder, value: f64, shape: Dim) -> Value {
    let one = Constant {
        value: Real::new(value),
        dtype: DType::F32,
    };
    let one = b.push1(one, &[]);
    let expand = Expand {
        over: Over::All,
        shape: std::iter::once(shape).collect(),
        mean: false,
    };
    b.push1(expand, &[one])
}

/// Each row over its length, times the root of the columns.
fn directions(b: &mut Builder, x: Value) -> Value {
    let ones = full(b, 1.0, Dim::from(width(b, x)));
    let op = RmsNorm {
        eps: Real::new(EPS),
        plus_one: false,
    };
    b.push1(op, &[x, ones])
}

/// `scale · Σ (cos(first, second) − label / top)²` over rows of two texts: `[1]`.
pub(super) fn cosine(b: &mut Builder, x: Value, top: f64) -> Value {
    let (owners, others) = (
        b.feed(Feed::Owners),
        b.feed(Feed::Targets(TargetKind::Token)),
    );
    let (labels, scale) = (
        b.feed(Feed::Targets(TargetKind::Number)),
        b.feed(Feed::LossScale),
    );
    let columns = width(b, x);
    let rows = directions(b, x);
    let out = DType::F32;
    let both = [owners, others].map(|of| b.push1(Gather { out }, &[rows, of]));
    let binary = |kind, broadcast| Elementwise { kind, broadcast };
    let product = b.push1(binary(BinaryKind::Mul, Broadcast::Full), &both);
    let sum = Reduce {
        kind: ReduceKind::Sum,
        over: Over::Columns,
    };
    let sums = b.push1(sum, &[product]);
    let by = |b: &mut Builder, x: Value, factor: f64| {
        let factor = Constant {
            value: Real::new(factor),
            dtype: DType::F32,
        };
        let factor = b.push1(factor, &[]);
        b.push1(binary(BinaryKind::Mul, Broadcast::Scalar), &[x, factor])
    };
    let cosines = by(b, sums, 1.0 / columns as f64);
    let shape = [Axis::Read.dim(), Dim::from(1)].into_iter().collect();
    let cosines = b.push1(Reshape { shape }, &[cosines]);
    let labels = b.push1(Gather { out }, &[labels, owners]);
    let labels = match top == 1.0 {
        true => labels,
        false => by(b, labels, 1.0 / top),
    };
    b.push1(SquaredError, &[cosines, labels, scale])
}

/// `scale · Σ −log softmax(factor · cos(anchor, candidates))[positive]` over rows: `[1]`. Candidates are all texts of the batch but
/// its anchors.
pub(super) fn negatives(b: &mut Builder, x: Value, factor: f64) -> Value {
    let (owners, right) = (
        b.feed(Feed::Owners),
        b.feed(Feed::Targets(TargetKind::Token)),
    );
    let scale = b.feed(Feed::LossScale);
    let columns = width(b, x);
    let rows = directions(b, x);
    let anchors = b.push1(Gather { out: DType::F32 }, &[rows, owners]);
    let product = MatMul::linear(Real::new(factor / columns as f64), Epilogue::None);
    let scores = b.push1(product, &[anchors, rows]);
    let never = full(b, NEVER, Axis::Read.dim());
    let texts = Axis::Sequences.dim();
    let never = b.push1(Scatter { rows: texts }, &[owners, never]);
    let add = Elementwise {
        kind: BinaryKind::Add,
        broadcast: Broadcast::Row,
    };
    let scores = b.push1(add, &[scores, never]);
    b.push1(CrossEntropy, &[scores, right, scale])
}
