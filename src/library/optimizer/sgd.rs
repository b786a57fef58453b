//! Stochastic gradient descent, with momentum if wanted.

use super::{Bound, Builder, Default, Key, Kind, Optimizer, Schema, Update, Values, WEIGHT_DECAY};
use crate::program::op;
use crate::program::{Feed, Real};

/// Plain or with momentum.
#[derive(Debug)]
pub(super) struct Sgd;

static KEYS: [Key; 3] = [
    Key {
        name: "momentum",
        kind: Kind::Float(Bound::Incl(0.0), Bound::Excl(1.0)),
        default: Default::Text("0"),
        doc: "share of the last update that is repeated; above 0 it costs 4 bytes of state a parameter",
    },
    Key {
        name: "nesterov",
        kind: Kind::Bool,
        default: Default::Text("false"),
        doc: "look ahead along the momentum",
    },
    WEIGHT_DECAY,
];
static SCHEMA: Schema = Schema {
    name: "sgd",
    summary: "stochastic gradient descent; no state without momentum",
    doc: "g ← g + weight_decay · θ; b ← momentum · b + g; θ ← θ − lr · b.",
    paper: "Robbins and Monro 1951; Sutskever et al. 2013",
    keys: &KEYS,
};

impl Optimizer for Sgd {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn state(&self, values: &Values) -> &'static [&'static str] {
        if values.float("momentum") > 0.0 {
            &["momentum"]
        } else {
            &[]
        }
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        let lr = b.feed(Feed::LearningRate);
        let op = op::Sgd {
            momentum: Real::new(values.float("momentum")),
            weight_decay: Real::new(if u.decays {
                values.float("weight_decay")
            } else {
                0.0
            }),
            nesterov: values.bool("nesterov"),
        };
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([lr, u.factor]);
        b.push(op, &inputs);
    }
}
