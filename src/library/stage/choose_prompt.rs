//! `choose_prompt`: the best of several templates and label words, untrained (method P3).

use std::sync::Arc;

use super::super::schema::{
    Filled, Given, Maybe, RefKind, Reference, Registry, Schema, Values, kind,
};
use super::super::task::{self, Task};
use super::job::{Choose, Job, Routine};
use super::keys;
use super::measures::{checked_metric, positive};
use super::network::{evaluation, verified};
use super::train::exactly_one;
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};

/// Choosing a prompt.
#[derive(Debug)]
pub(super) struct ChoosePrompt;

const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "the masked LM that scores",
);
const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose result scores, instead of `model`",
);
const DATA: Maybe<Reference> = Maybe::required(
    "data",
    kind::reference(RefKind::Split),
    "the split, with labels, that candidates are scored on",
);
const METRIC: Maybe<Filled> = Maybe::filled(
    "metric",
    kind::entry(Registry::Metric),
    "accuracy",
    "what the best is best by; among equals, the lower mean loss",
);
const BATCH: Given<u64> = Given::<u64>::new(
    "batch",
    kind::int(1, 1 << 20),
    (32, "32"),
    "examples at once",
);
const MAX_LENGTH: Maybe<u64> = Maybe::new(
    "max_length",
    kind::int(2, 1 << 20),
    "tokens after which text is cut; the model's most, or as in `from`, if not written",
);

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
        MODEL.key(),
        FROM.key(),
        DATA.key(),
        keys::TEMPLATES.key(),
        keys::LABEL_WORDS.key(),
        METRIC.key(),
        keys::POSITIVE.key(),
        BATCH.key(),
        MAX_LENGTH.key(),
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
        let metric = METRIC.get(cx.values).map_or("accuracy", |e| &e.name);
        let metric = checked_metric(cx, metric, "metric")?;
        let (program, built) = evaluation(cx, &cx.tuning.frozen(), false);
        let choose = Choose {
            evaluate: verified(program),
            batch: BATCH.get(cx.values),
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
