//! What a stage learns: the loss on a head's scores and the data it wants.

use super::model::HeadKind;
use crate::program::op::{CrossEntropy, SquaredError};
use crate::program::{Builder, Feed, Value};

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
}

impl Objective {
    /// Names in recipes.
    pub const NAMES: &'static [&'static str] = &["classify", "regress", "label_words"];

    /// By name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "classify" => Some(Self::Classify),
            "regress" => Some(Self::Regress),
            "label_words" => Some(Self::LabelWords),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Regress => "regress",
            Self::LabelWords => "label_words",
        }
    }

    /// The head it needs.
    #[must_use]
    pub fn head(self, classes: &[String]) -> HeadKind {
        match self {
            Self::Classify | Self::LabelWords => HeadKind::Classes(classes.to_vec()),
            Self::Regress => HeadKind::Regression,
        }
    }

    /// The summed loss of scores `[S, classes]` times the step's loss scale: `[1]`.
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
        }
    }
}
