//! `regress`: a number a text.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{Answer, Details, Form, Names, Scored, Task, TaskKind, added, label_keys, number};
use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::rows::Added;
use crate::library::schema::Schema;
use crate::program::op::SquaredError;
use crate::program::{Builder, Feed, TargetKind, Value};

/// A number: squared error on the sequence head.
#[derive(Debug)]
struct Regress;

static SCHEMA: Schema = Schema {
    name: "regress",
    summary: "a number: squared error on the task head",
    doc: "",
    paper: "",
    keys: &[],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: Some("regression"),
    class: None,
    make: |_| Arc::new(Regress),
};

impl Task for Regress {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Number
    }

    fn width(&self, _: usize) -> u64 {
        1
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let targets = b.feed(Feed::Targets(TargetKind::Number));
        b.push1(SquaredError, &[scores, targets, scale])
    }

    fn loss_of(&self, scores: &[f32], target: &Target) -> f64 {
        match (scores, target) {
            ([score, ..], Target::Score(target)) => f64::from(score - target).powi(2),
            _ => 0.0,
        }
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["pearson", "spearman"]
    }

    fn predict(&self, scores: &[f32]) -> Target {
        scores.first().map_or(Target::None, |&x| Target::Score(x))
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["label", "prediction", "score_value"]
            .map(str::to_owned)
            .to_vec()
    }

    fn cells(&self, _: Names<'_>, row: Scored<'_>) -> Vec<String> {
        let label = match row.target {
            Target::Score(x) => x.to_string(),
            _ => String::new(),
        };
        let value = row.scores.first().map(f32::to_string).unwrap_or_default();
        vec![label, value.clone(), value]
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], form: Form) -> Result<Vec<Added>, String> {
        if form.all {
            return Err(
                "`--all` gives the probability of every class, and this model gives a number"
                    .to_owned(),
            );
        }
        Ok(vec![added("prediction", true)])
    }

    fn values(&self, _: &[String], _: Form, scores: &[f32]) -> Vec<Json> {
        vec![number(f64::from(
            scores.first().copied().unwrap_or_default(),
        ))]
    }

    fn export(&self, config: &mut Map<String, Json>, _: &[String]) {
        label_keys(config, &["LABEL_0".to_owned()]);
        config.insert("problem_type".into(), json!("regression"));
    }
}
