//! Collections of data sets that are named by a word: where each lies on the hub, its columns, classes, splits, and the
//! metrics that its benchmark reports. A set is one row here.
//!
//! Sources: GLUE, Wang et al. 2018 (arXiv 1804.07461); SuperGLUE, Wang et al. 2019 (arXiv 1905.00537); the repositories'
//! own features for columns and the order of classes.

use super::decl::{DATA_CONFIG, LABEL, LABELS, REVISION, SHUFFLE, SPLIT, TAKE, TEXT};
use super::schema::{Checked, Schema, Values};
use crate::base::{Span, suggest};

/// Data sets that are named by a word.
#[derive(Debug)]
pub struct Collection {
    /// Its word in a recipe, and what it says of itself.
    pub schema: &'static Schema,
    /// Its repository of data sets on the hub.
    pub repo: &'static str,
    /// Its sets.
    pub sets: &'static [Set],
    /// Sets of it that cannot be read here, with the reason.
    pub others: &'static [(&'static str, &'static str)],
}

/// A data set of a collection.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name, which is that of its configuration on the hub.
    pub name: &'static str,
    /// Columns of the text, or of the pair.
    pub text: &'static [&'static str],
    /// Its classes in the order of their numbers; none where the label is a number.
    pub labels: &'static [&'static str],
    /// Its splits with labels, as files name them.
    pub splits: &'static [&'static str],
    /// The metrics that its benchmark reports.
    pub metrics: &'static [&'static str],
}

/// Splits of most sets: labels of the test splits are not public.
const USUAL: &[&str] = &["train", "validation"];
/// The keys by which a recipe says another thing.
const KEYS: &[super::schema::Key] = &[
    TEXT.key(),
    LABEL.key(),
    LABELS.key(),
    REVISION.key(),
    SPLIT.key(),
    TAKE.key(),
    SHUFFLE.key(),
];

pub(crate) static GLUE: Schema = Schema {
    name: "glue",
    summary: "a data set of GLUE, by its name",
    doc: "`data mnli = glue \"mnli\"` is the hub's `nyu-mll/glue` with the set's columns and classes written. Sets: `cola`, `sst2`, \
          `mrpc`, `qqp`, `stsb` (numbers, for `objective = regress`), `mnli` (with the splits `validation_matched` and \
          `validation_mismatched`), `qnli`, `rte`, `wnli`. Where a stage names no metrics, it reports those that GLUE does. Labels of the test \
          splits are not public.",
    paper: "Wang et al. 2018 (arXiv 1804.07461)",
    keys: KEYS,
};

pub(crate) static SUPER_GLUE: Schema = Schema {
    name: "super_glue",
    summary: "a data set of SuperGLUE, by its name",
    doc: "`data cb = super_glue \"cb\"` is the hub's `aps/super_glue` with the set's columns and classes written. Sets: `boolq`, `cb`, \
          `rte`. Where a stage names no metrics, it reports those that SuperGLUE does. The others have more than a pair of texts a row: read \
          them from the hub with columns of your own. Labels of the test splits are not public.",
    paper: "Wang et al. 2019 (arXiv 1905.00537)",
    keys: KEYS,
};

const SPANS: &str = "its rows mark words within a text";

/// Every collection.
pub const COLLECTIONS: &[Collection] = &[
    Collection {
        schema: &GLUE,
        repo: "nyu-mll/glue",
        sets: &[
            Set {
                name: "cola",
                text: &["sentence"],
                labels: &["unacceptable", "acceptable"],
                splits: USUAL,
                metrics: &["matthews"],
            },
            Set {
                name: "sst2",
                text: &["sentence"],
                labels: &["negative", "positive"],
                splits: USUAL,
                metrics: &["accuracy"],
            },
            Set {
                name: "mrpc",
                text: &["sentence1", "sentence2"],
                labels: &["not_equivalent", "equivalent"],
                splits: &["train", "validation", "test"],
                metrics: &["accuracy", "f1"],
            },
            Set {
                name: "qqp",
                text: &["question1", "question2"],
                labels: &["not_duplicate", "duplicate"],
                splits: USUAL,
                metrics: &["accuracy", "f1"],
            },
            Set {
                name: "stsb",
                text: &["sentence1", "sentence2"],
                labels: &[],
                splits: USUAL,
                metrics: &["pearson", "spearman"],
            },
            Set {
                name: "mnli",
                text: &["premise", "hypothesis"],
                labels: &["entailment", "neutral", "contradiction"],
                splits: &["train", "validation_matched", "validation_mismatched"],
                metrics: &["accuracy"],
            },
            Set {
                name: "qnli",
                text: &["question", "sentence"],
                labels: &["entailment", "not_entailment"],
                splits: USUAL,
                metrics: &["accuracy"],
            },
            Set {
                name: "rte",
                text: &["sentence1", "sentence2"],
                labels: &["entailment", "not_entailment"],
                splits: USUAL,
                metrics: &["accuracy"],
            },
            Set {
                name: "wnli",
                text: &["sentence1", "sentence2"],
                labels: &["not_entailment", "entailment"],
                splits: USUAL,
                metrics: &["accuracy"],
            },
        ],
        others: &[("ax", "its labels are not public")],
    },
    Collection {
        schema: &SUPER_GLUE,
        repo: "aps/super_glue",
        sets: &[
            Set {
                name: "boolq",
                text: &["question", "passage"],
                labels: &["False", "True"],
                splits: USUAL,
                metrics: &["accuracy"],
            },
            Set {
                name: "cb",
                text: &["premise", "hypothesis"],
                labels: &["entailment", "contradiction", "neutral"],
                splits: USUAL,
                metrics: &["accuracy", "f1_macro"],
            },
            Set {
                name: "rte",
                text: &["premise", "hypothesis"],
                labels: &["entailment", "not_entailment"],
                splits: USUAL,
                metrics: &["accuracy"],
            },
        ],
        others: &[
            (
                "copa",
                "its rows ask for a cause or an effect in a column of its own",
            ),
            ("multirc", "its rows have three texts"),
            (
                "record",
                "its answers are found by what they say, and each question has several",
            ),
            ("wic", SPANS),
            ("wsc", SPANS),
            ("wsc.fixed", SPANS),
            ("axb", "its labels are not public"),
            ("axg", "its labels are not public"),
        ],
    },
];

impl Collection {
    /// The collection of this word.
    #[must_use]
    pub fn named(word: &str) -> Option<&'static Self> {
        COLLECTIONS.iter().find(|own| own.schema.name == word)
    }

    /// A set of it.
    ///
    /// # Errors
    /// What it is that has no such set, and what to do.
    pub fn set(&self, name: &str) -> Result<&'static Set, [String; 2]>
    where
        Self: 'static,
    {
        if let Some(set) = self.sets.iter().find(|set| set.name == name) {
            return Ok(set);
        }
        let word = self.schema.name;
        let listed: Vec<String> = self.sets.iter().map(|s| format!("`{}`", s.name)).collect();
        if let Some((_, why)) = self.others.iter().find(|(own, _)| *own == name) {
            let help = format!(
                "read it with `hub \"{}\" {{ config = \"{name}\", … }}` and columns of your own, where they serve",
                self.repo
            );
            return Err([format!("`{word}` does not read `{name}`: {why}"), help]);
        }
        let names = self.sets.iter().map(|set| set.name);
        let help = suggest::did_you_mean(name, names);
        let all = format!("its sets are {}", listed.join(", "));
        Err([
            format!("`{word}` has no data set `{name}`"),
            help.unwrap_or(all),
        ])
    }
}

impl Set {
    /// Writes what the set says into the values of a declaration, where they say nothing themselves.
    pub fn write(&self, values: &mut Values, at: Span) {
        let texts = |list: &[&str]| Checked::Names(list.iter().map(|s| (*s).to_owned()).collect());
        let mut own = vec![
            (DATA_CONFIG.name(), Checked::Str(self.name.to_owned())),
            (TEXT.name(), texts(self.text)),
            (LABEL.name(), Checked::Str("label".to_owned())),
        ];
        if !self.labels.is_empty() {
            own.push((LABELS.name(), texts(self.labels)));
        }
        for (key, value) in own {
            if !values.written(key) {
                values.insert(key, value, at, false);
            }
        }
    }
}
