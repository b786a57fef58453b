//! `classify`: one of several classes a text.

use std::sync::Arc;

use super::{Task, TaskKind};
use crate::library::schema::Schema;

/// One of several classes: cross-entropy on the sequence head.
#[derive(Debug)]
struct Classify;

static SCHEMA: Schema = Schema {
    name: "classify",
    summary: "one of several classes: cross-entropy on the task head",
    doc: "",
    paper: "",
    keys: &[],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: Some("single_label_classification"),
    make: |_| Arc::new(Classify),
};

impl Task for Classify {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }
}
