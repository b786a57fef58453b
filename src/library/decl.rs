//! What a recipe can declare, and the sources of models and data.

use super::schema::{Bound, Default, Key, Kind, RefKind, Schema};
use super::stage;
use crate::program::format;

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
        sources: &[&MODEL_HUB, &MODEL_LOCAL],
        arg: Some("a repository or directory in quotes"),
    },
    Declaration {
        keyword: "data",
        what: "data source",
        sources: &[&DATA_HUB, &DATA_LOCAL],
        arg: Some("a repository or directory in quotes"),
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

const DTYPE: Key = Key {
    name: "dtype",
    kind: Kind::Choice(format::NAMES),
    default: Default::Text("f32"),
    doc: format::DOC,
};
const PRECISION: Key = Key {
    name: "precision",
    kind: Kind::Choice(&["f32", "tf32", "bf16"]),
    default: Default::Text("f32"),
    doc: "`bf16` rounds both sides of every matrix product to bf16 and sums in f32, as mixed precision does: faster on GPUs and \
          where the processor has AVX512-BF16; `tf32` takes products in TF32 on GPUs from Ampere on, and in f32 elsewhere; trained \
          tensors stay in f32",
};
const ACTIVATIONS: Key = Key {
    name: "activations",
    kind: Kind::Choice(&["f32", "f16", "bf16"]),
    default: Default::Text("f32"),
    doc: "type in which values with a row a token are held between ops, rounded as they are written: half the memory of activations. Every op \
          still computes in f32. Gradients of them are held in bf16 too, but in f32 beside `f16`, whose range they leave",
};
const INIT: Key = Key {
    name: "init",
    kind: Kind::Choice(&["pretrained", "random"]),
    default: Default::Text("pretrained"),
    doc: "`random` needs no weights, only config.json: to try speed and memory",
};
const SEED: Key = Key {
    name: "seed",
    kind: Kind::Int(0, u64::MAX),
    default: Default::Text("0"),
    doc: "seed of `init = random`",
};
const TOKENIZER: Key = Key {
    name: "tokenizer",
    kind: Kind::Str,
    default: Default::Absent,
    doc: "directory with the tokenizer's files, if they do not lie beside config.json",
};
const REVISION: Key = Key {
    name: "revision",
    kind: Kind::Str,
    default: Default::Absent,
    doc: "branch, tag or commit on the hub; the main branch if not written",
};

const CONFIG: Key = Key {
    name: "config",
    kind: Kind::Str,
    default: Default::Absent,
    doc: "a config.json beside the recipe, to plan from while the hub is out of reach",
};

static MODEL_HUB: Schema = Schema {
    name: "hub",
    summary: "a model repository on the Hugging Face hub",
    doc: "`check` fetches config.json and the tokenizer only; `run` fetches the weights. The cache, `HF_ENDPOINT`, \
          `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` are honoured.",
    paper: "",
    keys: &[
        DTYPE,
        PRECISION,
        ACTIVATIONS,
        INIT,
        SEED,
        TOKENIZER,
        REVISION,
        CONFIG,
    ],
};
static MODEL_LOCAL: Schema = Schema {
    name: "local",
    summary: "a model directory: config.json, safetensors, tokenizer",
    doc: "The path is relative to the recipe. Weights may be in f32, f16 or bf16, in one file or in shards.",
    paper: "",
    keys: &[DTYPE, PRECISION, ACTIVATIONS, INIT, SEED, TOKENIZER],
};

const TEXT: Key = Key {
    name: "text",
    kind: Kind::Columns,
    default: Default::Required,
    doc: "column with the text, or two columns for pairs; a value within a column by its path: `data.text`, `answers[0]`",
};
const LABEL: Key = Key {
    name: "label",
    kind: Kind::Column,
    default: Default::Absent,
    doc: "column with the label or, for regression, the number",
};
const LABELS: Key = Key {
    name: "labels",
    kind: Kind::Labels,
    default: Default::Absent,
    doc: "names of the classes, in the order of the numbers that the data hold for them, from 0; or which label stands for which \
          class: `{ 1: negative, 2: positive }`. If not written, those that the files name, else those found in the training split, sorted",
};
const LABEL_SEPARATOR: Key = Key {
    name: "label_separator",
    kind: Kind::Str,
    default: Default::Absent,
    doc: "what stands between the labels of a row, for tasks that read several: `\",\"`. If not written, the column holds lists: of JSON, JSONL \
          and Parquet, or in a text, `[\"a\", \"b\"]`",
};
const SPLIT: Key = Key {
    name: "split",
    kind: Kind::Block(&CARVED),
    default: Default::Absent,
    doc: "shares of the rows of `train` that become the splits `dev` and `test`; the rest stays `train`",
};

/// The block of `split`.
static CARVED: Schema = Schema {
    name: "split",
    summary: "splits carved out of `train`",
    doc: "`split = { dev = 10%, test = 10%, seed = 1, stratify = true }`. Which rows go where is a function of the seed and of the \
          rows' places, the same for all stages; the rows of a split keep the order of the files.",
    paper: "",
    keys: &[
        Key {
            name: "dev",
            kind: Kind::Share,
            default: Default::Absent,
            doc: "share of the rows that become `dev`",
        },
        Key {
            name: "test",
            kind: Kind::Share,
            default: Default::Absent,
            doc: "share of the rows that become `test`",
        },
        Key {
            name: "seed",
            kind: Kind::Int(0, u64::MAX),
            default: Default::Text("0"),
            doc: "seed that decides which rows go where",
        },
        Key {
            name: "stratify",
            kind: Kind::Bool,
            default: Default::Text("false"),
            doc: "spread the labels evenly over the splits",
        },
    ],
};
const TAKE: Key = Key {
    name: "take",
    kind: Kind::Int(1, u64::MAX),
    default: Default::Absent,
    doc: "use only the first so many examples of each split",
};
const SHUFFLE: Key = Key {
    name: "shuffle",
    kind: Kind::Int(0, u64::MAX),
    default: Default::Absent,
    doc: "shuffle each split with this seed before `take`",
};
const FORMAT: Key = Key {
    name: "format",
    kind: Kind::Choice(&["tsv", "csv", "jsonl", "json", "parquet"]),
    default: Default::Absent,
    doc: "format of the files, if their names do not tell",
};
const TRAIN: Key = Key {
    name: "train",
    kind: Kind::Names,
    default: Default::Absent,
    doc: "files of the split `train`, or patterns of them, if not named so",
};
const DEV: Key = Key {
    name: "dev",
    kind: Kind::Names,
    default: Default::Absent,
    doc: "files of the split `dev`, or patterns of them, if not named so",
};
const TEST: Key = Key {
    name: "test",
    kind: Kind::Names,
    default: Default::Absent,
    doc: "files of the split `test`, or patterns of them, if not named so",
};

static DATA_HUB: Schema = Schema {
    name: "hub",
    summary: "a data set repository on the Hugging Face hub",
    doc: "Splits are looked for as Parquet, JSON, JSONL, CSV or TSV files of the configuration.",
    paper: "",
    keys: &[
        TEXT,
        LABEL,
        LABELS,
        LABEL_SEPARATOR,
        Key {
            name: "config",
            kind: Kind::Str,
            default: Default::Absent,
            doc: "configuration (subset) of the data set, such as `sst2`",
        },
        REVISION,
        SPLIT,
        TAKE,
        SHUFFLE,
        FORMAT,
        TRAIN,
        DEV,
        TEST,
    ],
};
static DATA_LOCAL: Schema = Schema {
    name: "local",
    summary: "a directory with files such as train.tsv, dev.csv, test.jsonl; or a file, a list of files, a pattern such as `data/*.csv`",
    doc: "The path is relative to the recipe. TSV, CSV, JSON (an array of objects, or objects one behind the other), JSONL and Parquet \
          are read, the text formats also packed with gzip or Zstandard (`train.jsonl.gz`). A split may consist of several files. Files \
          that are named one by one or by a pattern are the splits that their names say, or else all of them are `train`.",
    paper: "",
    keys: &[
        TEXT,
        LABEL,
        LABELS,
        LABEL_SEPARATOR,
        SPLIT,
        TAKE,
        SHUFFLE,
        FORMAT,
        TRAIN,
        DEV,
        TEST,
    ],
};

static PROMPT: Schema = Schema {
    name: "prompt",
    summary: "a template around the text, with a mask to fill",
    doc: "`template` holds `{column}` for a column's text and `{mask}` for the mask token; `verbalizer` maps each class to \
          a word. `demonstrations` puts filled prompts of every class behind the text that is asked about, the class's \
          word in place of the mask: which ones is a function of the seed, the text and the number of the draw, and never \
          one of the same text. Training shows a text draw 0 in every epoch; `eval` averages over its `draws`.",
    paper: "Gao et al. 2021 (arXiv 2012.15723)",
    keys: &[
        Key {
            name: "template",
            kind: Kind::Str,
            default: Default::Required,
            doc: "text with `{column}` and `{mask}`",
        },
        Key {
            name: "verbalizer",
            kind: Kind::Verbalizer,
            default: Default::Absent,
            doc: "a word for each class",
        },
        Key {
            name: "demonstrations",
            kind: Kind::Int(0, 64),
            default: Default::Text("0"),
            doc: "filled prompts of each class behind the text",
        },
        Key {
            name: "demonstrations_from",
            kind: Kind::Ref(RefKind::Split),
            default: Default::Absent,
            doc: "the split they are drawn from; wanted with `demonstrations`",
        },
        Key {
            name: "demonstration_length",
            kind: Kind::Int(1, 1 << 20),
            default: Default::Text("32"),
            doc: "tokens after which a demonstration's own text is cut",
        },
        Key {
            name: "demonstration_seed",
            kind: Kind::Int(0, u64::MAX),
            default: Default::Text("42"),
            doc: "seed of their draws",
        },
    ],
};

/// Bounds that several schemas share.
pub const RATE: Kind = Kind::Float(Bound::Incl(0.0), Bound::Excl(1.0));
