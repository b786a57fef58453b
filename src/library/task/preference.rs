//! What learns from pairs of texts of which one is preferred, whatever its loss.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Answer, Details, Head, Names, Reads, Scored, Task};
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::op::{Preference, PreferenceLoss};
use crate::program::{Pick, Value};

/// A task that learns from pairs.
#[derive(Debug)]
pub(super) struct Preferring {
    /// Name, doc, keys.
    pub schema: &'static Schema,
    /// The loss of a pair.
    pub loss: Preference,
    /// Whether it compares with a reference.
    pub compares: bool,
    /// Whether pairs are left out of which no token of an answer is left.
    pub skip_empty: bool,
}

pub(super) const SKIP_EMPTY: Given<bool> = Given::<bool>::tacit(
    "skip_empty",
    kind::BOOL,
    (false, "false"),
    "leave out pairs with an answer of which no token is left, such as those whose prompt fills `max_length`; without it they are an error",
);

/// The summed losses of each text's learned tokens: `[S, 1]`.
pub(super) fn losses_of_answers(
    model: &dyn Model,
    net: &mut Net<'_>,
    hidden: Value,
) -> Option<Value> {
    let head = model.causal_lm()?.head(net);
    let (_, rows) = net.head_loss(hidden, &head);
    Some(net.losses_of_texts(rows))
}

impl Task for Preferring {
    fn schema(&self) -> &'static Schema {
        self.schema
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
                "`{}` compares two answers, and these data have {}",
                self.name(),
                form.what()
            );
            let help = "name the columns of both: `chosen = COLUMN, rejected = COLUMN`, and `prompt = COLUMN` if there is one";
            return Err([message, help.to_owned()]);
        }
        let smooths = matches!(
            self.loss.loss,
            PreferenceLoss::Sigmoid | PreferenceLoss::Robust | PreferenceLoss::Simpo
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
        self.compares
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
        losses_of_answers(model, net, hidden)
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
