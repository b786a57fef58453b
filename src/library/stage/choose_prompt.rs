//! `choose_prompt`: the best of several templates and label words, untrained (method P3).

use std::sync::Arc;

use super::super::schema::{Default, Key, Kind, RefKind, Registry, Schema, Values};
use super::super::task::{self, Task};
use super::job::{Choose, Job, Routine};
use super::keys;
use super::network::{evaluation, verified};
use super::train::{checked_metric, exactly_one, positive};
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};

/// Choosing a prompt.
#[derive(Debug)]
pub(super) struct ChoosePrompt;

static SCHEMA: Schema = Schema {
    name: "choose_prompt",
    summary: "score every template with every choice of label words, and keep the best",
    doc: "Each template is filled in for a split and read once by the masked LM; every assignment of one listed word \
          to each class is scored from the logits of all listed words at the mask. The best by `metric` is the choice, \
          the one with the lower mean loss among equals. A stage that says `prompt = NAME` of this stage takes it. \
          Until the choice is made such a stage is planned with the template that needs most memory. Leaves \
          `prompt.json` with the choice and `metrics.jsonl` with one line a candidate.",
    paper: "Gao et al. 2021 (arXiv 2012.15723), section 5",
    keys: &[
        Key {
            name: "model",
            kind: Kind::Ref(RefKind::Model),
            default: Default::Absent,
            doc: "the masked LM that scores",
        },
        Key {
            name: "from",
            kind: Kind::Ref(RefKind::Stage),
            default: Default::Absent,
            doc: "the stage whose result scores, instead of `model`",
        },
        Key {
            name: "data",
            kind: Kind::Ref(RefKind::Split),
            default: Default::Required,
            doc: "the split, with labels, that candidates are scored on",
        },
        Key {
            name: "templates",
            kind: Kind::Texts,
            default: Default::Required,
            doc: "texts with `{column}` and `{mask}`",
        },
        Key {
            name: "label_words",
            kind: Kind::Verbalizer,
            default: Default::Required,
            doc: "for each class a word, or a list of words, to choose from",
        },
        Key {
            name: "metric",
            kind: Kind::Entry(Registry::Metric),
            default: Default::Text("accuracy"),
            doc: "what the best is best by; among equals, the lower mean loss",
        },
        keys::POSITIVE,
        Key {
            name: "batch",
            kind: Kind::Int(1, 1 << 20),
            default: Default::Text("32"),
            doc: "examples at once",
        },
        Key {
            name: "max_length",
            kind: Kind::Int(2, 1 << 20),
            default: Default::Absent,
            doc: "tokens after which text is cut; the model's most, or as in `from`, if not written",
        },
    ],
};

impl StageKind for ChoosePrompt {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn splits(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn chooses(&self) -> bool {
        true
    }

    fn task(&self) -> Option<Arc<dyn Task>> {
        Some(task::of_words())
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        exactly_one(values, ("model", "from"), span, diags);
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let metric = cx.values.entry("metric").map_or("accuracy", |e| &e.name);
        let metric = checked_metric(cx, metric, "metric")?;
        let (program, built) = evaluation(cx, &cx.tuning.frozen(), false);
        let choose = Choose {
            evaluate: verified(program),
            batch: cx.values.int("batch"),
            positive: positive(cx, [metric])?,
            metric,
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Choose(choose),
        })
    }
}
