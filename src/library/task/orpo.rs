//! `orpo`: odds ratio preference optimisation, which learns the chosen answers and prefers them at once.

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
    "weight of the odds ratio beside the loss of the chosen answer, λ in the paper",
);

static SCHEMA: Schema = Schema {
    name: "orpo",
    summary: "odds ratio preference optimisation: the chosen answer is learned, and its odds rise above those of the rejected one",
    doc: "Reads data with `chosen` and `rejected`, and `prompt` where both have one. The loss of a pair is the mean negative log-likelihood of the chosen \
          answer's tokens, as in supervised fine-tuning, and β times -log σ(log of the odds ratio): the odds of an answer are p / (1 - p), with log p the \
          mean log-likelihood of its tokens. No reference is computed, and no training need go before. Of the prompt nothing is learned, as the paper has it; TRL's `ORPOTrainer` learns \
          its tokens too. Both texts of a pair are in one micro-batch, and `batch` counts pairs. Each text is cut at `max_length` from its end.",
    paper: "Hong, Lee and Thorne 2024, ORPO: Monolithic Preference Optimization without Reference Model (arXiv 2403.07691)",
    keys: &[BETA.key(), SKIP_EMPTY.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(Preferring {
            schema: &SCHEMA,
            loss: Preference {
                loss: PreferenceLoss::Orpo,
                beta: Real::new(BETA.find(values).unwrap_or(0.1)),
                smoothing: Real::new(0.0),
                gamma: Real::new(0.0),
                alpha: Real::new(0.0),
            },
            compares: false,
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};
