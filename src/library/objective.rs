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
}

impl Objective {
    /// Names in recipes.
    pub const NAMES: &'static [&'static str] = &["classify", "regress"];

    /// By name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "classify" => Some(Self::Classify),
            "regress" => Some(Self::Regress),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Regress => "regress",
        }
    }

    /// The head it needs.
    #[must_use]
    pub fn head(self, classes: &[String]) -> HeadKind {
        match self {
            Self::Classify => HeadKind::Classes(classes.to_vec()),
            Self::Regress => HeadKind::Regression,
        }
    }

    /// The summed loss of scores `[S, classes]` times the step's loss scale: `[1]`.
    pub fn loss(self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        match self {
            Self::Classify => {
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
