//! `cpo`: contrastive preference optimisation, which prefers the chosen answers without a reference and learns them as well.

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
    "β, what the margin of log-likelihoods is multiplied by",
);
const LOSS: Given<str> = Given::<str>::new(
    "loss",
    kind::choice(&["sigmoid", "hinge", "ipo"]),
    ("sigmoid", "sigmoid"),
    "the loss of a margin, as TRL names them: `sigmoid` is CPO's own; `hinge` is SLiC's; `ipo` takes the square of the distance to 1/(2β), of \
          log-likelihoods a token",
);
const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "α, the weight of the loss of the chosen answer's tokens, TRL's `cpo_alpha`",
);
const SMOOTHING: Given<f64> = Given::<f64>::new(
    "label_smoothing",
    kind::float(Bound::Incl(0.0), Bound::Excl(0.5)),
    (0.0, "0"),
    "share ε of pairs whose order is taken to be wrong, for `sigmoid`",
);

static SCHEMA: Schema = Schema {
    name: "cpo",
    summary: "contrastive preference optimisation: the chosen answer becomes likelier than the rejected one, and is learned",
    doc: "Reads data with `chosen` and `rejected`, and `prompt` where both have one. The loss of a pair is -log σ(β m), as that of `dpo` under a \
          reference which finds all answers alike likely, and α times the mean negative log-likelihood of the chosen answer's tokens. No \
          reference is computed. TRL's `CPOTrainer` takes the mean over the chosen tokens of a whole batch, in which long answers count more; \
          here each pair counts once, however a batch is cut. Both texts of a pair are in one micro-batch, and `batch` counts pairs. Each text \
          is cut at `max_length` from its end.",
    paper: "Xu et al. 2024, Contrastive Preference Optimization (arXiv 2401.08417)",
    keys: &[
        BETA.key(),
        LOSS.key(),
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
                loss: match LOSS.find(values).unwrap_or("sigmoid") {
                    "hinge" => PreferenceLoss::Hinge,
                    "ipo" => PreferenceLoss::Ipo,
                    _ => PreferenceLoss::Sigmoid,
                },
                beta: Real::new(BETA.find(values).unwrap_or(0.1)),
                smoothing: Real::new(SMOOTHING.find(values).unwrap_or(0.0)),
                gamma: Real::new(0.0),
                alpha: Real::new(ALPHA.find(values).unwrap_or(1.0)),
            },
            compares: false,
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};
