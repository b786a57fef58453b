//! What a data set is asked for: its files, its columns, what its labels are, which of its rows.

use std::path::PathBuf;

use super::super::form::Form;
use crate::library::schema::Portion;

/// Where examples come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// The files, read in this order.
    pub files: Vec<PathBuf>,
    /// Their format; by extension when absent.
    pub format: Option<String>,
    /// The columns of texts, one or two; of a conversation, and of its tools; of words.
    pub text: Vec<String>,
    /// What a row is.
    pub form: Form,
    /// The number of a row's first option, where its answer is a number.
    pub first_answer: u64,
    /// The column of labels.
    pub label: Option<String>,
    /// The column of the rows' tasks.
    pub task: Option<String>,
    /// How many examples to keep, after the shuffle.
    pub take: Option<u64>,
    /// The seed of a shuffle; the files' order when absent.
    pub shuffle: Option<u64>,
    /// What labels are.
    pub labels: Labels,
    /// What stands between the labels of a row, where a text holds several.
    pub separator: Option<String>,
    /// The names of the classes that lie beside the files.
    pub beside: Option<Vec<String>>,
    /// The part of the rows that is taken, where they are divided into splits.
    pub carve: Option<Carve>,
}

/// A part of the rows of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carve {
    /// The share of each part that is carved out.
    pub shares: Vec<Portion>,
    /// Which of them is taken; what they leave, when absent.
    pub own: Option<usize>,
    /// The seed that decides which rows go where.
    pub seed: u64,
    /// The column whose values are spread evenly over the parts.
    pub stratify: Option<String>,
}

/// What labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// There are none; a label column is not read.
    None,
    /// Scores.
    Regression,
    /// Classes, one a row.
    Classes(Naming),
    /// Classes, any number of them a row.
    Several(Naming),
    /// Classes, one for each word of a row.
    Each(Naming),
}

impl Labels {
    /// What its classes are called, if it has classes.
    #[must_use]
    pub const fn naming(&self) -> Option<&Naming> {
        match self {
            Self::Classes(naming) | Self::Several(naming) | Self::Each(naming) => Some(naming),
            Self::None | Self::Regression => None,
        }
    }
}

/// What classes are called, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// What the data set says.
    pub given: Given,
    /// The classes of the stage, where they are fixed.
    pub fixed: Option<Vec<String>>,
    /// The order in which classes are taken, where it holds the same ones: that of a trained head.
    pub preferred: Option<Vec<String>>,
}

/// What a data set says of its classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Given {
    /// Nothing: its files name them, or they are found in the data: whole numbers in order, else names in order.
    #[default]
    Nothing,
    /// Their names: the data hold these, or their places in this list.
    List(Vec<String>),
    /// Which label stands for which class.
    Map(Vec<(String, String)>),
}
