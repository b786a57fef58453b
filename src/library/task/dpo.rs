//! `dpo`: direct preference optimisation, which learns from pairs of answers of which one is preferred.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Answer, Details, Head, Names, Reads, Scored, Task, TaskKind};
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::op::{Preference, PreferenceLoss};
use crate::program::{Pick, Real, Value};

/// Direct preference optimisation.
#[derive(Debug)]
struct Dpo {
    loss: Preference,
    reference_free: bool,
    skip_empty: bool,
}

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
const SKIP_EMPTY: Given<bool> = Given::<bool>::tacit(
    "skip_empty",
    kind::BOOL,
    (false, "false"),
    "leave out pairs with an answer of which no token is left, such as those whose prompt fills `max_length`; without it they are an error",
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
        Arc::new(Dpo {
            loss: Preference {
                loss: match LOSS.find(values).unwrap_or("sigmoid") {
                    "robust" => PreferenceLoss::Robust,
                    "hinge" => PreferenceLoss::Hinge,
                    "ipo" => PreferenceLoss::Ipo,
                    _ => PreferenceLoss::Sigmoid,
                },
                beta: Real::new(BETA.find(values).unwrap_or(0.1)),
                smoothing: Real::new(SMOOTHING.find(values).unwrap_or(0.0)),
            },
            reference_free: REFERENCE_FREE.find(values).unwrap_or(false),
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};

impl Task for Dpo {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Preference
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Next(Arc::default())))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        if form != Form::Preference {
            let message = format!(
                "`dpo` compares two answers, and these data have {}",
                form.what()
            );
            let help = "name the columns of both: `chosen = COLUMN, rejected = COLUMN`, and `prompt = COLUMN` if there is one";
            return Err([message, help.to_owned()]);
        }
        let smooths = matches!(
            self.loss.loss,
            PreferenceLoss::Sigmoid | PreferenceLoss::Robust
        );
        if self.loss.smoothing.get() > 0.0 && !smooths {
            return Err([
                "`label_smoothing` has no effect on this `loss`".to_owned(),
                "remove `label_smoothing`, or write `loss = sigmoid`".to_owned(),
            ]);
        }
        Ok(Learn::Completion)
    }

    fn skips_empty(&self) -> bool {
        self.skip_empty
    }

    fn group(&self) -> u64 {
        Form::Preference.sequences()
    }

    fn scores_places(&self) -> bool {
        false
    }

    fn compares(&self) -> bool {
        !self.reference_free
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::CausalLm
    }

    fn generates(&self) -> bool {
        true
    }

    fn ends_texts(&self) -> bool {
        true
    }

    fn width(&self, _: usize) -> u64 {
        2
    }

    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let losses = self.losses(model, net, hidden)?;
        let (loss, rows) = net.preference(&self.loss, losses, self.compares());
        Some((rows, loss))
    }

    fn losses(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<Value> {
        let head = model.causal_lm()?.head(net);
        let (_, rows) = net.head_loss(hidden, &head);
        Some(net.losses_of_texts(rows))
    }

    fn loss_of(&self, scores: &[f32], _: &Target) -> f64 {
        scores.get(1).copied().map_or(0.0, f64::from)
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Score(scores.first().copied().unwrap_or_default())
    }

    fn metrics(&self) -> &'static [&'static str] {
        &[
            "loss",
            "reward_accuracy",
            "reward_margin",
            "reward_chosen",
            "reward_rejected",
        ]
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["answer", "reward", "loss"].map(str::to_owned).to_vec()
    }

    fn cells(&self, _: Names<'_>, row: Scored<'_>) -> Vec<String> {
        let score = |i: usize| row.scores.get(i).copied().unwrap_or_default().to_string();
        let answer = ["chosen", "rejected"].get(row.position as usize);
        vec![
            answer.map_or_else(String::new, |name| (*name).to_owned()),
            score(0),
            score(1),
        ]
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Err("it was trained to prefer answers: it goes on with texts and labels nothing".to_owned())
    }

    fn values(&self, _: &[String], _: super::Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
