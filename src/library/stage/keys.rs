//! Keys that several stage kinds share.

use super::super::decl::RATE;
use super::super::schema::{
    Bound, Filled, Given, Length, Maybe, RefKind, Reference, Registry, Words, kind,
};
use super::packing::Batch;

/// How text is generated behind the prompts of a split.
pub(crate) const GENERATE: Maybe<Filled> = Maybe::new(
    "generate",
    super::super::generate::KIND,
    "generate behind the prompt of each row, beside scoring: `predictions.jsonl` holds the texts, and metrics of texts compare \
     them with the completions",
);

/// The model to start from.
pub(crate) const MODEL: Maybe<Reference> = Maybe::new(
    "model",
    kind::reference(RefKind::Model),
    "the model to start from",
);
/// The stage whose result to start from, instead of `model`.
pub(crate) const FROM: Maybe<Reference> = Maybe::new(
    "from",
    kind::reference(RefKind::Stage),
    "the stage whose result to start from, instead of `model`",
);
/// The stage whose weights are compared with the model's.
pub(crate) const TUNED: Maybe<Reference> = Maybe::new(
    "tuned",
    kind::reference(RefKind::Stage),
    "a stage that trained all weights of the same model: `lt_sft` trains those that moved most there",
);
/// The stage whose scores are learned.
pub(crate) const TEACHERS: Maybe<Reference> = Maybe::new(
    "teachers",
    kind::reference(RefKind::Stage),
    "an `annotate` stage of the split, whose scores are learned in the place of labels: with `objective = distil`; or one of `unlabelled`, which it labels",
);
/// Sweeps whose variants of the teachers are taken together.
pub(crate) const OVER: Maybe<[String]> = Maybe::new(
    "over",
    kind::NAMES,
    "sweeps whose variants of `teachers` teach together: the mean of their scores is learned; with `unlabelled`, some of the other variants label",
);
/// The stage whose accuracy weighs a teacher.
pub(crate) const TEACHER_WEIGHTS: Maybe<Reference> = Maybe::new(
    "teacher_weights",
    kind::reference(RefKind::Stage),
    "an `eval` stage that varies with `teachers`: its accuracy weighs a teacher's scores in their mean; all weigh the same if not written",
);
/// Texts whose labels the teachers say.
pub(crate) const UNLABELLED: Maybe<Reference> = Maybe::new(
    "unlabelled",
    kind::reference(RefKind::Split),
    "texts that `teachers` label and of which some are drawn and learned beside `data`, under the objective of `data`; their own labels are not read",
);
/// How many times the labelled rows are learned with the drawn ones.
pub(crate) const GROW: Given<u64> = Given::<u64>::tacit(
    "grow",
    kind::int(2, 1 << 20),
    (5, "5"),
    "how many times the rows of `data` they are together with those that are drawn of `unlabelled`; each class grows alike",
);
/// How many teachers label.
pub(crate) const TEACHER_SHARE: Given<f64> = Given::<f64>::tacit(
    "teacher_share",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.25, "25%"),
    "how many of the other variants of `teachers` label for this one, at least one of them: they are drawn",
);
/// The split to train on.
pub(crate) const DATA: Maybe<Reference> = Maybe::required(
    "data",
    kind::reference(RefKind::Split),
    "the split to train on",
);
/// The task: what is learned of the texts.
pub(crate) const OBJECTIVE: Maybe<Filled> = Maybe::filled(
    "objective",
    kind::entry(Registry::Objective),
    "classify",
    "the task: what is learned of the texts; `peftc list objectives` names them all",
);
/// Template around the text.
pub(crate) const PROMPT: Maybe<Reference> = Maybe::new(
    "prompt",
    kind::reference(RefKind::Prompt),
    "template around the text",
);
/// The method; when continuing an adapted stage, its own if not written.
pub(crate) const ADAPTER: Maybe<Filled> = Maybe::new(
    "adapter",
    kind::entry(Registry::Method),
    "the method; when continuing an adapted stage, its own if not written",
);
/// An adapter of peft's that is applied to a model as it is.
pub(crate) const APPLIED: Maybe<Filled> = Maybe::new(
    "adapter",
    kind::entry(Registry::Method),
    "an adapter of the library peft to apply to the model: `peft \"DIR\"`",
);
/// Several methods on one model, instead of `adapter`.
pub(crate) const ADAPTERS: Maybe<[Filled]> = Maybe::new(
    "adapters",
    kind::entries(Registry::Method),
    "several methods on one model, instead of `adapter`",
);
/// Update rule.
pub(crate) const OPTIMIZER: Maybe<Filled> = Maybe::filled(
    "optimizer",
    kind::entry(Registry::Optimizer),
    "adamw",
    "update rule",
);
/// Learning rate, the schedule's peak.
pub(crate) const LR: Maybe<f64> = Maybe::new(
    "lr",
    kind::float(Bound::Excl(0.0), Bound::None),
    "learning rate, the schedule's peak",
);
/// How the learning rate changes.
pub(crate) const SCHEDULE: Maybe<Filled> = Maybe::filled(
    "schedule",
    kind::entry(Registry::Schedule),
    "constant",
    "how the learning rate changes",
);
/// Walks over the data.
pub(crate) const EPOCHS: Maybe<u64> = Maybe::new("epochs", kind::STEPS, "walks over the data");
/// Optimizer steps, instead of `epochs`.
pub(crate) const STEPS: Maybe<u64> =
    Maybe::new("steps", kind::STEPS, "optimizer steps, instead of `epochs`");
/// Examples of one optimizer step.
pub(crate) const BATCH: Given<Batch> = Given::<Batch>::new(
    "batch",
    kind::batch(1, 1 << 20),
    (16, "16"),
    "examples of one optimizer step; or `8_192 tokens`: as many of the epoch's next examples as have no more tokens together",
);
/// Examples at once; their gradients are added up to `batch`.
pub(crate) const MICRO_BATCH: Maybe<u64> = Maybe::new(
    "micro_batch",
    kind::int(1, 1 << 20),
    "examples at once; their gradients are added up to `batch`",
);
/// Tokens after which text is cut; the model's most if not written.
pub(crate) const MAX_LENGTH: Maybe<u64> = Maybe::new(
    "max_length",
    kind::int(2, 1 << 20),
    "tokens after which text is cut; the model's most if not written",
);
/// Largest global gradient norm; 0 turns clipping off.
pub(crate) const CLIP: Given<f64> = Given::<f64>::new(
    "clip",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "largest global gradient norm; 0 turns clipping off",
);
/// Replaces every dropout rate of the model's config.
pub(crate) const DROPOUT: Maybe<f64> = Maybe::new(
    "dropout",
    RATE,
    "replaces every dropout rate of the model's config",
);
/// Dropout also before the first trained tensor.
pub(crate) const DROPOUT_FROZEN: Given<bool> = Given::<bool>::new(
    "dropout_frozen",
    kind::BOOL,
    (false, "false"),
    "dropout also before the first trained tensor",
);
/// How much of the frozen part's results may be kept on disk.
pub(crate) const FEATURES: Maybe<u64> = Maybe::filled(
    "features",
    kind::SIZE,
    "8GiB",
    "most bytes of the frozen part's results to keep in the store, so that each example is sent through it once; 0B computes them anew in every step",
);
/// The numbers in which the frozen part's results are kept.
pub(crate) const FEATURES_DTYPE: Maybe<str> = Maybe::new(
    "features_dtype",
    kind::choice(&["f32", "bf16"]),
    "numbers in which the frozen part's results are kept: `f32` as computed, or `bf16`, half the disk and rounded, kept or made anew; f32 if not written. What a model's `activations` hold in 16 bits is kept so, whatever is said here",
);
/// Make the inner values of blocks again in the backward.
pub(crate) const RECOMPUTE: Given<bool> = Given::<bool>::new(
    "recompute",
    kind::BOOL,
    (false, "false"),
    "make the inner values of blocks again in the backward instead of keeping them: less memory, a third more arithmetic, the same bits",
);
/// How many blocks are recomputed.
pub(crate) const RECOMPUTE_BLOCKS: Maybe<u64> = Maybe::new(
    "recompute_blocks",
    kind::int(1, 1 << 20),
    "how many blocks, from the first, `recompute` acts on; all if not written",
);
/// Who chooses micro-batch and recompute.
pub(crate) const FIT: Given<str> = Given::<str>::new(
    "fit",
    kind::choice(&["written", "auto"]),
    ("written", "written"),
    "`auto` lets the compiler choose `micro_batch` and `recompute` where the stage needs more than the command line's `--budget`: the fastest way that fits",
);
/// Keys that change how a result is reached, not the result: no part of a fingerprint.
pub const NEUTRAL: &[&str] = &[
    FEATURES.name(),
    RECOMPUTE.name(),
    RECOMPUTE_BLOCKS.name(),
    FIT.name(),
];
/// A new order in every epoch.
pub(crate) const SHUFFLE: Given<bool> = Given::<bool>::new(
    "shuffle",
    kind::BOOL,
    (true, "true"),
    "a new order in every epoch",
);
/// Seed of head and adapter weights, order and dropout.
pub(crate) const SEED: Given<u64> = Given::<u64>::new(
    "seed",
    kind::SEED,
    (42, "42"),
    "seed of head and adapter weights, order and dropout",
);
/// Split to evaluate on during training.
pub(crate) const DEV: Maybe<Reference> = Maybe::new(
    "dev",
    kind::reference(RefKind::Split),
    "split to evaluate on during training",
);
/// How often to evaluate; every epoch if not written.
pub(crate) const EVALUATE: Maybe<Length> = Maybe::new(
    "evaluate",
    kind::LENGTH,
    "how often to evaluate; every epoch if not written",
);
/// Metrics of the evaluations.
pub(crate) const METRICS: Maybe<[String]> =
    Maybe::new("metrics", kind::NAMES, "metrics of the evaluations");
/// Keep the state that is best by this metric, not the last.
pub(crate) const BEST: Maybe<Filled> = Maybe::new(
    "best",
    kind::entry(Registry::Metric),
    "keep the state that is best by this metric, not the last",
);
/// The class that `f1` is of.
pub(crate) const POSITIVE: Maybe<str> = Maybe::new(
    "positive",
    kind::CLASS,
    "the class that `f1` is of; the second of two if not written",
);
/// Stop after so many evaluations without a better `best`.
pub(crate) const PATIENCE: Maybe<u64> = Maybe::new(
    "patience",
    kind::COUNT,
    "stop after so many evaluations without a better `best`",
);
/// Key `head`, of the kind `eval`.
pub(crate) const HEAD: Given<str> = Given::<str>::tacit(
    "head",
    kind::choice(&["trained", "random"]),
    ("trained", "trained"),
    "`random` scores with a head of random numbers, where the model has none",
);
/// Key `draws`, of the kind `eval`.
pub(crate) const DRAWS: Given<u64> = Given::<u64>::tacit(
    "draws",
    kind::int(1, 1 << 10),
    (1, "1"),
    "draws of the prompt's demonstrations, whose logits are averaged",
);
/// Key `templates`, of the kind `choose_prompt`.
pub(crate) const TEMPLATES: Maybe<[String]> = Maybe::required(
    "templates",
    kind::TEXTS,
    "texts with `{column}` and `{mask}`",
);
/// Key `label_words`, of the kind `choose_prompt`.
pub(crate) const LABEL_WORDS: Maybe<Words> = Maybe::required(
    "label_words",
    kind::VERBALIZER,
    "for each class a word, or a list of words, to choose from",
);
/// Key `to`, of the kind `merge`.
pub(crate) const TO: Maybe<str> = Maybe::new(
    "to",
    kind::STR,
    "directory, relative to the recipe, to copy the model to",
);
