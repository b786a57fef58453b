//! `distil`: the scores that other stages give the texts, learned on the sequence head.

use std::sync::Arc;

use super::{Task, TaskKind};
use crate::library::counts::to_u32;
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::program::op::{
    BinaryKind, Broadcast, Constant, Detach, Elementwise, Over, Reduce, ReduceKind, Unary,
    UnaryKind,
};
use crate::program::{Axis, Builder, DType, Feed, Real, Value};

/// The scores of teachers: divergence from their softened shares, on the sequence head.
#[derive(Debug)]
struct Distil {
    /// What scores are divided by before shares are made of them.
    temperature: f64,
}

const TEMPERATURE: Given<f64> = Given::<f64>::new(
    "temperature",
    kind::float(Bound::Excl(0.0), Bound::None),
    (2.0, "2"),
    "T, by which the scores of teachers and of the model are divided before shares are made of them",
);

static SCHEMA: Schema = Schema {
    name: "distil",
    summary: "the scores of other stages: divergence from their softened shares on the task head",
    doc: "For a `train` stage with `teachers = NAME`, an `annotate` stage of the same split; no label of the split is read. The loss is \
          T²/N Σ KL(softmax(t/T) ‖ softmax(s/T)), where t are the teachers' scores of a text and s the model's: with T = 1 the cross-entropy \
          with the teachers' shares, less their entropy. Evaluations read labels, and report the plain cross-entropy.",
    paper: "Hinton, Vinyals and Dean 2015 (arXiv 1503.02531); Schick and Schütze 2021 (arXiv 2001.07676), section 3.3",
    keys: &[TEMPERATURE.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(Distil {
            temperature: TEMPERATURE.find(values).unwrap_or(2.0),
        })
    },
};

/// The teachers' scores of each text: `f32[S, classes]`.
#[must_use]
pub const fn taught(classes: u32) -> Feed {
    Feed::Feature {
        index: u16::MAX - 1,
        width: classes,
        of: Axis::Sequences,
        stored: DType::F32,
    }
}

fn number(b: &mut Builder, value: f64) -> Value {
    let (value, dtype) = (Real::new(value), DType::F32);
    b.push1(Constant { value, dtype }, &[])
}

fn binary(b: &mut Builder, kind: BinaryKind, broadcast: Broadcast, x: Value, y: Value) -> Value {
    b.push1(Elementwise { kind, broadcast }, &[x, y])
}

fn rows(b: &mut Builder, kind: ReduceKind, x: Value) -> Value {
    let over = Over::Columns;
    b.push1(Reduce { kind, over }, &[x])
}

/// Logarithms of the shares that scores stand for, once they are divided by the temperature.
fn log_shares(b: &mut Builder, scores: Value, factor: Value) -> Value {
    let scores = binary(b, BinaryKind::Mul, Broadcast::Scalar, scores, factor);
    let most = rows(b, ReduceKind::Max, scores);
    let most = b.push1(Detach, &[most]);
    let below = binary(b, BinaryKind::Sub, Broadcast::Column, scores, most);
    let kind = UnaryKind::Exp;
    let shares = b.push1(Unary { kind }, &[below]);
    let sum = rows(b, ReduceKind::Sum, shares);
    let kind = UnaryKind::Log;
    let sum = b.push1(Unary { kind }, &[sum]);
    binary(b, BinaryKind::Sub, Broadcast::Column, below, sum)
}

impl Task for Distil {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn learns_scores(&self) -> bool {
        true
    }

    fn training_loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let classes = b.ty(scores).shape.last().and_then(|n| n.as_const());
        let taught = b.feed(taught(to_u32(classes.unwrap_or(0))));
        let factor = number(b, 1.0 / self.temperature);
        let theirs = log_shares(b, taught, factor);
        let own = log_shares(b, scores, factor);
        let kind = UnaryKind::Exp;
        let shares = b.push1(Unary { kind }, &[theirs]);
        let apart = binary(b, BinaryKind::Sub, Broadcast::Full, theirs, own);
        let each = binary(b, BinaryKind::Mul, Broadcast::Full, shares, apart);
        let (kind, over) = (ReduceKind::Sum, Over::All);
        let all = b.push1(Reduce { kind, over }, &[each]);
        let square = number(b, self.temperature * self.temperature);
        let all = binary(b, BinaryKind::Mul, Broadcast::Full, all, square);
        binary(b, BinaryKind::Mul, Broadcast::Full, all, scale)
    }
}
