//! `causal_lm`: each token from those before it.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Answer, Details, Head, Names, Reads, Scored, Task, TaskKind, next_token};
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Given, Maybe, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::{Pick, Value};

/// The next token: cross-entropy over the vocabulary.
#[derive(Debug)]
struct CausalLm {
    learn: Option<Learn>,
    skip_empty: bool,
}

const LEARN: Maybe<str> = Maybe::new(
    "learn",
    kind::choice(&["completion", "all", "last"]),
    "which tokens are learned: `completion`, or what assistants say, with the token that ends it; `last` of the turns alone; or `all`. \
          If not written, `completion` where there is one, else `all`",
);
const SKIP_EMPTY: Given<bool> = Given::<bool>::tacit(
    "skip_empty",
    kind::BOOL,
    (false, "false"),
    "leave out rows of which nothing is learned, such as those whose prompt fills `max_length`; without it they are an error",
);

/// Its name.
pub(super) const NAME: &str = "causal_lm";

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "the next token of a text: cross-entropy over the vocabulary at every place",
    doc: "A text is what the tokenizer makes of it, with the token that ends a text behind it (`eos_token`), once. Every \
          token but the first is predicted from those before it. Of a prompt with its completion, the tokens are those of both as \
          one text, and the completion is learned; a token across the border belongs to it. A conversation is what the model's \
          chat template makes of it, and what assistants say is learned, with the token that ends their turn. The model's own head predicts \
          tokens; the loss is the mean over all learned tokens of an optimizer step. No logits of a whole batch are ever in \
          memory. Labels are not read.",
    paper: "Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
    keys: &[LEARN.key(), SKIP_EMPTY.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(CausalLm {
            learn: LEARN.get(values).map(|name| match name {
                "all" => Learn::All,
                "last" => Learn::Last,
                _ => Learn::Completion,
            }),
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
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
        Ok(Some(Reads::Next(Arc::default())))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        let refuse = |key: &str, lacks: &str| {
            let message =
                format!("`learn = {key}` has nothing to act on: a row of these data has {lacks}");
            let help =
                "remove `learn`: then a text is learned as a whole, and of others the completion";
            Err([message, help.to_owned()])
        };
        if let Form::Preference | Form::Choices = form {
            let task = if form == Form::Preference {
                "dpo"
            } else {
                "multiple_choice"
            };
            return Err([
                format!(
                    "these data have {}, and `causal_lm` learns one text a row",
                    form.what()
                ),
                format!(
                    "write `objective = {task}`, or name one text to learn: `prompt = COLUMN, completion = COLUMN`"
                ),
            ]);
        }
        match (form, self.learn) {
            (Form::Text, None) => Ok(Learn::All),
            (Form::Text, Some(Learn::Completion)) => refuse("completion", "no completion"),
            (Form::Text | Form::Completion, Some(Learn::Last)) => refuse("last", "no turns"),
            (_, Some(own)) => Ok(own),
            (_, None) => Ok(Learn::Completion),
        }
    }

    fn skips_empty(&self) -> bool {
        self.skip_empty
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
        next_token::WIDTH
    }

    fn logits(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<Value> {
        let head = model.causal_lm()?.head(net);
        Some(net.head_logits(hidden, &head))
    }

    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let head = model.causal_lm()?.head(net);
        Some(next_token::fused(net, hidden, &head))
    }

    fn loss_of(&self, scores: &[f32], _: &Target) -> f64 {
        next_token::loss_of(scores)
    }

    fn predict(&self, scores: &[f32]) -> Target {
        next_token::predict(scores)
    }

    fn metrics(&self) -> &'static [&'static str] {
        next_token::METRICS
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        next_token::columns()
    }

    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        // That of the predicted token, not of the one before it.
        next_token::cells(row.position + 1, names, row)
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Err(
            "it was trained to tell the next token: it goes on with texts and labels nothing"
                .to_owned(),
        )
    }

    fn values(&self, _: &[String], _: super::Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
