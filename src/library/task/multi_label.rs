//! `multi_label`: any number of several classes a text.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::weighting::{POSITIVE_WEIGHTS, Weighting};
use super::{
    Answer, Classes, Details, Form, Names, Scored, Task, TaskKind, added, label_keys, number,
};
use crate::base::{Diag, Span};
use crate::library::counts::to_u32;
use crate::library::data::tokens::Target;
use crate::library::metric::{Confusion, Predictions};
use crate::library::rows::Added;
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::program::op::BinaryCrossEntropy;
use crate::program::{Builder, Feed, TargetKind, Value};

/// Any number of several classes: binary cross-entropy on the sequence head.
#[derive(Debug)]
struct MultiLabel {
    /// Probability from which on a class is predicted.
    threshold: f64,
    /// How classes weigh in training.
    weighting: Weighting,
}

const THRESHOLD: Given<f64> = Given::<f64>::new(
    "threshold",
    kind::float(Bound::Excl(0.0), Bound::Excl(1.0)),
    (0.5, "0.5"),
    "probability from which on a class is predicted; it changes no training, and an `eval` stage may write another one",
);

static SCHEMA: Schema = Schema {
    name: "multi_label",
    summary: "any number of several classes: binary cross-entropy on the task head",
    doc: "The head gives one score a class, and each is a yes or no of its own: the class is predicted where its probability, \
          1 / (1 + exp(-score)), is at least `threshold`. The loss is the mean over the classes and the texts of a batch, as that \
          of transformers' `problem_type = \"multi_label_classification\"`. Labels are lists (of JSON, JSONL and Parquet), or texts \
          that the data set's `label_separator` divides; an empty list is a text of no class.",
    paper: "",
    keys: &[POSITIVE_WEIGHTS.key(), THRESHOLD.key()],
};

/// The threshold where none is written.
const USUAL_THRESHOLD: f64 = 0.5;

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: Some("multi_label_classification"),
    class: None,
    make: |values| {
        Arc::new(MultiLabel {
            threshold: THRESHOLD.find(values).unwrap_or(USUAL_THRESHOLD),
            weighting: Weighting::of(values),
        })
    },
};

/// The probability that a score stands for.
fn probability(score: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(score)).exp())
}

impl MultiLabel {
    /// The classes that scores predict, ascending.
    fn classes<'a>(&'a self, scores: &'a [f32]) -> impl Iterator<Item = u32> + 'a {
        let scores = (0_u32..).zip(scores);
        let predicted = scores.filter(|(_, score)| probability(**score) >= self.threshold);
        predicted.map(|(class, _)| class)
    }
}

/// A list of classes in a table: JSON, so that no name can be taken for two.
fn listed(names: Names<'_>, of: &Target) -> String {
    match of {
        Target::Classes(classes) => {
            let list: Vec<&str> = classes.iter().map(|&class| names.class(class)).collect();
            json!(list).to_string()
        }
        _ => String::new(),
    }
}

impl Task for MultiLabel {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn options(&self) -> Vec<(&'static str, f64)> {
        vec![("threshold", self.threshold)]
    }

    fn answer(&self) -> Answer {
        Answer::Classes
    }

    fn least_classes(&self) -> usize {
        1
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let classes = b.ty(scores).shape.last().and_then(|n| n.as_const());
        let targets = b.feed(Feed::Targets(TargetKind::ClassSet {
            classes: to_u32(classes.unwrap_or(0)),
        }));
        b.push1(BinaryCrossEntropy, &[scores, targets, scale])
    }

    fn training_loss(&self, b: &mut Builder, scores: Value) -> Value {
        let own = self.weighting.binary(b, scores);
        own.unwrap_or_else(|| self.loss(b, scores))
    }

    fn class_weights(&self) -> &[f32] {
        self.weighting.each()
    }

    fn on_classes(&self, classes: Classes<'_>) -> Result<Option<Arc<dyn Task>>, Box<Diag>> {
        let weighting = self.weighting.on_classes(classes)?;
        Ok(weighting.map(|weighting| Arc::new(Self { weighting, ..*self }) as _))
    }

    fn training_keys(&self) -> Vec<(&'static str, Span)> {
        self.weighting.written()
    }

    fn loss_of(&self, scores: &[f32], target: &Target) -> f64 {
        let Target::Classes(classes) = target else {
            return 0.0;
        };
        let each = (0_u32..).zip(scores).map(|(class, &score)| {
            let (x, own) = (f64::from(score), classes.contains(&class));
            x.max(0.0) - if own { x } else { 0.0 } + (-x.abs()).exp().ln_1p()
        });
        each.sum::<f64>() / scores.len().max(1) as f64
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["f1_micro", "f1_macro", "subset_accuracy"]
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Classes(Arc::new(self.classes(scores).collect()))
    }

    fn row_bytes(&self, classes: &[String]) -> u64 {
        // Label and prediction may name every class, in quotes that stand in quotes.
        let names: usize = classes.iter().map(|name| name.len() + 5).sum();
        24 + 13 * classes.len() as u64 + 2 * names as u64
    }

    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        let first = [listed(names, row.target), listed(names, row.predicted)];
        let scores = row.scores.iter().map(f32::to_string);
        first.into_iter().chain(scores).collect()
    }

    fn details(&self, classes: &[String], predictions: &Predictions) -> Details {
        if predictions.sets().next().is_none() {
            return Details::default();
        }
        let confusion = Confusion::of(predictions);
        let each = (0_u32..).zip(classes).map(|(class, name)| {
            let own = confusion.class(class);
            json!({
                "name": name, "support": own.support, "predicted": own.predicted, "precision": own.precision,
                "recall": own.recall, "f1": own.f1,
            })
        });
        let mut entries = Map::new();
        entries.insert("classes".to_owned(), each.collect());
        // No class is taken for another where each is decided by itself.
        entries.insert("confusion".to_owned(), Json::Null);
        entries.insert("confused".to_owned(), json!([]));
        Details {
            entries,
            doubts: Vec::new(),
        }
    }

    fn answers(&self, classes: &[String], form: Form) -> Result<Vec<Added>, String> {
        let mut list = vec![added("prediction", false), added("probability", false)];
        match (form.all, form.nested) {
            (false, _) => {}
            (true, true) => list.push(added("probabilities", false)),
            (true, false) => {
                let each = classes
                    .iter()
                    .map(|c| added(format!("probability_{c}"), true));
                list.extend(each);
            }
        }
        Ok(list)
    }

    fn values(&self, classes: &[String], form: Form, scores: &[f32]) -> Vec<Json> {
        let name = |class: u32| classes.get(class as usize).map_or("?", String::as_str);
        let of = |class: u32| {
            let score = scores.get(class as usize).copied();
            number(score.map_or(0.0, probability))
        };
        let names: Vec<&str> = self.classes(scores).map(name).collect();
        let probabilities: Vec<Json> = self.classes(scores).map(of).collect();
        let mut list: Vec<Json> = [json!(names), json!(probabilities)]
            .into_iter()
            .map(|list| {
                if form.nested {
                    list
                } else {
                    json!(list.to_string())
                }
            })
            .collect();
        let all = (0_u32..).zip(classes);
        match (form.all, form.nested) {
            (false, _) => {}
            (true, true) => {
                let pairs = all.map(|(class, name)| (name.clone(), of(class)));
                list.push(Json::Object(pairs.collect()));
            }
            (true, false) => list.extend(all.map(|(class, _)| of(class))),
        }
        list
    }

    fn export(&self, config: &mut Map<String, Json>, classes: &[String]) {
        label_keys(config, classes);
        config.insert("problem_type".into(), json!("multi_label_classification"));
    }
}
