//! Adafactor: second moments of rows and columns.

use super::{Builder, Optimizer, Update, WEIGHT_DECAY};
use crate::library::schema::{Bound, Given, Key, Schema, Values, kind};
use crate::program::{Feed, Real, TensorType, op};

/// AdamW's second moment as that of rows and columns, without a first.
#[derive(Debug)]
pub(super) struct Adafactor;

const DECAY: Given<f64> = Given::<f64>::new(
    "decay",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.8, "0.8"),
    "in step t the second moment keeps 1 − t^−decay of itself; transformers writes it as `decay_rate = -0.8`",
);
const EPSILON: Given<f64> = Given::<f64>::new(
    "epsilon",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1e-30, "1e-30"),
    "added to squares of gradients",
);
const CLIP: Given<f64> = Given::<f64>::new(
    "clip_threshold",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "root mean square of a tensor's update above which it is made smaller",
);
const SCALE: Given<bool> = Given::<bool>::new(
    "scale_parameter",
    kind::BOOL,
    (false, "false"),
    "whether a tensor's rate is times its root mean square, of 1e-3 at least",
);

/// Least root mean square of a tensor for its rate.
const LEAST: f64 = 1e-3;

static KEYS: [Key; 5] = [
    DECAY.key(),
    EPSILON.key(),
    CLIP.key(),
    SCALE.key(),
    WEIGHT_DECAY.key(),
];
static SCHEMA: Schema = Schema {
    name: "adafactor",
    summary: "AdamW without a first moment, its second one that of rows and columns; hardly any state",
    doc: "Of a matrix of R rows and C columns it keeps R + C numbers, of a list as many as it has. u = g / √v, where v of a place is the moment of \
          its row times that of its column over the mean of the rows'; u is made smaller where its root mean square is above \
          clip_threshold; θ ← θ − lr · (u + weight_decay · θ). The rate is the stage's: T5 is usually trained with 1e-3, constant. The authors' \
          rate of its own (`relative_step`) and first moment are not built.",
    paper: "Shazeer and Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (arXiv 1804.04235)",
    keys: &KEYS,
};

impl Optimizer for Adafactor {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn state(&self, _: &Values, param: &TensorType) -> Vec<(&'static str, TensorType)> {
        let names: &[&str] = if param.shape.len() > 1 {
            &["rows", "columns"]
        } else {
            &["v"]
        };
        let types = op::Adafactor::state(param);
        names.iter().copied().zip(types).collect()
    }

    fn update(&self, values: &Values, b: &mut Builder, u: Update<'_>) {
        let step = b.feed(Feed::Step);
        let op = op::Adafactor {
            factored: b.ty(u.param).shape.len() > 1,
            decay: Real::new(DECAY.get(values)),
            eps: Real::new(EPSILON.get(values)),
            clip: Real::new(CLIP.get(values)),
            scale: SCALE.get(values).then(|| Real::new(LEAST)),
            weight_decay: Real::new(if u.decays {
                WEIGHT_DECAY.get(values)
            } else {
                0.0
            }),
            since: u.since,
        };
        let mut inputs = vec![u.param, u.grad];
        inputs.extend(u.state);
        inputs.extend([u.lr, step, u.factor]);
        b.push(op, &inputs);
    }
}
