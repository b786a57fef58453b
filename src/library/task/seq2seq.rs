//! `seq2seq`: what is to be made of a text, by an encoder with a decoder.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Answer, Details, Head, Names, Reads, Scored, Task, TaskKind, next_token};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::{Pick, Value};

/// The tokens of a target from its source.
#[derive(Debug)]
struct Seq2Seq {
    length: u64,
    skip_empty: bool,
}

/// Most tokens of a target where nothing is written.
pub const TARGET_LENGTH: u64 = 128;

const LENGTH: Given<u64> = Given::<u64>::new(
    "target_length",
    kind::int(1, 1 << 15),
    (TARGET_LENGTH, "128"),
    "most tokens of a target; a longer one loses its end, but for the tokens that the tokenizer puts behind a text. Where it is not \
          written, a model that has positions for fewer takes as many as it has. `max_length` bounds sources",
);
const SKIP_EMPTY: Given<bool> = Given::<bool>::tacit(
    "skip_empty",
    kind::BOOL,
    (false, "false"),
    "leave out rows of whose target there is no token; without it they are an error",
);

/// Its name.
pub(super) const NAME: &str = "seq2seq";

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "a target from its source: cross-entropy over the vocabulary at every token of the target",
    doc: "Reads data with `prompt`, which is the source, and `completion`, which is the target, for models of an encoder and a \
          decoder. Both are tokenized apart, as with `text_target` in transformers. The decoder reads the token that targets begin \
          with (`decoder_start_token_id`; of mBART and PLBart the target's own last token) and the target's tokens but for the last; it tells each token from those before it and from \
          the whole source. The loss is the mean over all tokens of targets of an optimizer step. No logits of a whole batch are ever in \
          memory. `generate` in an `eval` makes targets of sources, greedily, by draws or by `num_beams`, and `predict` does so.",
    paper: "Sutskever et al. 2014 (arXiv 1409.3215); Raffel et al. 2020 (arXiv 1910.10683)",
    keys: &[LENGTH.key(), SKIP_EMPTY.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(Seq2Seq {
            length: LENGTH.find(values).unwrap_or(TARGET_LENGTH),
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};

impl Task for Seq2Seq {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Token
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Targets {
            learned: Arc::default(),
            most: to_u32(self.length),
        }))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        if form == Form::Completion {
            return Ok(Learn::Completion);
        }
        let message = format!(
            "`seq2seq` learns targets from their sources, and these data have {}",
            form.what()
        );
        let help = "name both columns: `prompt = COLUMN, completion = COLUMN`";
        Err([message, help.to_owned()])
    }

    fn skips_empty(&self) -> bool {
        self.skip_empty
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::Seq2Seq
    }

    fn target_length(&self) -> Option<u64> {
        Some(self.length)
    }

    fn generates(&self) -> bool {
        true
    }

    fn width(&self, _: usize) -> u64 {
        next_token::WIDTH
    }

    fn logits(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<Value> {
        let head = model.seq2seq()?.head(net);
        Some(net.head_logits(hidden, &head))
    }

    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let head = model.seq2seq()?.head(net);
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
        // Of the target, from 0: the decoder reads the token before it there.
        next_token::cells(row.position, names, row)
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Err("it was trained to make targets of sources, and labels nothing".to_owned())
    }

    fn values(&self, _: &[String], _: super::Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
