//! `multiple_choice`: the likeliest of several options to go on with a text.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{Answer, Asked, Details, Gathered, Head, Names, Reads, Scored, Task, TaskKind};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::{Pick, Value};

/// The likeliest of several options.
#[derive(Debug)]
struct MultipleChoice {
    delimiter: String,
    special_tokens: bool,
}

const DELIMITER: Given<str> = Given::<str>::new(
    "delimiter",
    kind::STR,
    (" ", "\" \""),
    "what stands between a prompt and an option",
);
const SPECIAL_TOKENS: Given<bool> = Given::<bool>::new(
    "special_tokens",
    kind::BOOL,
    (true, "true"),
    "put before a prompt what the tokenizer puts before a text, such as BOS; `false` is what lm-evaluation-harness does without `add_bos_token`",
);

/// Its name.
pub(super) const NAME: &str = "multiple_choice";

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "the likeliest of several options to go on with a prompt, by the model's own head: for `eval`",
    doc: "Reads data with `prompt`, `choices` and `answer`. An option's log-likelihood is the sum over its tokens behind the prompt, with \
          `delimiter` between both and nothing behind it, as in lm-evaluation-harness (`output_type: multiple_choice`): prompt and option are one \
          text, and the space that the prompt ends with belongs to the option. A text longer than `max_length` loses its beginning. `acc` takes \
          the option with the largest sum, `acc_norm` that of the largest sum a byte of the option, `acc_token` a token.",
    paper: "",
    keys: &[DELIMITER.key(), SPECIAL_TOKENS.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(MultipleChoice {
            delimiter: DELIMITER.find(values).unwrap_or(" ").to_owned(),
            special_tokens: SPECIAL_TOKENS.find(values).unwrap_or(true),
        })
    },
};

/// The first of the largest.
fn largest(list: &[f64]) -> u32 {
    let mut best = 0;
    for (place, x) in list.iter().enumerate() {
        if list.get(best).is_some_and(|high| x > high) {
            best = place;
        }
    }
    to_u32(best)
}

impl Task for MultipleChoice {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Choice
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
        if form == Form::Choices {
            return Ok(Learn::Completion);
        }
        let message = format!(
            "`multiple_choice` compares options, and these data have {}",
            form.what()
        );
        let help = "name the columns: `prompt = COLUMN, choices = COLUMN, answer = COLUMN`";
        Err([message, help.to_owned()])
    }

    fn option(&self) -> Option<(&str, bool)> {
        Some((&self.delimiter, self.special_tokens))
    }

    fn scores_places(&self) -> bool {
        false
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

    fn width(&self, _: usize) -> u64 {
        1
    }

    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let head = model.causal_lm()?.head(net);
        let (loss, rows) = net.head_loss(hidden, &head);
        Some((net.losses_of_texts(rows), loss))
    }

    fn loss_of(&self, scores: &[f32], _: &Target) -> f64 {
        scores.first().copied().map_or(0.0, f64::from)
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Score(scores.first().copied().unwrap_or_default())
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, _: Asked<'_>) -> Option<Gathered> {
        let mut gathered = Gathered::default();
        let mut loss = 0.0;
        let mut begin = 0_u32;
        while (begin as usize) < all.predicted.len() {
            let row = set.row(begin);
            let mut end = begin + 1;
            while (end as usize) < all.predicted.len() && set.row(end) == row {
                end += 1;
            }
            let sum = |i: u32| match all.predicted.get(i as usize) {
                Some(Target::Score(loss)) => -f64::from(*loss),
                _ => f64::NEG_INFINITY,
            };
            let sums: Vec<f64> = (begin..end).map(sum).collect();
            let over = |of: &dyn Fn(u32) -> u32| -> Vec<f64> {
                let each = (begin..end).zip(&sums);
                each.map(|(i, sum)| sum / f64::from(of(i).max(1))).collect()
            };
            let best = [
                largest(&sums),
                largest(&over(&|i| set.mask(i).unwrap_or(1))),
                largest(&over(&|i| set.learned_of(i).unwrap_or(1))),
            ];
            let right = match set.label(begin) {
                Some(Target::Class(right)) => right,
                _ => u32::MAX,
            };
            loss -= sums.get(right as usize).copied().unwrap_or(0.0);
            let mut cells: Vec<String> = vec![right.to_string()];
            cells.extend(best.iter().map(u32::to_string));
            cells.push(json!(sums).to_string());
            gathered.cells.push((row.unwrap_or(begin), cells));
            let predictions = &mut gathered.predictions;
            predictions.targets.push(Target::Class(right));
            predictions
                .predicted
                .push(Target::Classes(Arc::new(best.to_vec())));
            begin = end;
        }
        gathered.predictions.loss = loss / gathered.cells.len().max(1) as f64;
        Some(gathered)
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["acc", "acc_norm", "acc_token", "loss"]
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        [
            "answer",
            "choice",
            "choice_norm",
            "choice_token",
            "loglikelihoods",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn cells(&self, _: Names<'_>, _: Scored<'_>) -> Vec<String> {
        vec![String::new(); 5]
    }

    fn row_bytes(&self, _: &[String]) -> u64 {
        48
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Err("it compares options and labels nothing".to_owned())
    }

    fn values(&self, _: &[String], _: super::Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
