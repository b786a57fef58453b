//! Pruning of the model itself while it is trained (methods S11 and S12): a share of each matrix that falls to the third power is kept,
//! the largest weights, or those that move away from zero.

use super::super::net::{Param, ParamKind};
use super::super::schema::{Bound, Given, kind};
use super::sparse::{self, ON, share};
use super::{At, Complaint, Method, Net, Schema, Site, Value, Values};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{ActivationKind, BinaryKind, Broadcast, Constant, KthSmallest, UnaryKind};
use crate::program::{Budget, DType, Real, Signal};

/// Pruning by one score or the other.
#[derive(Debug)]
pub struct Pruning {
    schema: &'static Schema,
    /// Whether scores are trained; else they are the sizes of the weights.
    moves: bool,
}

const KEEP: Given<f64> = Given::<f64>::new(
    "keep",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.15, "0.15"),
    "share of each matrix that is kept in the end",
);
const BEGINS: Given<u64> = Given::<u64>::new(
    "begins",
    kind::int(0, u64::MAX),
    (0, "0"),
    "steps before pruning begins",
);
const LAST: Given<u64> = Given::<u64>::new(
    "last",
    kind::int(0, u64::MAX),
    (0, "0"),
    "steps at the end in which the share is the last one",
);
const RATE: Given<f64> = Given::<f64>::new(
    "score_rate",
    kind::float(Bound::Excl(0.0), Bound::None),
    (333.0, "333"),
    "factor of the learning rate of the scores: the paper takes 1e-2 for them, and 3e-5 for the weights",
);

static MAGNITUDE: Schema = Schema {
    name: "magnitude_pruning",
    summary: "the weights are trained, and all but the largest of each matrix are removed step by step",
    doc: "y = x (W ⊙ M)ᵀ + b with W trained from W0 and M = 1 at the share v of each matrix with the largest |W|. v is 1 for `begins` steps, falls as \
          v = keep + (1 − keep)(1 − t)³ while t goes from 0 to 1, and is `keep` in the `last` steps and ever after. A weight that is removed \
          has no gradient; it comes back if others become smaller than it. The mask is found anew in every step. It leaves a sparse model, and no \
          sparse update: to train few numbers of a dense one is `magnitude_mask`. Biases, norms and all other maps stay as they are. 16 bytes a \
          weight of `on` with AdamW, and a mask and a product of the weight's size for each map. A merge writes W ⊙ M; peft has no equal.",
    paper: "Zhu and Gupta 2017 (arXiv 1710.01878); Sanh et al. 2020 (arXiv 2005.07683), the baseline",
    keys: &[KEEP.key(), BEGINS.key(), LAST.key(), ON.key()],
};

static MOVEMENT: Schema = Schema {
    name: "movement_pruning",
    summary: "the weights are trained with scores, and all but those that move away from zero are removed step by step",
    doc: "As `magnitude_pruning`, but M = 1 at the share v of each matrix with the largest scores S. S begins at 0 and is trained at `score_rate` \
          times the learning rate, without decay, by the gradient that M would have: ∂L/∂S = ∂L/∂(W ⊙ M) ⊙ W, so that the score of a weight \
          grows where it moves away from zero, removed or not. The paper's soft thresholds and its L0 variant are not built. 32 bytes a weight of \
          `on` with AdamW. Adapters keep S. A merge writes W ⊙ M; peft has no equal. To train few numbers of a dense model is `movement_mask`.",
    paper: "Sanh et al. 2020 (arXiv 2005.07683)",
    keys: &[KEEP.key(), BEGINS.key(), LAST.key(), RATE.key(), ON.key()],
};

/// Pruning by the size of the weights.
pub static BY_MAGNITUDE: Pruning = Pruning {
    schema: &MAGNITUDE,
    moves: false,
};

/// Pruning by movement.
pub static BY_MOVEMENT: Pruning = Pruning {
    schema: &MOVEMENT,
    moves: true,
};

impl Pruning {
    /// What is left of a site's weight.
    fn left(&self, at: &At<'_>, net: &mut Net<'_>) -> Value {
        let (site, values) = (at.site, at.values);
        let weight = net.weight(site);
        let scores = self.moves.then(|| {
            let scores = Param::at(site, "mask_scores").shape(&[site.output(), site.input()]);
            net.tensor(scores.undecayed().rate(RATE.get(values)))
        });
        let by = match scores {
            Some(scores) => net.detach(scores),
            None => {
                let own = net.detach(weight);
                net.unary(UnaryKind::Abs, own)
            }
        };
        let threshold = {
            let removed = removed(values, site, net);
            net.b.push1(KthSmallest, &[removed, by])
        };
        let above = net.binary(BinaryKind::Sub, Broadcast::Scalar, by, threshold);
        let above = net.activation(ActivationKind::Relu, above);
        let mut mask = net.unary(UnaryKind::Sign, above);
        if let Some(scores) = scores.filter(|_| net.is_training()) {
            // 0, with the gradient of the scores.
            let none = net.binary(BinaryKind::Sub, Broadcast::Full, scores, by);
            mask = net.add(mask, none);
        }
        net.binary(BinaryKind::Mul, Broadcast::Full, weight, mask)
    }
}

/// How many weights of a site are removed, `[1]`: in a training as many as the step says.
fn removed(values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
    let from = site.input() * site.output();
    let to = share(KEEP.get(values), from);
    if let Some(steps) = net.steps() {
        return net.signal(Signal::Pruned(Budget {
            from,
            to,
            begins: BEGINS.get(values),
            last: LAST.get(values),
            every: 1,
            steps,
        }));
    }
    let (value, dtype) = (Real::new((from - to) as f64), DType::F32);
    net.b.push1(Constant { value, dtype }, &[])
}

impl Method for Pruning {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn adapts(&self) -> bool {
        true
    }

    fn trains(&self, values: &Values, param: &Param, n_layers: u64) -> bool {
        let site = Site::linear(param.module(), param.role, (0, 0)).in_layer(param.layer);
        param.kind == ParamKind::Weight
            && ON
                .get(values)
                .is_some_and(|placement| placement.matches(&site, n_layers))
    }

    fn reads_steps(&self) -> bool {
        true
    }

    fn check(&self, _: &Values, site: &Site) -> Option<Complaint> {
        sparse::check_size(site)
    }

    fn check_steps(&self, values: &Values, steps: u64) -> Option<Complaint> {
        let (first, last) = (BEGINS.get(values), LAST.get(values));
        (first.saturating_add(last) >= steps).then(|| Complaint {
            key: if last > 0 { LAST.name() } else { BEGINS.name() },
            code: &BAD_METHOD_VALUES,
            message: format!(
                "`begins` and `last` are {first} and {last} steps of {steps}, so none are left in which the share falls"
            ),
            help: Some("lower one of them, or train for more steps".to_owned()),
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let weight = self.left(at, net);
        net.affine(at.site, x, weight)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        Some(self.left(at, net))
    }
}
