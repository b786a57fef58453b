//! `label_words`: the word that stands for the class, at a prompt's mask.

use std::sync::Arc;

use super::{Task, TaskKind};
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::schema::Schema;
use crate::program::Pick;
use crate::program::Value;

/// The word for the class: cross-entropy over the label words alone.
#[derive(Debug)]
struct LabelWords;

static SCHEMA: Schema = Schema {
    name: "label_words",
    summary: "the word for the class at a prompt's mask: cross-entropy over the label words",
    doc: "The masked LM's own head scores the words of the prompt's verbalizer; the rest of the vocabulary is not \
          computed.",
    paper: "Gao et al. 2021 (arXiv 2012.15723), section 4.1",
    keys: &[],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    make: |_| Arc::new(LabelWords),
};

impl Task for LabelWords {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn pick(&self) -> Pick {
        Pick::Mask
    }

    fn on_masked_lm(&self) -> bool {
        true
    }

    fn reads_words(&self) -> bool {
        true
    }

    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        (_, words): (usize, &[u32]),
    ) -> Value {
        model.words(net, hidden, Some(words))
    }
}
