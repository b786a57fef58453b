//! What a stage learns: the loss on a head's scores and the data it wants.

use super::model::HeadKind;
use super::net::Pick;
use super::schema::{Bound, Default, Filled, Key, Kind, Schema};
use crate::program::op::{CrossEntropy, SquaredError};
use crate::program::{Builder, Feed, Real, Value};

/// What is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objective {
    /// One of several classes: cross-entropy.
    Classify,
    /// A number: squared error.
    Regress,
    /// The word that stands for the class, at a prompt's mask: cross-entropy over the label words alone
    /// (LM-BFF, arXiv 2012.15723, section 4.1).
    LabelWords,
    /// The tokens that stood at masked places: cross-entropy over the vocabulary.
    MaskedLm {
        /// Share of the tokens that is to be told.
        rate: Real,
    },
}

static CLASSIFY: Schema = Schema {
    name: "classify",
    summary: "one of several classes: cross-entropy on the task head",
    doc: "",
    paper: "",
    keys: &[],
};

static REGRESS: Schema = Schema {
    name: "regress",
    summary: "a number: squared error on the task head",
    doc: "",
    paper: "",
    keys: &[],
};

static LABEL_WORDS: Schema = Schema {
    name: "label_words",
    summary: "the word for the class at a prompt's mask: cross-entropy over the label words",
    doc: "The masked LM's own head scores the words of the prompt's verbalizer; the rest of the vocabulary is not \
          computed.",
    paper: "Gao et al. 2021 (arXiv 2012.15723), section 4.1",
    keys: &[],
};

static MASKED_LM: Schema = Schema {
    name: "masked_lm",
    summary: "the tokens behind masks: cross-entropy over the vocabulary at masked places",
    doc: "Of the n tokens of a text (without those the tokenizer adds), max(1, round(rate · n)) are to be told; of these \
          80% are replaced by the mask token, 10% by another token, 10% stay. The choice is drawn anew in every epoch; \
          evaluation draws it once, the same for every stage. The model's own masked-LM head tells them, and is trained \
          by `full` alone. Labels are not read. The loss is the mean over the masked places of a batch.",
    paper: "Devlin et al. 2019 (arXiv 1810.04805), section 3.1 and appendix A.1",
    keys: &[Key {
        name: "rate",
        kind: Kind::Float(Bound::Excl(0.0), Bound::Excl(1.0)),
        default: Default::Text("15%"),
        doc: "share of the tokens of a text that is to be told",
    }],
};

/// Share of masked tokens where none is written.
const USUAL_RATE: f64 = 0.15;

/// Every objective.
pub const OBJECTIVES: &[&Schema] = &[&CLASSIFY, &REGRESS, &LABEL_WORDS, &MASKED_LM];

impl Objective {
    /// By name, with default values.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "classify" => Some(Self::Classify),
            "regress" => Some(Self::Regress),
            "label_words" => Some(Self::LabelWords),
            "masked_lm" => Some(Self::MaskedLm {
                rate: Real::new(USUAL_RATE),
            }),
            _ => None,
        }
    }

    /// As a recipe writes it.
    #[must_use]
    pub fn of(entry: &Filled) -> Option<Self> {
        match (Self::by_name(&entry.name)?, entry.values.opt_float("rate")) {
            (Self::MaskedLm { .. }, Some(rate)) => Some(Self::MaskedLm {
                rate: Real::new(rate),
            }),
            (objective, _) => Some(objective),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Regress => "regress",
            Self::LabelWords => "label_words",
            Self::MaskedLm { .. } => "masked_lm",
        }
    }

    /// Share of masked tokens, where masked tokens are what is learned.
    #[must_use]
    pub const fn masking_rate(self) -> Option<f64> {
        match self {
            Self::MaskedLm { rate } => Some(rate.get()),
            _ => None,
        }
    }

    /// Whether an example's tokens differ from epoch to epoch, so that nothing the model makes of them,
    /// not even its frozen part, is a function of the example alone.
    #[must_use]
    pub const fn inputs_vary(self) -> bool {
        matches!(self, Self::MaskedLm { .. })
    }

    /// Whether labels of the data are read.
    #[must_use]
    pub const fn reads_labels(self) -> bool {
        !matches!(self, Self::MaskedLm { .. })
    }

    /// Whether labels are classes.
    #[must_use]
    pub const fn names_classes(self) -> bool {
        matches!(self, Self::Classify | Self::LabelWords)
    }

    /// Whether it is learned on the model's own masked-LM head, not on a head of the task.
    #[must_use]
    pub const fn on_masked_lm(self) -> bool {
        matches!(self, Self::LabelWords | Self::MaskedLm { .. })
    }

    /// The rows of the states that its head reads.
    #[must_use]
    pub const fn pick(self) -> Pick {
        match self {
            Self::Classify | Self::Regress => Pick::First,
            Self::LabelWords => Pick::Mask,
            Self::MaskedLm { .. } => Pick::Masked,
        }
    }

    /// The head it needs.
    #[must_use]
    pub fn head(self, classes: &[String]) -> HeadKind {
        match self {
            Self::Classify | Self::LabelWords => HeadKind::Classes(classes.to_vec()),
            Self::Regress => HeadKind::Regression,
            Self::MaskedLm { .. } => HeadKind::Vocabulary,
        }
    }

    /// Names of the metrics that suit it.
    #[must_use]
    pub const fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::Classify | Self::LabelWords => &["accuracy", "f1"],
            Self::Regress => &["pearson", "spearman"],
            Self::MaskedLm { .. } => &["perplexity", "masked_accuracy"],
        }
    }

    /// The summed loss of scores `[S, classes]`, or `[M, vocabulary]`, times the step's loss scale: `[1]`.
    pub fn loss(self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        match self {
            Self::Classify | Self::LabelWords => {
                let labels = b.feed(Feed::Labels);
                b.push1(CrossEntropy, &[scores, labels, scale])
            }
            Self::Regress => {
                let targets = b.feed(Feed::Targets);
                b.push1(SquaredError, &[scores, targets, scale])
            }
            Self::MaskedLm { .. } => {
                let tokens = b.feed(Feed::MaskedTokens);
                b.push1(CrossEntropy, &[scores, tokens, scale])
            }
        }
    }
}
