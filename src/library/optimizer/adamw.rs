//! AdamW (methods 0.5).

use super::{Bound, Builder, Default, Key, Kind, Optimizer, Schema, Update, Values, WEIGHT_DECAY};
use crate::program::op;
use crate::program::{Feed, Real};

/// Adam with decoupled weight decay.
#[derive(Debug)]
pub(super) struct AdamW;

const RATE: Kind = Kind::Float(Bound::Incl(0.0), Bound::Excl(1.0));
static KEYS: [Key; 4] = [
    Key {
        name: "beta1",
        kind: RATE,
        default: Default::Text("0.9"),
        doc: "decay of the first moment",
    },
    Key {
        name: "beta2",
        kind: RATE,
        default: Default::Text("0.999"),
        doc: "decay of the second moment",
    },
    Key {
        name: "epsilon",
        kind: Kind::Float(Bound::Excl(0.0), Bound::None),
        default: Default::Text("1e-8"),
        doc: "added to the root of the second moment",
    },
    WEIGHT_DECAY,
];
static SCHEMA: Schema = Schema {
    name: "adamw",
    summary: "Adam with decoupled weight decay; 8 bytes of state a parameter",
    doc: "m and v are running means of the gradient and its square; θ ← θ − lr · (m̂ / (√v̂ + epsilon) + weight_decay · θ).",
    paper: "Loshchilov and Hutter 2019 (arXiv 1711.05101)",
    keys: &KEYS,
};

impl Optimizer for AdamW {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn state(&self, _: &Values) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        let (lr, step) = (b.feed(Feed::LearningRate), b.feed(Feed::Step));
        let number = |key| Real::new(values.float(key));
        let op = op::AdamW {
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("epsilon"),
            weight_decay: if u.decays {
                number("weight_decay")
            } else {
                Real::new(0.0)
            },
        };
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([lr, step, u.factor]);
        b.push(op, &inputs);
    }
}
