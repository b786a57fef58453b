//! Lion: the sign of a momentum.

use super::{Builder, Optimizer, Update, WEIGHT_DECAY};
use crate::library::schema::{Bound, Given, Key, Of, Schema, Values, kind};
use crate::program::{Real, TensorType, op};

/// Steps of one size, in the direction of a momentum's sign.
#[derive(Debug)]
pub(super) struct Lion;

const RATE: Of<f64> = kind::float(Bound::Incl(0.0), Bound::Excl(1.0));
const BETA1: Given<f64> = Given::<f64>::new(
    "beta1",
    RATE,
    (0.9, "0.9"),
    "share of the momentum in what the sign is taken of; the gradient has the rest",
);
const BETA2: Given<f64> = Given::<f64>::new("beta2", RATE, (0.99, "0.99"), "decay of the momentum");

static KEYS: [Key; 3] = [BETA1.key(), BETA2.key(), WEIGHT_DECAY.key()];
static SCHEMA: Schema = Schema {
    name: "lion",
    summary: "the sign of a momentum, with decoupled weight decay; 4 bytes of state a parameter, half of AdamW's",
    doc: "θ ← θ − lr · (sign(beta1 · m + (1 − beta1) · g) + weight_decay · θ); m ← beta2 · m + (1 − beta2) · g. Every number moves by lr in \
          each step, so that the rate is 3 to 10 times smaller than AdamW's, and the decay as many times larger.",
    paper: "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms (arXiv 2302.06675)",
    keys: &KEYS,
};

impl Optimizer for Lion {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn state(&self, _: &Values, param: &TensorType) -> Vec<(&'static str, TensorType)> {
        vec![("momentum", param.clone())]
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        let number = |key: Given<f64>| Real::new(key.get(values));
        let op = op::Lion {
            beta1: number(BETA1),
            beta2: number(BETA2),
            weight_decay: if u.decays {
                number(WEIGHT_DECAY)
            } else {
                Real::new(0.0)
            },
        };
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([u.lr, u.factor]);
        b.push(op, &inputs);
    }
}
