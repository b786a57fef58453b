//! `dpo`: direct preference optimisation, which learns from pairs of answers of which one is preferred.

use std::sync::Arc;

use super::TaskKind;
use super::preference::{Preferring, SKIP_EMPTY};
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::program::Real;
use crate::program::op::{Preference, PreferenceLoss};

const BETA: Given<f64> = Given::<f64>::new(
    "beta",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.1, "0.1"),
    "β, the strength of the tie to the reference",
);
const LOSS: Given<str> = Given::<str>::new(
    "loss",
    kind::choice(&["sigmoid", "robust", "hinge", "ipo"]),
    ("sigmoid", "sigmoid"),
    "the loss of a margin, as TRL names them: `sigmoid` is DPO's own; `robust` allows for labels that are wrong at the rate \
          `label_smoothing`; `hinge` is SLiC's; `ipo` takes the square of the distance to 1/(2β), of log-likelihoods a token",
);
const SMOOTHING: Given<f64> = Given::<f64>::new(
    "label_smoothing",
    kind::float(Bound::Incl(0.0), Bound::Excl(0.5)),
    (0.0, "0"),
    "share ε of pairs whose order is taken to be wrong, for `sigmoid` and `robust`",
);
const REFERENCE_FREE: Given<bool> = Given::<bool>::new(
    "reference_free",
    kind::BOOL,
    (false, "false"),
    "take a reference that finds all answers alike likely: nothing is computed with one",
);

static SCHEMA: Schema = Schema {
    name: "dpo",
    summary: "direct preference optimisation: the chosen answer becomes likelier than the rejected one, compared with a reference",
    doc: "Reads data with `chosen` and `rejected`, and `prompt` where both have one. The loss of a pair is -log σ(β m): the margin m \
          is the log-likelihood of the chosen answer above that under the reference, less the same of the rejected answer. The reference is the model without the \
          stage's adapter, or the one that the stage starts from where the method trains the model's own weights; its log-likelihoods are \
          computed once a text before the first step, and kept in the store. To take the result of supervised fine-tuning as the reference, \
          fold its adapter in with a `merge` stage first. Both texts of a pair are in one micro-batch, and `batch` counts pairs. Each text is \
          cut at `max_length` from its end (TRL's `keep_start`); the token that ends a text stands behind a plain answer, and a chat template \
          writes its own.",
    paper: "Rafailov et al. 2023, Direct Preference Optimization (arXiv 2305.18290)",
    keys: &[
        BETA.key(),
        LOSS.key(),
        SMOOTHING.key(),
        REFERENCE_FREE.key(),
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
                loss: match LOSS.find(values).unwrap_or("sigmoid") {
                    "robust" => PreferenceLoss::Robust,
                    "hinge" => PreferenceLoss::Hinge,
                    "ipo" => PreferenceLoss::Ipo,
                    _ => PreferenceLoss::Sigmoid,
                },
                beta: Real::new(BETA.find(values).unwrap_or(0.1)),
                smoothing: Real::new(SMOOTHING.find(values).unwrap_or(0.0)),
                gamma: Real::new(0.0),
                alpha: Real::new(0.0),
            },
            compares: !REFERENCE_FREE.find(values).unwrap_or(false),
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};
