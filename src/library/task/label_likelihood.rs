//! `label_likelihood`: the class whose label a language model finds likeliest behind a prompt.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::calibration::{CALIBRATE, Calibration, gathered};
use super::{Answer, Asked, Gathered, Head, Names, Reads, Scored, Task, TaskKind};
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

/// The likeliest label.
#[derive(Debug)]
struct LabelLikelihood {
    mean: bool,
    special_tokens: bool,
    calibration: Calibration,
}

const BY: Given<str> = Given::<str>::new(
    "by",
    kind::choice(&["sum", "mean"]),
    ("sum", "sum"),
    "a label's score: the sum of its tokens' log-probabilities, or their mean",
);
const SPECIAL_TOKENS: Given<bool> = Given::<bool>::new(
    "special_tokens",
    kind::BOOL,
    (true, "true"),
    "put before a prompt what the tokenizer puts before a text, such as BOS",
);

static SCHEMA: Schema = Schema {
    name: "label_likelihood",
    summary: "the class whose label is likeliest behind a prompt, by a language model's own head: in-context learning, for `eval`",
    doc: "The prompt's template is filled up to `{mask}`, behind its demonstrations (`demonstration_place = before`), and each class's label is \
          scored as what goes on: the words of `verbalizer`, of any number of tokens, or the names of the classes. A softmax over the labels' scores gives \
          their probabilities. Of a text that is too long the longest column is cut.",
    paper: "Brown et al. 2020 (arXiv 2005.14165); Zhao et al. 2021 (arXiv 2102.09690)",
    keys: &[BY.key(), CALIBRATE.key(), SPECIAL_TOKENS.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(LabelLikelihood {
            mean: BY.find(values) == Some("mean"),
            special_tokens: SPECIAL_TOKENS.find(values).unwrap_or(true),
            calibration: Calibration::of(values),
        })
    },
};

impl Task for LabelLikelihood {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Class
    }

    fn trains(&self) -> bool {
        false
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
        if form == Form::Text {
            return Ok(Learn::Nothing);
        }
        let message = format!(
            "`{}` reads labelled texts, and these data have {}",
            self.name(),
            form.what()
        );
        let help = "name the columns: `text = COLUMN, label = COLUMN`; options of a row's own are compared with `objective = multiple_choice`";
        Err([message, help.to_owned()])
    }

    fn label_texts(&self) -> Option<bool> {
        Some(self.special_tokens)
    }

    fn content_free(&self) -> &[String] {
        &self.calibration.texts
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

    fn width(&self, _: usize) -> u64 {
        1
    }

    fn row_bytes(&self, classes: &[String]) -> u64 {
        24 + 13 * classes.len().max(1) as u64
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

    fn gathers(&self) -> bool {
        true
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, asked: Asked<'_>) -> Option<Gathered> {
        let one = |i: u32| {
            let loss = match all.predicted.get(i as usize) {
                Some(Target::Score(loss)) => *loss,
                _ => f32::INFINITY,
            };
            match self.mean {
                true => -loss / set.learned_of(i).unwrap_or(1).max(1) as f32,
                false => -loss,
            }
        };
        let labels = to_u32(asked.classes.len().max(1));
        Some(gathered((set, all.predicted.len()), asked, |places| {
            let begins = places.clone().step_by(labels as usize);
            begins
                .map(|begin| (begin..(begin + labels).min(places.end)).map(one).collect())
                .collect()
        }))
    }

    fn cells(&self, names: Names<'_>, _: Scored<'_>) -> Vec<String> {
        vec![String::new(); 2 + names.classes.len()]
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Err("it compares labels in an `eval` stage".to_owned())
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
