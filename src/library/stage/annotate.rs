//! `annotate`: the scores of texts without labels, for another stage to learn (method P4).

use super::super::schema::{
    Filled, Given, Maybe, RefKind, Reference, Registry, Schema, Values, kind,
};
use super::super::task::{Answer, Task};
use super::job::{Job, Routine, Score};
use super::network::{evaluation, verified};
use super::train::exactly_one;
use super::{Diag, Diags, Sound, Span, StageCx, StageKind, keys};
use crate::library::error::CONFLICTING_KEYS;

/// Scoring without labels.
#[derive(Debug)]
pub(super) struct Annotate;

const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose result scores",
);
const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "a model with a trained head, or a masked LM with a prompt, instead of `from`",
);
const DATA: Maybe<Reference> = Maybe::required(
    "data",
    kind::reference(RefKind::Split),
    "the split whose texts are scored; its labels are not read",
);
const PROMPT: Maybe<Reference> = Maybe::new(
    "prompt",
    kind::reference(RefKind::Prompt),
    "template around the text; with `from`, that stage's if not written",
);
const OBJECTIVE: Maybe<Filled> = Maybe::new(
    "objective",
    kind::entry(Registry::Objective),
    "what the scores mean; with `from`, as there if not written; `label_words` scores a masked LM untrained",
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
    "tokens after which text is cut; as in training if not written",
);

static SCHEMA: Schema = Schema {
    name: "annotate",
    summary: "score texts without labels, for another stage to learn the scores",
    doc: "Takes the result of another stage (`from = …`), or a model (`model = …`), that gives a text one of several classes. No \
          label of the split is read, whether it has any or not. Leaves `predictions.tsv` with one row a text: the predicted class and the \
          score of each. A `train` stage with `objective = distil` learns these scores, or the mean of those of several such \
          stages: `teachers = NAME`, `over = SWEEP`.",
    paper: "Schick and Schütze 2021 (arXiv 2001.07676), section 3.3",
    keys: &[
        FROM.key(),
        MODEL.key(),
        keys::APPLIED.key(),
        DATA.key(),
        PROMPT.key(),
        OBJECTIVE.key(),
        keys::DRAWS.key(),
        BATCH.key(),
        MAX_LENGTH.key(),
    ],
};

impl StageKind for Annotate {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn splits(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn reads_labels(&self, _: &str, _: &dyn Task) -> bool {
        false
    }

    fn annotates(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        exactly_one(values, ("from", "model"), span, diags);
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        if cx.task.answer() != Answer::Class {
            let message = format!(
                "`{}` gives a text no score of each class, so that there is nothing for another stage to learn",
                cx.task.name()
            );
            let diag = Diag::error(&CONFLICTING_KEYS, cx.span, message);
            return Err(vec![diag.help(
                "annotate with a stage that was trained with `classify`, `distil` or `label_words`",
            )]);
        }
        let (program, built) = evaluation(cx, &cx.tuning.frozen(), false);
        let score = Score {
            evaluate: verified(program),
            batch: BATCH.get(cx.values).saturating_mul(cx.task.group()),
            reads: cx.reads(0),
            reference: None,
            group: cx.task.group(),
            draws: keys::DRAWS.find(cx.values).unwrap_or(1),
            positive: 1,
            generate: None,
            metrics: Vec::new(),
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Score(Box::new(score)),
        })
    }
}
