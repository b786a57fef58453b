//! `choose`: one of several options of a row, by a head that scores each of them with its prompt.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{
    Answer, Asked, Details, Gathered, Head, Names, Reads, Scored, Task, TaskKind, added, number,
    one_class,
};
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::metric::{Predictions, best};
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::Schema;
use crate::library::tokenizer::Tokenizer;
use crate::program::op::{
    BinaryKind, Broadcast, Elementwise, Gather, Over, Reduce, ReduceKind, Scatter, Unary, UnaryKind,
};
use crate::program::{Axis, Builder, DType, Dim, Feed, Pick, Value};

/// One of several options: cross-entropy over the scores of a row's options.
#[derive(Debug, Default)]
struct Choose {
    /// Options of each row; 0 where that is not known yet.
    options: u64,
}

/// Its name.
pub(super) const NAME: &str = "choose";

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "one of a row's options, by a head that scores each with its prompt: cross-entropy over the options",
    doc: "Reads data with `prompt`, `choices` and `answer`. Each option is read with its prompt as a pair of texts, and the head gives each pair \
          one score (`…ForMultipleChoice` of transformers). The scores of a row's options are what a softmax is taken over. All rows have the same number \
          of options, and `batch` counts rows. A language model compares options without a head: `objective = multiple_choice` in an `eval` stage.",
    paper: "Radford et al. 2018, Improving Language Understanding by Generative Pre-Training, section 3.3; Devlin et al. 2019 (arXiv 1810.04805), section 4.4",
    keys: &[],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: Some("ForMultipleChoice"),
    make: |_| Arc::new(Choose::default()),
};

/// The scores of each row's options, with the row's number and the place of its first option in the set.
fn rows(set: &EncodedSet, all: &Predictions) -> Vec<(u32, u32, Vec<f32>)> {
    let mut list: Vec<(u32, u32, Vec<f32>)> = Vec::new();
    for (example, predicted) in (0_u32..).zip(&all.predicted) {
        let row = set.row(example).unwrap_or(example);
        let score = match predicted {
            Target::Score(score) => *score,
            _ => f32::NEG_INFINITY,
        };
        match list.last_mut() {
            Some((own, _, scores)) if *own == row => scores.push(score),
            _ => list.push((row, example, vec![score])),
        }
    }
    list
}

/// `Σ ln Σ exp(s − s_right)` over groups, of scores `[N, 1]` and of each the place of its group's right one: `[1]`. Each score is compared
/// with the right one, to whose place the sums go; the other places get 0, of which the logarithm of 1 is taken.
pub(super) fn against(b: &mut Builder, (scores, right): (Value, Value), rows: Dim) -> Value {
    let out = DType::F32;
    let own = b.push1(Gather { out }, &[scores, right]);
    let binary = |kind| Elementwise {
        kind,
        broadcast: Broadcast::Full,
    };
    let unary = |kind| Unary { kind };
    let apart = b.push1(binary(BinaryKind::Sub), &[scores, own]);
    let powers = b.push1(unary(UnaryKind::Exp), &[apart]);
    let sums = b.push1(Scatter { rows }, &[right, powers]);
    let none = b.push1(binary(BinaryKind::Sub), &[sums, sums]);
    let empty = b.push1(binary(BinaryKind::Equal), &[sums, none]);
    let sums = b.push1(binary(BinaryKind::Add), &[sums, empty]);
    let losses = b.push1(unary(UnaryKind::Log), &[sums]);
    let all = Reduce {
        kind: ReduceKind::Sum,
        over: Over::All,
    };
    b.push1(all, &[losses])
}

impl Task for Choose {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Option
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Options))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        if form == Form::Choices {
            return Ok(Learn::Nothing);
        }
        let message = format!(
            "`{NAME}` compares options, and these data have {}",
            form.what()
        );
        let help = "name the columns: `prompt = COLUMN, choices = COLUMN, answer = COLUMN`";
        Err([message, help.to_owned()])
    }

    fn pairs_options(&self) -> bool {
        true
    }

    fn of_options(&self, options: u64) -> Option<Arc<dyn Task>> {
        Some(Arc::new(Self { options }))
    }

    fn group(&self) -> u64 {
        self.options.max(1)
    }

    fn scores_places(&self) -> bool {
        false
    }

    fn weight_of(&self, _: &Target) -> f64 {
        // A row has as many sequences, and counts once.
        1.0 / self.group() as f64
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::Options
    }

    fn head_modules(&self, model: &dyn Model) -> &'static [&'static str] {
        model.chooses().map_or(&[], |head| head.modules())
    }

    fn width(&self, _: usize) -> u64 {
        1
    }

    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        _: (usize, &[u32]),
    ) -> Value {
        model
            .chooses()
            .map_or(hidden, |head| head.score(net, hidden))
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let right = b.feed(Feed::Owners);
        let scale = b.feed(Feed::LossScale);
        let loss = against(b, (scores, right), Axis::Sequences.dim());
        let product = Elementwise {
            kind: BinaryKind::Mul,
            broadcast: Broadcast::Full,
        };
        b.push1(product, &[loss, scale])
    }

    fn loss_of(&self, _: &[f32], _: &Target) -> f64 {
        0.0
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Score(scores.first().copied().unwrap_or_default())
    }

    fn gathers(&self) -> bool {
        true
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, asked: Asked<'_>) -> Option<Gathered> {
        let mut gathered = Gathered::default();
        let mut loss = 0.0;
        for (row, first, scores) in rows(set, all) {
            let chosen = best(&scores);
            let target = set.label(first).unwrap_or(Target::None);
            let shares = one_class::softmax(&scores);
            let list: Json = shares.iter().copied().map(number).collect();
            let share = number(shares.get(chosen as usize).copied().unwrap_or_default());
            loss += one_class::loss_of(&scores, &target);
            let right = match target {
                Target::Class(right) => right.to_string(),
                _ => String::new(),
            };
            let cells = vec![
                right,
                chosen.to_string(),
                share.to_string(),
                list.to_string(),
            ];
            gathered.cells.push((row, cells));
            if let Some(form) = asked.form {
                let list = match form.nested {
                    true => list,
                    false => Json::String(list.to_string()),
                };
                gathered.values.push(vec![json!(chosen), share, list]);
            }
            let predictions = &mut gathered.predictions;
            predictions.targets.push(target);
            predictions.predicted.push(Target::Class(chosen));
        }
        gathered.predictions.loss = loss / gathered.cells.len().max(1) as f64;
        Some(gathered)
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["accuracy", "loss"]
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["answer", "choice", "probability", "probabilities"]
            .map(str::to_owned)
            .to_vec()
    }

    fn cells(&self, _: Names<'_>, _: Scored<'_>) -> Vec<String> {
        vec![String::new(); 4]
    }

    fn row_bytes(&self, _: &[String]) -> u64 {
        16 + 13 * (self.group() + 1)
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Ok(vec![
            added("choice", true),
            added("probability", true),
            added("probabilities", false),
        ])
    }

    fn values(&self, _: &[String], _: super::Form, _: &[f32]) -> Vec<Json> {
        vec![Json::Null; 3]
    }

    fn exported_class(&self, model: &dyn Model) -> String {
        model
            .exported_class()
            .replace("SequenceClassification", "MultipleChoice")
    }

    fn export(&self, config: &mut Map<String, Json>, _: &[String]) {
        config.shift_remove("problem_type");
    }
}
