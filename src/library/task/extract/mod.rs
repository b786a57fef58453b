//! `extract`: the part of a text that answers a question.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{
    Answer, Asked, Details, Gathered, Head, Names, Reads, Scored, Task, TaskKind, added, choose,
    number,
};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::metric::{Predictions, TextPair, metric, says_something};
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Bound, Given, Maybe, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::op::{BinaryKind, Broadcast, Columns, Constant, Elementwise};
use crate::program::{Axis, Builder, DType, Feed, Pick, Real, TargetKind, Value};
use best::{Answered, Candidate, Limits, answered, highest};
pub use windows::{BEGINS, ENDS, Windows};
use windows::{Seen, seen};

mod best;
mod windows;

/// A part of a context: cross-entropy of its first and of its last token, each over the tokens of a window.
#[derive(Debug)]
struct Extract {
    stride: u64,
    n_best: u64,
    max_answer_length: u64,
    null_threshold: Option<f64>,
}

/// Its name.
const NAME: &str = "extract";

const STRIDE: Given<u64> = Given::<u64>::new(
    "stride",
    kind::int(0, 1 << 15),
    (128, "128"),
    "tokens that two windows of a context which follow each other have in common, where it is longer than `max_length` allows",
);

const N_BEST: Given<u64> = Given::<u64>::new(
    "n_best",
    kind::int(1, 1000),
    (20, "20"),
    "how many of the likeliest beginnings and ends of a window are paired, and how many answers of a question are compared",
);

const MAX_ANSWER_LENGTH: Given<u64> = Given::<u64>::new(
    "max_answer_length",
    kind::int(1, 1 << 20),
    (30, "30"),
    "most tokens of an answer",
);

const NULL_THRESHOLD: Maybe<f64> = Maybe::new(
    "null_threshold",
    kind::float(Bound::None, Bound::None),
    "questions may have no answer, as in version 2 of SQuAD: none is given where its score, of the first token as beginning and end, is higher than the \
     best answer's by more than this; 0 is usual. If not written, every question has an answer",
);

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "the part of a text that answers a question: cross-entropy of its first and its last token on a head with two scores a token",
    doc: "Reads data with `question`, `context` and `answers`. Question and context are read as a pair of texts; of a context that is too long windows are \
          read, which share `stride` tokens. The head gives each token a score as beginning and one as end (`…ForQuestionAnswering` of transformers). \
          The loss is the mean of both cross-entropies over a window's tokens, and of the windows of a batch, which `batch` counts. A window that \
          does not hold the answer whole has the first token as beginning and end. The answer is the pair of a window's context with the highest \
          sum, as in `run_qa.py`.",
    paper: "Rajpurkar et al. 2016 (arXiv 1606.05250), 2018 (arXiv 1806.03822); Devlin et al. 2019 (arXiv 1810.04805), sections 4.2 and 4.3",
    keys: &[
        STRIDE.key(),
        N_BEST.key(),
        MAX_ANSWER_LENGTH.key(),
        NULL_THRESHOLD.key(),
    ],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: Some("ForQuestionAnswering"),
    make: |values| {
        Arc::new(Extract {
            stride: STRIDE.find(values).unwrap_or(128),
            n_best: N_BEST.find(values).unwrap_or(20),
            max_answer_length: MAX_ANSWER_LENGTH.find(values).unwrap_or(30),
            null_threshold: NULL_THRESHOLD.get(values),
        })
    },
};

/// A row of the data: its number, its context with the answers that are right, and its windows with what is left of their scores.
struct Row {
    number: u32,
    context: String,
    right: Vec<String>,
    windows: Vec<(Seen, Target)>,
}

/// The rows of a split, from their windows.
fn rows(set: &EncodedSet, all: &Predictions) -> Vec<Row> {
    let mut list: Vec<Row> = Vec::new();
    for (example, scores) in (0_u32..).zip(&all.predicted) {
        let tokens = set.learned_of(example).unwrap_or(0) as usize;
        let label = set.label(example);
        let Some(mut seen) = (match &label {
            Some(Target::Each(label)) => seen(label, tokens),
            _ => None,
        }) else {
            continue;
        };
        if let Some((context, right)) = seen.row.take() {
            list.push(Row {
                number: set.row(example).unwrap_or(example),
                context,
                right,
                windows: Vec::new(),
            });
        }
        if let Some(row) = list.last_mut() {
            row.windows.push((seen, scores.clone()));
        }
    }
    list
}

impl Row {
    fn text(&self, of: &Candidate) -> &str {
        let own = of
            .at
            .and_then(|[from, to]| self.context.get(from as usize..to as usize));
        own.unwrap_or_default()
    }

    /// The character of the context at which an answer begins; nothing for no answer.
    fn start(&self, of: &Candidate) -> Json {
        let before = of
            .at
            .and_then(|[from, _]| self.context.get(..from as usize));
        before.map_or(Json::Null, |before| json!(before.chars().count()))
    }
}

impl Extract {
    fn limits(&self) -> Limits {
        Limits {
            most: usize::try_from(self.n_best).unwrap_or(usize::MAX),
            length: u32::try_from(self.max_answer_length).unwrap_or(u32::MAX),
            threshold: self.null_threshold,
        }
    }

    /// What `predict` adds to a row.
    fn said(&self, row: &Row, own: &Answered, form: super::Form) -> Vec<Json> {
        let chosen = own.own.and_then(|at| own.all.get(at));
        let mut list = vec![
            json!(chosen.map_or("", |one| row.text(one))),
            chosen.map_or(Json::Null, |one| row.start(one)),
            chosen.map_or(Json::Null, |one| number(one.probability)),
        ];
        if self.null_threshold.is_some() {
            list.push(own.none.map_or(Json::Null, number));
        }
        if form.all {
            let all = own.all.iter().map(|one| {
                json!({
                    "answer": row.text(one), "start": row.start(one), "score": number(one.score.into()), "probability": number(one.probability),
                })
            });
            let all: Json = all.collect();
            list.push(match form.nested {
                true => all,
                false => Json::String(all.to_string()),
            });
        }
        list
    }

    /// The names of what is said of a row.
    fn names(&self) -> Vec<&'static str> {
        let more = self.null_threshold.map(|_| "null_score");
        ["answer", "start", "probability"]
            .into_iter()
            .chain(more)
            .collect()
    }
}

/// The answers that one is compared with, as in SQuAD's script of version 2: one of articles and marks alone is none, and where there is none,
/// no answer is right.
fn compared(mut right: Vec<String>) -> Vec<String> {
    right.retain(|text| says_something(text));
    if right.is_empty() {
        right.push(String::new());
    }
    right
}

/// The column of scores as beginnings or as ends: `[R, 2] → [R, 1]`.
fn column(b: &mut Builder, scores: Value, at: u32) -> Value {
    let own = Columns {
        from: at,
        to: at + 1,
        groups: 1,
    };
    b.push1(own, &[scores])
}

impl Task for Extract {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn options(&self) -> Vec<(&'static str, f64)> {
        let own = [
            (STRIDE.name(), self.stride),
            (N_BEST.name(), self.n_best),
            (MAX_ANSWER_LENGTH.name(), self.max_answer_length),
        ];
        let threshold = self.null_threshold.map(|x| (NULL_THRESHOLD.name(), x));
        own.map(|(key, n)| (key, n as f64))
            .into_iter()
            .chain(threshold)
            .collect()
    }

    fn answer(&self) -> Answer {
        Answer::Part
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Parts(Arc::default())))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        if form == Form::Question {
            return Ok(Learn::Nothing);
        }
        let message = format!(
            "`{NAME}` answers questions, and these data have {}",
            form.what()
        );
        let help = "name the columns: `question = COLUMN, context = COLUMN, answers = COLUMN`";
        Err([message, help.to_owned()])
    }

    fn windows(&self) -> Option<Windows> {
        Some(Windows {
            stride: to_u32(usize::try_from(self.stride).unwrap_or(usize::MAX)),
            unanswered: self.null_threshold.is_some(),
        })
    }

    fn scores_places(&self) -> bool {
        false
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::Parts
    }

    fn head_modules(&self, model: &dyn Model) -> &'static [&'static str] {
        model.extracts().map_or(&[], |head| head.modules())
    }

    fn width(&self, _: usize) -> u64 {
        2
    }

    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        _: (usize, &[u32]),
    ) -> Value {
        model
            .extracts()
            .map_or(hidden, |head| head.bounds(net, hidden))
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let right = [
            b.feed(Feed::Owners),
            b.feed(Feed::Targets(TargetKind::Token)),
        ];
        let scale = b.feed(Feed::LossScale);
        let columns = [0_u32, 1].into_iter().zip(right);
        let each: Vec<Value> = columns
            .map(|(at, right)| {
                let own = column(b, scores, at);
                choose::against(b, (own, right), Axis::Read.dim())
            })
            .collect();
        let binary = |kind| Elementwise {
            kind,
            broadcast: Broadcast::Full,
        };
        let both = b.push1(binary(BinaryKind::Add), &each);
        let half = Constant {
            value: Real::new(0.5),
            dtype: DType::F32,
        };
        let half = b.push1(half, &[]);
        let mean = b.push1(binary(BinaryKind::Mul), &[both, half]);
        b.push1(binary(BinaryKind::Mul), &[mean, scale])
    }

    fn loss_of(&self, _: &[f32], _: &Target) -> f64 {
        0.0
    }

    /// What is kept of the scores of a window.
    fn predict(&self, scores: &[f32]) -> Target {
        highest(scores, self.limits().most)
    }

    fn gathers(&self) -> bool {
        true
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, asked: Asked<'_>) -> Option<Gathered> {
        let mut gathered = Gathered::default();
        for row in rows(set, all) {
            let windows = row.windows.iter().map(|(seen, scores)| (seen, scores));
            let own = answered(windows, &row.context, self.limits());
            if let Some(form) = asked.form {
                gathered.values.push(self.said(&row, &own, form));
            }
            let plain = super::Form {
                all: false,
                nested: false,
            };
            let said = self.said(&row, &own, plain);
            let generated = said
                .first()
                .and_then(Json::as_str)
                .unwrap_or_default()
                .to_owned();
            let cells = said.into_iter().map(|value| match value {
                Json::String(text) => text,
                Json::Null => String::new(),
                other => other.to_string(),
            });
            let right: Json = row.right.iter().map(String::as_str).collect();
            let cells = std::iter::once(right.to_string()).chain(cells);
            gathered.cells.push((row.number, cells.collect()));
            // Whether there is an answer is said of the data, whatever its words.
            let has = Target::Class(u32::from(!row.right.is_empty()));
            let references = compared(row.right);
            let predictions = &mut gathered.predictions;
            predictions.targets.push(has);
            predictions.predicted.push(Target::None);
            predictions.texts.push(TextPair {
                generated,
                references,
            });
        }
        gathered.predictions.loss = all.loss;
        Some(gathered)
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["answer_match", "token_f1", "loss"]
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        let own = self.names().into_iter();
        std::iter::once("answers")
            .chain(own)
            .map(str::to_owned)
            .collect()
    }

    fn cells(&self, _: Names<'_>, _: Scored<'_>) -> Vec<String> {
        vec![String::new(); self.names().len() + 1]
    }

    fn row_bytes(&self, _: &[String]) -> u64 {
        // Some answers of a few words.
        160
    }

    fn details(&self, _: &[String], predictions: &Predictions) -> Details {
        let mut details = Details::default();
        if self.null_threshold.is_none() {
            return details;
        }
        for (name, has) in [("answerable", 1), ("unanswerable", 0)] {
            let all = predictions.texts.iter().zip(&predictions.targets);
            let own = all.filter(|(_, target)| **target == Target::Class(has));
            let own = Predictions {
                texts: own.map(|(pair, _)| pair.clone()).collect(),
                ..Predictions::default()
            };
            let value = |name: &str| metric(name).map_or(0.0, |metric| metric.compute(&own));
            let said = json!({
                "rows": own.texts.len(), "answer_match": value("answer_match"), "token_f1": value("token_f1"),
            });
            details.entries.insert(name.to_owned(), said);
        }
        details
    }

    fn answers(&self, _: &[String], form: super::Form) -> Result<Vec<Added>, String> {
        let own = self
            .names()
            .into_iter()
            .map(|name| added(name, name != "answer"));
        let all = form.all.then(|| added("candidates", false));
        Ok(own.chain(all).collect())
    }

    fn values(&self, _: &[String], form: super::Form, _: &[f32]) -> Vec<Json> {
        vec![Json::Null; self.names().len() + usize::from(form.all)]
    }

    fn exported_class(&self, model: &dyn Model) -> String {
        model
            .exported_class()
            .replace("SequenceClassification", "QuestionAnswering")
    }

    fn export(&self, config: &mut Map<String, Json>, _: &[String]) {
        // The class has as many scores as there are labels, two where none is named.
        for key in [
            "problem_type",
            "id2label",
            "label2id",
            "num_labels",
            "_num_labels",
        ] {
            config.shift_remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
