//! `eval`: metrics and predictions on a split.

use super::super::schema::{
    Filled, Given, Maybe, RefKind, Reference, Registry, Schema, Values, kind,
};
use super::job::{Job, Routine, Score};
use super::keys;
use super::network::{evaluation, verified};
use super::train::{exactly_one, metrics, positive};
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};

/// Evaluation.
#[derive(Debug)]
pub(super) struct Eval;

const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose result to score",
);
const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "a model with a trained head, instead of `from`",
);
const DATA: Maybe<Reference> = Maybe::required(
    "data",
    kind::reference(RefKind::Split),
    "the split to score",
);
const PROMPT: Maybe<Reference> = Maybe::new(
    "prompt",
    kind::reference(RefKind::Prompt),
    "template around the text; with `from`, that stage's if not written",
);
const OBJECTIVE: Maybe<Filled> = Maybe::new(
    "objective",
    kind::entry(Registry::Objective),
    "what the scores mean; with `from`, as there if not written; `label_words` and `masked_lm` score a masked LM untrained",
);
const METRICS: Maybe<[String]> = Maybe::new(
    "metrics",
    kind::NAMES,
    "metrics; those that suit the task, if not written",
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
    name: "eval",
    summary: "score a split: metrics and a file of predictions",
    doc: "Takes the result of another stage (`from = …`) or a model with a trained head (`model = …`). Leaves \
          `predictions.tsv` with one row an example; with tokens to be told, one row a token.",
    paper: "",
    keys: &[
        FROM.key(),
        MODEL.key(),
        DATA.key(),
        PROMPT.key(),
        OBJECTIVE.key(),
        METRICS.key(),
        keys::POSITIVE.key(),
        keys::HEAD.key(),
        keys::DRAWS.key(),
        BATCH.key(),
        MAX_LENGTH.key(),
    ],
};

impl StageKind for Eval {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn splits(&self) -> &'static [&'static str] {
        &["data"]
    }

    fn check(&self, values: &Values, span: Span, diags: &mut Diags) {
        exactly_one(values, ("from", "model"), span, diags);
    }

    fn lower(&self, cx: &Sound<StageCx<'_>>) -> Result<Job, Vec<Diag>> {
        let (program, built) = evaluation(cx, &cx.tuning.frozen(), true);
        let metrics = metrics(cx, "metrics")?;
        let score = Score {
            evaluate: verified(program),
            batch: BATCH.get(cx.values),
            reads: cx.reads(0),
            draws: keys::DRAWS.find(cx.values).unwrap_or(1),
            positive: positive(cx, metrics.iter().copied())?,
            metrics,
        };
        Ok(Job {
            params: built.params,
            sites: built.sites,
            routine: Routine::Score(Box::new(score)),
        })
    }
}
