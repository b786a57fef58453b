//! `simpo`: simple preference optimisation, which learns from pairs of answers and needs no reference.

use std::sync::Arc;

use super::TaskKind;
use super::preference::{Preferring, SKIP_EMPTY};
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::program::Real;
use crate::program::op::{Preference, PreferenceLoss};

const BETA: Given<f64> = Given::<f64>::new(
    "beta",
    kind::float(Bound::Excl(0.0), Bound::None),
    (2.0, "2"),
    "β, what the mean log-likelihood of a token is multiplied by to be a reward",
);
const GAMMA: Given<f64> = Given::<f64>::new(
    "gamma",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "γ, by how much the reward of the chosen answer is to be above that of the rejected one",
);
const ALPHA: Given<f64> = Given::<f64>::tacit(
    "alpha",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "weight of the mean loss of the chosen answer's tokens beside it, as in CPO-SimPO",
);
const SMOOTHING: Given<f64> = Given::<f64>::new(
    "label_smoothing",
    kind::float(Bound::Incl(0.0), Bound::Excl(0.5)),
    (0.0, "0"),
    "share ε of pairs whose order is taken to be wrong",
);

static SCHEMA: Schema = Schema {
    name: "simpo",
    summary: "simple preference optimisation: the chosen answer becomes likelier a token than the rejected one, by a margin",
    doc: "Reads data with `chosen` and `rejected`, and `prompt` where both have one. The reward of an answer is β times the mean log-likelihood of \
          its tokens, and the loss of a pair is -log σ(r(chosen) - r(rejected) - γ). No reference is computed. The authors take β from 2 to 10 and γ \
          from 0.3 to 1.6, and a learning rate of 3e-7 to 1e-6 where all weights are trained; TRL's `CPOTrainer` calls it `loss_type = simpo`, with `cpo_alpha` for `alpha`. Both texts of a \
          pair are in one micro-batch, and `batch` counts pairs. Each text is cut at `max_length` from its end.",
    paper: "Meng et al. 2024, SimPO: Simple Preference Optimization with a Reference-Free Reward (arXiv 2405.14734)",
    keys: &[
        BETA.key(),
        GAMMA.key(),
        ALPHA.key(),
        SMOOTHING.key(),
        SKIP_EMPTY.key(),
    ],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(Preferring {
            schema: &SCHEMA,
            loss: Preference {
                loss: PreferenceLoss::Simpo,
                beta: Real::new(BETA.find(values).unwrap_or(2.0)),
                smoothing: Real::new(SMOOTHING.find(values).unwrap_or(0.0)),
                gamma: Real::new(GAMMA.find(values).unwrap_or(1.0)),
                alpha: Real::new(ALPHA.find(values).unwrap_or(0.0)),
            },
            compares: false,
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};
