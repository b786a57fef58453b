//! Stochastic gradient descent, with momentum if wanted.

use super::{Builder, Optimizer, Update, WEIGHT_DECAY};
use crate::library::schema::{Bound, Given, Key, Schema, Values, kind};
use crate::program::{Real, TensorType, op};

/// Plain or with momentum.
#[derive(Debug)]
pub(super) struct Sgd;

const MOMENTUM: Given<f64> = Given::<f64>::new(
    "momentum",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "share of the last update that is repeated; above 0 it costs 4 bytes of state a parameter",
);
const NESTEROV: Given<bool> = Given::<bool>::new(
    "nesterov",
    kind::BOOL,
    (false, "false"),
    "look ahead along the momentum",
);

static KEYS: [Key; 3] = [MOMENTUM.key(), NESTEROV.key(), WEIGHT_DECAY.key()];
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

    fn state(&self, values: &Values, param: &TensorType) -> Vec<(&'static str, TensorType)> {
        let momentum = MOMENTUM.get(values) > 0.0;
        momentum
            .then(|| ("momentum", param.clone()))
            .into_iter()
            .collect()
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        let op = op::Sgd {
            momentum: Real::new(MOMENTUM.get(values)),
            weight_decay: Real::new(if u.decays {
                WEIGHT_DECAY.get(values)
            } else {
                0.0
            }),
            nesterov: NESTEROV.get(values),
        };
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([u.lr, u.factor]);
        b.push(op, &inputs);
    }
}
