//! `causal_lm`: each token from those before it.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Answer, Details, Form, Head, Names, Reads, Scored, Task, TaskKind};
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::Schema;
use crate::library::tokenizer::Tokenizer;
use crate::program::{Pick, Value};

/// The next token: cross-entropy over the vocabulary.
#[derive(Debug)]
struct CausalLm;

static SCHEMA: Schema = Schema {
    name: "causal_lm",
    summary: "the next token of a text: cross-entropy over the vocabulary at every place",
    doc: "A text is what the tokenizer makes of it, with the token that ends a text behind it (`eos_token`), once. Every \
          token but the first is told from those before it. The model's own head tells them; the loss is the mean over all \
          told tokens of an optimizer step. No logits of a whole batch are ever in memory. Labels are not read.",
    paper: "Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
    keys: &[],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    make: |_| Arc::new(CausalLm),
};

impl Task for CausalLm {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Token
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        pair: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        if pair {
            return Err([
                "a language model reads one text a row, and the data name two columns",
                "name one column in `text`",
            ]);
        }
        Ok(Some(Reads::Next))
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::CausalLm
    }

    fn ends_texts(&self) -> bool {
        true
    }

    fn width(&self, _: usize) -> u64 {
        2
    }

    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let head = model.causal_lm()?.head(net);
        let (loss, rows) = net.head_loss(hidden, &head);
        Some((rows, loss))
    }

    fn loss_of(&self, scores: &[f32], _: &Target) -> f64 {
        scores.first().copied().map_or(0.0, f64::from)
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Class(scores.get(1).copied().unwrap_or_default() as u32)
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["perplexity", "token_accuracy"]
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["position", "token", "prediction", "loss"]
            .map(str::to_owned)
            .to_vec()
    }

    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        let loss = row.scores.first().copied().unwrap_or_default();
        vec![
            // That of the token that is told, not of the one before it.
            (row.position + 1).to_string(),
            names.token(row.target),
            names.token(row.predicted),
            loss.to_string(),
        ]
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: Form) -> Result<Vec<Added>, String> {
        Err(
            "it was trained to tell the next token and labels nothing; generating text is not built yet"
                .to_owned(),
        )
    }

    fn values(&self, _: &[String], _: Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
