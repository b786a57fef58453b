//! `label_words`: the word that stands for the class, at a prompt's mask.

use std::sync::Arc;

use super::calibration::{CALIBRATE, Calibration, gathered};
use super::r_drop::{R_DROP, RDrop};
use super::weighting::{CLASS_WEIGHTS, FOCAL, LABEL_SMOOTHING, Weighting};
use super::{Asked, Classes, Gathered, Head, Task, TaskKind};
use crate::base::{Diag, Span};
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::error::IDLE_KEY;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::schema::Schema;
use crate::program::{Builder, Pick, Value};

/// The word for the class: cross-entropy over the label words alone.
#[derive(Debug)]
struct LabelWords {
    /// How classes and labels weigh in training.
    weighting: Weighting,
    r_drop: RDrop,
    /// What scores of evaluations are set off against.
    calibration: Calibration,
    /// Whether each word is scored for itself, none being of a class yet.
    each_word: bool,
}

static SCHEMA: Schema = Schema {
    name: "label_words",
    summary: "the word for the class at a prompt's mask: cross-entropy over the label words",
    doc: "The masked LM's own head scores the words of the prompt's verbalizer; the rest of the vocabulary is not \
          computed. The score of a class with several words is the mean of their logits, as PET has it.",
    paper: "Gao et al. 2021 (arXiv 2012.15723), section 4.1; Schick and Schütze 2021 (arXiv 2001.07676), section 3.1",
    keys: &[
        CLASS_WEIGHTS.key(),
        LABEL_SMOOTHING.key(),
        FOCAL.key(),
        R_DROP.key(),
        CALIBRATE.key(),
    ],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(LabelWords {
            weighting: Weighting::of(values),
            r_drop: RDrop::of(values),
            calibration: Calibration::of(values),
            each_word: false,
        })
    },
};

/// The task whose scores are those of each word.
pub(super) fn of_each_word() -> Arc<dyn Task> {
    Arc::new(LabelWords {
        weighting: Weighting::default(),
        r_drop: RDrop::default(),
        calibration: Calibration::default(),
        each_word: true,
    })
}

impl Task for LabelWords {
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
        if !self.calibration.texts.is_empty() {
            let message = "`calibrate` has no effect on a training";
            let diag = Diag::error(&IDLE_KEY, self.calibration.at, message);
            return Err(Box::new(diag.label("changes nothing").help(
                "remove it, and write `objective = label_words { calibrate = … }` in an `eval` stage",
            )));
        }
        let weighting = self.weighting.on_classes(classes)?;
        let own = |weighting| Self {
            weighting,
            r_drop: self.r_drop,
            calibration: Calibration::default(),
            each_word: self.each_word,
        };
        Ok(weighting.map(|weighting| Arc::new(own(weighting)) as _))
    }

    fn r_drop(&self) -> Option<f64> {
        self.r_drop.alpha()
    }

    fn training_keys(&self) -> Vec<(&'static str, Span)> {
        let own = self.weighting.written().into_iter();
        own.chain(self.r_drop.written()).collect()
    }

    fn content_free(&self) -> &[String] {
        &self.calibration.texts
    }

    fn gathers(&self) -> bool {
        !self.calibration.texts.is_empty()
    }

    fn gathers_scores(&self) -> bool {
        self.gathers()
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, asked: Asked<'_>) -> Option<Gathered> {
        if !self.gathers() {
            return None;
        }
        let width = all.width.max(1);
        let of = |i: u32| {
            let at = i as usize * width;
            all.scores.get(at..at + width).unwrap_or_default().to_vec()
        };
        Some(gathered((set, all.predicted.len()), asked, |places| {
            places.map(of).collect()
        }))
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Mask
    }

    fn needs(&self) -> Head {
        Head::MaskedLm
    }

    fn reads_words(&self) -> bool {
        true
    }

    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        (classes, words): (usize, &[u32]),
    ) -> Value {
        let each = super::words(model, net, hidden, Some(words));
        if self.each_word || classes == 0 || model.masked_lm().is_none() {
            return each;
        }
        // They stand a word of each class after the other: `Prompt::words`.
        let (classes, all) = (classes as u64, words.len() as u64);
        let mut sum: Option<Value> = None;
        for from in (0..all / classes).map(|i| i * classes).skip(1) {
            let own = net.columns(each, from, from + classes);
            sum = Some(match sum {
                Some(sum) => net.add(sum, own),
                None => {
                    let first = net.columns(each, 0, classes);
                    net.add(first, own)
                }
            });
        }
        sum.map_or(each, |sum| net.scaled(sum, classes as f64 / all as f64))
    }
}
