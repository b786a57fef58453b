//! `classify`: one of several classes a text.

use std::sync::Arc;

use super::r_drop::{R_DROP, RDrop};
use super::weighting::{CLASS_WEIGHTS, FOCAL, LABEL_SMOOTHING, Weighting};
use super::{Classes, Task, TaskKind};
use crate::base::{Diag, Span};
use crate::library::data::tokens::Target;
use crate::library::schema::Schema;
use crate::program::{Builder, Value};

/// One of several classes: cross-entropy on the sequence head.
#[derive(Debug)]
struct Classify {
    /// How classes and labels weigh in training.
    weighting: Weighting,
    r_drop: RDrop,
}

static SCHEMA: Schema = Schema {
    name: "classify",
    summary: "one of several classes: cross-entropy on the task head",
    doc: "The loss is the mean over the texts of a batch. With `class_weights` it is the mean by the weights of their classes, and with \
          `label_smoothing` a share of each label stands for all classes alike, as in torch's \
          `CrossEntropyLoss(weight, label_smoothing)`. With `focal` each text counts (1 − p)^γ, p the probability of its class (Lin et al. 2017, arXiv \
          1708.02002).",
    paper: "",
    keys: &[
        CLASS_WEIGHTS.key(),
        LABEL_SMOOTHING.key(),
        FOCAL.key(),
        R_DROP.key(),
    ],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: Some("single_label_classification"),
    class: None,
    make: |values| {
        Arc::new(Classify {
            weighting: Weighting::of(values),
            r_drop: RDrop::of(values),
        })
    },
};

impl Task for Classify {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn training_loss(&self, b: &mut Builder, scores: Value) -> Value {
        let own = self.weighting.cross_entropy(b, scores);
        own.unwrap_or_else(|| self.loss(b, scores))
    }

    fn weight_of(&self, label: &Target) -> f64 {
        self.weighting.of_label(label)
    }

    fn class_weights(&self) -> &[f32] {
        self.weighting.each()
    }

    fn on_classes(&self, classes: Classes<'_>) -> Result<Option<Arc<dyn Task>>, Box<Diag>> {
        let weighting = self.weighting.on_classes(classes)?;
        let r_drop = self.r_drop;
        Ok(weighting.map(|weighting| Arc::new(Self { weighting, r_drop }) as _))
    }

    fn r_drop(&self) -> Option<f64> {
        self.r_drop.alpha()
    }

    fn training_keys(&self) -> Vec<(&'static str, Span)> {
        let own = self.weighting.written().into_iter();
        own.chain(self.r_drop.written()).collect()
    }
}
