//! Keys that several stage kinds share.

use super::super::decl::RATE;
use super::super::schema::{Bound, Default, Key, Kind, RefKind, Registry};

/// The model to start from.
pub(super) const MODEL: Key = Key {
    name: "model",
    kind: Kind::Ref(RefKind::Model),
    default: Default::Absent,
    doc: "the model to start from",
};
/// The stage whose result to start from, instead of `model`.
pub(super) const FROM: Key = Key {
    name: "from",
    kind: Kind::Ref(RefKind::Stage),
    default: Default::Absent,
    doc: "the stage whose result to start from, instead of `model`",
};
/// The split to train on.
pub(super) const DATA: Key = Key {
    name: "data",
    kind: Kind::Ref(RefKind::Split),
    default: Default::Required,
    doc: "the split to train on",
};
/// The task: what is learned of the texts.
pub(super) const OBJECTIVE: Key = Key {
    name: "objective",
    kind: Kind::Entry(Registry::Objective),
    default: Default::Text("classify"),
    doc: "the task: what is learned of the texts; `peftc list objectives` names them all",
};
/// Template around the text.
pub(super) const PROMPT: Key = Key {
    name: "prompt",
    kind: Kind::Ref(RefKind::Prompt),
    default: Default::Absent,
    doc: "template around the text",
};
/// The method; when continuing an adapted stage, its own if not written.
pub(super) const ADAPTER: Key = Key {
    name: "adapter",
    kind: Kind::Entry(Registry::Method),
    default: Default::Absent,
    doc: "the method; when continuing an adapted stage, its own if not written",
};
/// Several methods on one model, instead of `adapter`.
pub(super) const ADAPTERS: Key = Key {
    name: "adapters",
    kind: Kind::Entries(Registry::Method),
    default: Default::Absent,
    doc: "several methods on one model, instead of `adapter`",
};
/// Update rule.
pub(super) const OPTIMIZER: Key = Key {
    name: "optimizer",
    kind: Kind::Entry(Registry::Optimizer),
    default: Default::Text("adamw"),
    doc: "update rule",
};
/// Learning rate, the schedule's peak.
pub(super) const LR: Key = Key {
    name: "lr",
    kind: Kind::Float(Bound::Excl(0.0), Bound::None),
    default: Default::Absent,
    doc: "learning rate, the schedule's peak",
};
/// How the learning rate changes.
pub(super) const SCHEDULE: Key = Key {
    name: "schedule",
    kind: Kind::Entry(Registry::Schedule),
    default: Default::Text("constant"),
    doc: "how the learning rate changes",
};
/// Walks over the data.
pub(super) const EPOCHS: Key = Key {
    name: "epochs",
    kind: Kind::Int(1, u64::MAX),
    default: Default::Absent,
    doc: "walks over the data",
};
/// Optimizer steps, instead of `epochs`.
pub(super) const STEPS: Key = Key {
    name: "steps",
    kind: Kind::Int(1, u64::MAX),
    default: Default::Absent,
    doc: "optimizer steps, instead of `epochs`",
};
/// Examples of one optimizer step.
pub(super) const BATCH: Key = Key {
    name: "batch",
    kind: Kind::Int(1, 1 << 20),
    default: Default::Text("16"),
    doc: "examples of one optimizer step",
};
/// Examples at once; their gradients are added up to `batch`.
pub(super) const MICRO_BATCH: Key = Key {
    name: "micro_batch",
    kind: Kind::Int(1, 1 << 20),
    default: Default::Absent,
    doc: "examples at once; their gradients are added up to `batch`",
};
/// Tokens after which text is cut; the model's most if not written.
pub(super) const MAX_LENGTH: Key = Key {
    name: "max_length",
    kind: Kind::Int(2, 1 << 20),
    default: Default::Absent,
    doc: "tokens after which text is cut; the model's most if not written",
};
/// Largest global gradient norm; 0 turns clipping off.
pub(super) const CLIP: Key = Key {
    name: "clip",
    kind: Kind::Float(Bound::Incl(0.0), Bound::None),
    default: Default::Text("1"),
    doc: "largest global gradient norm; 0 turns clipping off",
};
/// Replaces every dropout rate of the model's config.
pub(super) const DROPOUT: Key = Key {
    name: "dropout",
    kind: RATE,
    default: Default::Absent,
    doc: "replaces every dropout rate of the model's config",
};
/// Dropout also before the first trained tensor.
pub(super) const DROPOUT_FROZEN: Key = Key {
    name: "dropout_frozen",
    kind: Kind::Bool,
    default: Default::Text("false"),
    doc: "dropout also before the first trained tensor",
};
/// How much of the frozen part's results may be kept on disk.
pub(super) const FEATURES: Key = Key {
    name: "features",
    kind: Kind::Size,
    default: Default::Text("8GiB"),
    doc: "most bytes of the frozen part's results to keep in the store, so that each example is sent through it once; 0B computes them anew in every step",
};
/// The numbers in which the frozen part's results are kept.
pub(super) const FEATURES_DTYPE: Key = Key {
    name: "features_dtype",
    kind: Kind::Choice(&["f32", "bf16"]),
    default: Default::Absent,
    doc: "numbers in which the frozen part's results are kept: `f32` as computed, or `bf16`, half the disk and rounded, kept or made anew; f32 if not written. What a model's `activations` hold in 16 bits is kept so, whatever is said here",
};
/// Make the inner values of blocks again in the backward.
pub(super) const RECOMPUTE: Key = Key {
    name: "recompute",
    kind: Kind::Bool,
    default: Default::Text("false"),
    doc: "make the inner values of blocks again in the backward instead of keeping them: less memory, a third more arithmetic, the same bits",
};
/// How many blocks are recomputed.
pub(super) const RECOMPUTE_BLOCKS: Key = Key {
    name: "recompute_blocks",
    kind: Kind::Int(1, 1 << 20),
    default: Default::Absent,
    doc: "how many blocks, from the first, `recompute` acts on; all if not written",
};
/// Who chooses micro-batch and recompute.
pub(super) const FIT: Key = Key {
    name: "fit",
    kind: Kind::Choice(&["written", "auto"]),
    default: Default::Text("written"),
    doc: "`auto` lets the compiler choose `micro_batch` and `recompute` where the stage needs more than the command line's `--budget`: the fastest way that fits",
};
/// Keys that change how a result is reached, not the result: no part of a fingerprint.
pub const NEUTRAL: &[&str] = &[
    FEATURES.name,
    RECOMPUTE.name,
    RECOMPUTE_BLOCKS.name,
    FIT.name,
];
/// A new order in every epoch.
pub(super) const SHUFFLE: Key = Key {
    name: "shuffle",
    kind: Kind::Bool,
    default: Default::Text("true"),
    doc: "a new order in every epoch",
};
/// Seed of head and adapter weights, order and dropout.
pub(super) const SEED: Key = Key {
    name: "seed",
    kind: Kind::Int(0, u64::MAX),
    default: Default::Text("42"),
    doc: "seed of head and adapter weights, order and dropout",
};
/// Split to evaluate on during training.
pub(super) const DEV: Key = Key {
    name: "dev",
    kind: Kind::Ref(RefKind::Split),
    default: Default::Absent,
    doc: "split to evaluate on during training",
};
/// How often to evaluate; every epoch if not written.
pub(super) const EVALUATE: Key = Key {
    name: "evaluate",
    kind: Kind::Length,
    default: Default::Absent,
    doc: "how often to evaluate; every epoch if not written",
};
/// Metrics of the evaluations.
pub(super) const METRICS: Key = Key {
    name: "metrics",
    kind: Kind::Names,
    default: Default::Absent,
    doc: "metrics of the evaluations",
};
/// Keep the state that is best by this metric, not the last.
pub(super) const BEST: Key = Key {
    name: "best",
    kind: Kind::Entry(Registry::Metric),
    default: Default::Absent,
    doc: "keep the state that is best by this metric, not the last",
};
/// The class that `f1` is of.
pub(super) const POSITIVE: Key = Key {
    name: "positive",
    kind: Kind::Class,
    default: Default::Absent,
    doc: "the class that `f1` is of; the second of two if not written",
};
/// Stop after so many evaluations without a better `best`.
pub(super) const PATIENCE: Key = Key {
    name: "patience",
    kind: Kind::Int(1, u64::MAX),
    default: Default::Absent,
    doc: "stop after so many evaluations without a better `best`",
};
