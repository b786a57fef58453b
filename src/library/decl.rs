//! What a recipe can declare, and the sources of models and data.

use super::collection::{GLUE, SUPER_GLUE};
use super::schema::{Bound, Checked, Filled, Given, Maybe, Of, Portion, Schema, kind};
use super::stage;
use crate::program::format;

mod columns;
mod prompt;

pub(crate) use columns::{
    ANCHOR, ANSWER, ANSWERS, CHOICES, CHOSEN, COMPLETION, CONTEXT, ENABLE_THINKING, FIRST_ANSWER,
    MESSAGES, NEGATIVE, POSITIVE, PROMPT_COLUMN, QUESTION, REJECTED, TEXT, TOKENS, TOOLS,
};
pub use columns::{columns, form};
use prompt::PROMPT;
pub(crate) use prompt::{
    DEMONSTRATION_DRAW, DEMONSTRATION_LENGTH, DEMONSTRATION_ORDER, DEMONSTRATION_PLACE,
    DEMONSTRATION_SEED, DEMONSTRATION_SEPARATOR, DEMONSTRATIONS, DEMONSTRATIONS_FROM, TEMPLATE,
    VERBALIZER,
};

/// A keyword of the language.
#[derive(Debug)]
pub struct Declaration {
    /// `model`, `data`, `prompt`, `stage`
    pub keyword: &'static str,
    /// What its constructors are called in messages.
    pub what: &'static str,
    /// Its constructors, unless they come from the stage registry.
    pub sources: &'static [&'static Schema],
    /// What the string after the constructor is; `None` if there is none.
    pub arg: Option<&'static str>,
}

impl Declaration {
    /// Its constructors.
    #[must_use]
    pub fn schemas(&self) -> Vec<&'static Schema> {
        if self.keyword == "stage" {
            stage::STAGES.iter().map(|s| s.schema()).collect()
        } else {
            self.sources.to_vec()
        }
    }
}

/// Every declaration.
pub static DECLARATIONS: [Declaration; 4] = [
    Declaration {
        keyword: "model",
        what: "model source",
        sources: &[&MODEL_HUB, &MODEL_LOCAL, &MODEL_GGUF],
        arg: Some("a repository, directory or GGUF file in quotes"),
    },
    Declaration {
        keyword: "data",
        what: "data source",
        sources: &[&DATA_HUB, &DATA_LOCAL, &GLUE, &SUPER_GLUE],
        arg: Some("a repository, directory or name of a set in quotes"),
    },
    Declaration {
        keyword: "prompt",
        what: "prompt",
        sources: &[&PROMPT],
        arg: None,
    },
    Declaration {
        keyword: "stage",
        what: "stage kind",
        sources: &[],
        arg: None,
    },
];

pub(crate) const DTYPE: Given<str> = Given::<str>::new(
    "dtype",
    kind::choice(format::NAMES),
    ("f32", "f32"),
    format::DOC,
);
pub(crate) const PRECISION: Given<str> = Given::<str>::new(
    "precision",
    kind::choice(&["f32", "tf32", "bf16"]),
    ("f32", "f32"),
    "`bf16` rounds both sides of every matrix product to bf16 and sums in f32, as mixed precision does: faster on GPUs and \
          where the processor has AVX512-BF16; `tf32` takes products in TF32 on GPUs from Ampere on, and in f32 elsewhere; trained \
          tensors stay in f32",
);
pub(crate) const ACTIVATIONS: Given<str> = Given::<str>::new(
    "activations",
    kind::choice(&["f32", "f16", "bf16"]),
    ("f32", "f32"),
    "type in which values with a row a token are held between ops, rounded as they are written: half the memory of activations. Every op \
          still computes in f32. Gradients of them are held in bf16 too, but in f32 beside `f16`, whose range they leave",
);
pub(crate) const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["pretrained", "random"]),
    ("pretrained", "pretrained"),
    "`random` needs no weights, only config.json: to try speed and memory",
);
pub(crate) const SEED: Given<u64> =
    Given::<u64>::new("seed", kind::SEED, (0, "0"), "seed of `init = random`");
pub(crate) const TOKENIZER: Maybe<str> = Maybe::new(
    "tokenizer",
    kind::STR,
    "directory with the tokenizer's files, if they do not lie beside config.json",
);
pub(crate) const REVISION: Maybe<str> = Maybe::new(
    "revision",
    kind::STR,
    "branch, tag or commit on the hub; the main branch if not written",
);

pub(crate) const CONFIG: Maybe<str> = Maybe::new(
    "config",
    kind::STR,
    "a config.json beside the recipe, to plan from while the hub is out of reach",
);

pub(crate) const CHAT_TEMPLATE: Maybe<str> = Maybe::new(
    "chat_template",
    kind::STR,
    "file beside the recipe with the Jinja template of conversations; if not written, chat_template.jinja or what tokenizer_config.json holds",
);
pub(crate) const TODAY: Maybe<str> = Maybe::new(
    "today",
    kind::STR,
    "the date that the chat template writes as today's, \"2026-01-31\": a template that writes one is refused without it, as its tokens would be others each day",
);

pub(crate) const FILE: Maybe<str> = Maybe::new(
    "file",
    kind::STR,
    "a GGUF file of the repository that holds the whole model; `check` downloads it",
);

static MODEL_HUB: Schema = Schema {
    name: "hub",
    summary: "a model repository on the Hugging Face hub",
    doc: "`check` fetches config.json and the tokenizer only; `run` fetches the weights. The cache, `HF_ENDPOINT`, \
          `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` are honoured.",
    paper: "",
    keys: &[
        DTYPE.key(),
        PRECISION.key(),
        ACTIVATIONS.key(),
        INIT.key(),
        SEED.key(),
        TOKENIZER.key(),
        CHAT_TEMPLATE.key(),
        TODAY.key(),
        REVISION.key(),
        FILE.key(),
        CONFIG.key(),
    ],
};
/// How a GGUF file's matrices are stored where nothing is written: as the file has them.
pub(crate) const GGUF_DTYPE: Maybe<str> =
    Maybe::new("dtype", kind::choice(format::NAMES), GGUF_DOC);

const GGUF_DOC: &str = "type in which frozen matrices are held, each of them decoded and stored anew; if not written, as the file \
          has them: in its own blocks";

static MODEL_GGUF: Schema = Schema {
    name: "gguf",
    summary: "a model in one file, as llama.cpp reads it: weights, config, tokenizer",
    doc: "The path is relative to the recipe. Versions 2 and 3; tensors in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and \
          Q2_K to Q6_K, which stay in memory as they are in the file.",
    paper: "",
    keys: &[
        GGUF_DTYPE.key(),
        PRECISION.key(),
        ACTIVATIONS.key(),
        TOKENIZER.key(),
    ],
};
static MODEL_LOCAL: Schema = Schema {
    name: "local",
    summary: "a model directory: config.json, safetensors, tokenizer",
    doc: "The path is relative to the recipe. Weights may be in f32, f16 or bf16, in one file or in shards.",
    paper: "",
    keys: &[
        DTYPE.key(),
        PRECISION.key(),
        ACTIVATIONS.key(),
        INIT.key(),
        SEED.key(),
        TOKENIZER.key(),
        CHAT_TEMPLATE.key(),
        TODAY.key(),
    ],
};

pub(crate) const LABEL: Maybe<str> = Maybe::new(
    "label",
    kind::COLUMN,
    "column with the label or, for regression, the number; of words, with the list of their labels",
);
pub(crate) const TASK: Maybe<str> = Maybe::new(
    "task",
    kind::COLUMN,
    "column with the number of each row's task, counted from 0, for methods that train several tasks at once",
);
pub(crate) const LABELS: Maybe<Checked> = Maybe::new(
    "labels",
    kind::LABELS,
    "names of the classes, in the order of the numbers that the data hold for them, from 0; or which label stands for which \
          class: `{ 1: negative, 2: positive }`. If not written, those that the files name, else those found in the training split, sorted",
);
pub(crate) const LABEL_SEPARATOR: Maybe<str> = Maybe::new(
    "label_separator",
    kind::STR,
    "what stands between the labels of a row, for tasks that read several: `\",\"`. If not written, the column holds lists: of JSON, JSONL \
          and Parquet, or in a text, `[\"a\", \"b\"]`",
);
pub(crate) const SPLIT: Maybe<Filled> = Maybe::new(
    "split",
    kind::block(&CARVED),
    "shares of the rows of `train` that become the splits `dev` and `test`; the rest stays `train`",
);

pub(crate) const CARVED_DEV: Maybe<Portion> =
    Maybe::new("dev", kind::SHARE, "share of the rows that become `dev`");
pub(crate) const CARVED_TEST: Maybe<Portion> =
    Maybe::new("test", kind::SHARE, "share of the rows that become `test`");
pub(crate) const CARVED_SEED: Given<u64> = Given::<u64>::new(
    "seed",
    kind::SEED,
    (0, "0"),
    "seed that decides which rows go where",
);
pub(crate) const CARVED_STRATIFY: Given<bool> = Given::<bool>::new(
    "stratify",
    kind::BOOL,
    (false, "false"),
    "spread the labels evenly over the splits",
);

/// The block of `split`.
static CARVED: Schema = Schema {
    name: "split",
    summary: "splits carved out of `train`",
    doc: "`split = { dev = 10%, test = 10%, seed = 1, stratify = true }`. Which rows go where is a function of the seed and of the \
          rows' places, the same for all stages; the rows of a split keep the order of the files.",
    paper: "",
    keys: &[
        CARVED_DEV.key(),
        CARVED_TEST.key(),
        CARVED_SEED.key(),
        CARVED_STRATIFY.key(),
    ],
};
pub(crate) const TAKE: Maybe<u64> = Maybe::new(
    "take",
    kind::COUNT,
    "use only the first so many examples of each split",
);
pub(crate) const SHUFFLE: Maybe<u64> = Maybe::new(
    "shuffle",
    kind::SEED,
    "shuffle each split with this seed before `take`",
);
pub(crate) const FORMAT: Maybe<str> = Maybe::new(
    "format",
    kind::choice(&["tsv", "csv", "jsonl", "json", "parquet", "conll", "squad"]),
    "format of the files, if their names do not tell",
);
pub(crate) const TRAIN: Maybe<[String]> = Maybe::new(
    "train",
    kind::NAMES,
    "files of the split `train`, or patterns of them, if not named so",
);
pub(crate) const DEV: Maybe<[String]> = Maybe::new(
    "dev",
    kind::NAMES,
    "files of the split `dev`, or patterns of them, if not named so",
);
pub(crate) const TEST: Maybe<[String]> = Maybe::new(
    "test",
    kind::NAMES,
    "files of the split `test`, or patterns of them, if not named so",
);

pub(crate) const DATA_CONFIG: Maybe<str> = Maybe::new(
    "config",
    kind::STR,
    "configuration (subset) of the data set, such as `sst2`",
);

static DATA_HUB: Schema = Schema {
    name: "hub",
    summary: "a data set repository on the Hugging Face hub",
    doc: "Splits are looked for as Parquet, JSON, JSONL, CSV or TSV files of the configuration.",
    paper: "",
    keys: &[
        TEXT.key(),
        PROMPT_COLUMN.key(),
        COMPLETION.key(),
        CHOSEN.key(),
        REJECTED.key(),
        CHOICES.key(),
        ANSWER.key(),
        FIRST_ANSWER.key(),
        QUESTION.key(),
        CONTEXT.key(),
        ANSWERS.key(),
        ANCHOR.key(),
        POSITIVE.key(),
        NEGATIVE.key(),
        MESSAGES.key(),
        TOOLS.key(),
        TOKENS.key(),
        ENABLE_THINKING.key(),
        LABEL.key(),
        TASK.key(),
        LABELS.key(),
        LABEL_SEPARATOR.key(),
        DATA_CONFIG.key(),
        REVISION.key(),
        SPLIT.key(),
        TAKE.key(),
        SHUFFLE.key(),
        FORMAT.key(),
        TRAIN.key(),
        DEV.key(),
        TEST.key(),
    ],
};
static DATA_LOCAL: Schema = Schema {
    name: "local",
    summary: "a directory with files such as train.tsv, dev.csv, test.jsonl; or a file, a list of files, a pattern such as `data/*.csv`",
    doc: "The path is relative to the recipe. TSV, CSV, JSON (an array of objects, or objects one behind the other), JSONL, Parquet, CoNLL and SQuAD's own \
          files (`format = squad`) are read, the text formats also packed with gzip or Zstandard (`train.jsonl.gz`). A split may consist of several files. Files \
          that are named one by one or by a pattern are the splits that their names say, or else all of them are `train`.",
    paper: "",
    keys: &[
        TEXT.key(),
        PROMPT_COLUMN.key(),
        COMPLETION.key(),
        CHOSEN.key(),
        REJECTED.key(),
        CHOICES.key(),
        ANSWER.key(),
        FIRST_ANSWER.key(),
        QUESTION.key(),
        CONTEXT.key(),
        ANSWERS.key(),
        ANCHOR.key(),
        POSITIVE.key(),
        NEGATIVE.key(),
        MESSAGES.key(),
        TOOLS.key(),
        TOKENS.key(),
        ENABLE_THINKING.key(),
        LABEL.key(),
        TASK.key(),
        LABELS.key(),
        LABEL_SEPARATOR.key(),
        SPLIT.key(),
        TAKE.key(),
        SHUFFLE.key(),
        FORMAT.key(),
        TRAIN.key(),
        DEV.key(),
        TEST.key(),
    ],
};

/// Bounds that several schemas share.
pub const RATE: Of<f64> = kind::float(Bound::Incl(0.0), Bound::Excl(1.0));
