//! `eval`: metrics and predictions on a split.

use super::super::schema::{Default, Key, Kind, RefKind, Registry, Schema, Values};
use super::job::{Job, Routine, Score};
use super::keys;
use super::network::{evaluation, verified};
use super::train::{exactly_one, metrics, positive};
use super::{Diag, Diags, Sound, Span, StageCx, StageKind};

/// Evaluation.
#[derive(Debug)]
pub(super) struct Eval;

static SCHEMA: Schema = Schema {
    name: "eval",
    summary: "score a split: metrics and a file of predictions",
    doc: "Takes the result of another stage (`from = …`) or a model with a trained head (`model = …`). Leaves \
          `predictions.tsv` with one row an example; with tokens to be told, one row a token.",
    paper: "",
    keys: &[
        Key {
            name: "from",
            kind: Kind::Ref(RefKind::Stage),
            default: Default::Absent,
            doc: "the stage whose result to score",
        },
        Key {
            name: "model",
            kind: Kind::Ref(RefKind::Model),
            default: Default::Absent,
            doc: "a model with a trained head, instead of `from`",
        },
        Key {
            name: "data",
            kind: Kind::Ref(RefKind::Split),
            default: Default::Required,
            doc: "the split to score",
        },
        Key {
            name: "prompt",
            kind: Kind::Ref(RefKind::Prompt),
            default: Default::Absent,
            doc: "template around the text; with `from`, that stage's if not written",
        },
        Key {
            name: "objective",
            kind: Kind::Entry(Registry::Objective),
            default: Default::Absent,
            doc: "what the scores mean; with `from`, as there if not written; `label_words` and `masked_lm` score a masked LM untrained",
        },
        Key {
            name: "metrics",
            kind: Kind::Names,
            default: Default::Absent,
            doc: "metrics; those that suit the task, if not written",
        },
        keys::POSITIVE,
        Key {
            name: "head",
            kind: Kind::Choice(&["trained", "random"]),
            default: Default::Tacit("trained"),
            doc: "`random` scores with a head of random numbers, where the model has none",
        },
        Key {
            name: "draws",
            kind: Kind::Int(1, 1 << 10),
            default: Default::Tacit("1"),
            doc: "draws of the prompt's demonstrations, whose logits are averaged",
        },
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
            doc: "tokens after which text is cut; as in training if not written",
        },
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
            batch: cx.values.int("batch"),
            masking: cx.masking(0),
            draws: cx.values.opt_int("draws").unwrap_or(1),
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
