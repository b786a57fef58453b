//! AdamW (methods 0.5).

use super::{Builder, Optimizer, Update, WEIGHT_DECAY};
use crate::library::schema::{Bound, Given, Key, Of, Schema, Values, kind};
use crate::program::{Feed, Real, TensorType, op};

/// Adam with decoupled weight decay.
#[derive(Debug)]
pub(super) struct AdamW;

const RATE: Of<f64> = kind::float(Bound::Incl(0.0), Bound::Excl(1.0));
const BETA1: Given<f64> =
    Given::<f64>::new("beta1", RATE, (0.9, "0.9"), "decay of the first moment");
const BETA2: Given<f64> = Given::<f64>::new(
    "beta2",
    RATE,
    (0.999, "0.999"),
    "decay of the second moment",
);
const EPSILON: Given<f64> = Given::<f64>::new(
    "epsilon",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1e-08, "1e-8"),
    "added to the root of the second moment",
);

pub(super) static KEYS: [Key; 4] = [BETA1.key(), BETA2.key(), EPSILON.key(), WEIGHT_DECAY.key()];
static SCHEMA: Schema = Schema {
    name: "adamw",
    summary: "Adam with decoupled weight decay; 8 bytes of state a parameter",
    doc: "m and v are running means of the gradient and its square; θ ← θ − lr · (m̂ / (√v̂ + epsilon) + weight_decay · θ).",
    paper: "Loshchilov and Hutter 2019 (arXiv 1711.05101)",
    keys: &KEYS,
};

/// Decays of the moments, what is added to the root of the second, and the decay of weights.
#[must_use]
pub fn adamw_numbers(values: &Values) -> ([f64; 2], f64, f64) {
    let betas = [BETA1.get(values), BETA2.get(values)];
    (betas, EPSILON.get(values), WEIGHT_DECAY.get(values))
}

/// The op of one parameter's update.
pub(super) fn op_of(values: &Values, u: &Update<'_>) -> op::AdamW {
    let ([beta1, beta2], eps, weight_decay) = adamw_numbers(values);
    op::AdamW {
        beta1: Real::new(beta1),
        beta2: Real::new(beta2),
        eps: Real::new(eps),
        weight_decay: Real::new(if u.decays { weight_decay } else { 0.0 }),
        since: u.since,
    }
}

impl Optimizer for AdamW {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn state(&self, _: &Values, param: &TensorType) -> Vec<(&'static str, TensorType)> {
        ["m", "v"].map(|suffix| (suffix, param.clone())).into()
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        let (op, step) = (op_of(values, &u), b.feed(Feed::Step));
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([u.lr, step, u.factor]);
        b.push(op, &inputs);
    }
}
