//! From label cells to labels.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Cell, DataError};
use super::{Label, Labels};
use crate::base::suggest;

/// The whole number a cell holds, written the plain way.
fn whole(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(whole) => Some(*whole),
        Cell::Text(text) => text
            .trim()
            .parse()
            .ok()
            .filter(|whole: &i64| whole.to_string() == text.trim()),
        Cell::Float(_) | Cell::Missing => None,
    }
}

/// What a label looks like in messages.
fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => {
            let short: String = text.trim().chars().take(40).collect();
            format!("`{short}`")
        }
        Cell::Int(whole) => format!("`{whole}`"),
        Cell::Float(number) => format!("`{number}`"),
        Cell::Missing => "nothing".to_owned(),
    }
}

/// From label cells to labels.
#[derive(Debug)]
pub(super) struct Key {
    /// What the classes are called.
    pub(super) classes: Vec<String>,
    /// The class names the files themselves give.
    own: Option<Vec<String>>,
    known: Known,
}

#[derive(Debug)]
enum Known {
    Nothing,
    Scores,
    Whole(BTreeMap<i64, u32>),
    Names(BTreeMap<String, u32>),
    /// Names, else places in the list.
    Either(BTreeMap<String, u32>),
}

/// Labels of the rows seen so far.
#[derive(Default)]
pub(super) struct Found {
    numbers: BTreeSet<i64>,
    names: BTreeSet<String>,
    /// Some are no whole numbers.
    named: bool,
}

impl Found {
    /// Takes in the label of a row.
    pub(super) fn see(&mut self, cell: &Cell) -> Result<(), DataError> {
        if let Some(whole) = whole(cell) {
            if self.numbers.insert(whole) {
                self.names.insert(whole.to_string());
            }
            return Ok(());
        }
        match cell {
            Cell::Missing => Err(unlabelled()),
            Cell::Text(text) if text.trim().is_empty() => Err(unlabelled()),
            Cell::Text(text) if !fraction(text) => {
                self.named = true;
                if !self.names.contains(text.trim()) {
                    self.names.insert(text.trim().to_owned());
                }
                Ok(())
            }
            _ => Err(
                DataError::new("", format!("{} is a score, not a class", shown(cell)))
                    .help("scores are learned by regression; classes that look like numbers are listed: `labels = […]`"),
            ),
        }
    }
}

fn indexed<K: Ord>(keys: impl IntoIterator<Item = K>) -> BTreeMap<K, u32> {
    keys.into_iter().zip(0u32..).collect()
}

impl Key {
    /// What labels are, as far as that can be said without having seen them; `own` are the class names
    /// that the files give.
    pub(super) fn new(labels: &Labels, own: Option<Vec<String>>) -> Self {
        let (classes, known) = match labels {
            Labels::None | Labels::Derive => (Vec::new(), Known::Nothing),
            Labels::Regression => (Vec::new(), Known::Scores),
            Labels::Given(names) => (names.clone(), Known::Either(indexed(names.iter().cloned()))),
        };
        Self {
            classes,
            own,
            known,
        }
    }

    /// Takes the classes from what was found.
    pub(super) fn derive(&mut self, found: Found) {
        let Found {
            numbers,
            names,
            named,
        } = found;
        (self.classes, self.known) = match self.own.take() {
            Some(classes) if !named => {
                let known = Known::Whole((0i64..).zip(0u32..).take(classes.len()).collect());
                (classes, known)
            }
            own => {
                self.own = own;
                if named {
                    let classes = names.iter().cloned().collect();
                    (classes, Known::Names(indexed(names)))
                } else {
                    let classes = numbers.iter().map(i64::to_string).collect();
                    (classes, Known::Whole(indexed(numbers)))
                }
            }
        };
    }

    pub(super) fn label(&self, cell: &Cell) -> Result<Label, DataError> {
        let empty = matches!(cell, Cell::Text(text) if text.trim().is_empty());
        if empty || *cell == Cell::Missing {
            return Err(unlabelled());
        }
        let name = match cell {
            Cell::Text(text) => text.trim().to_owned(),
            Cell::Int(whole) => whole.to_string(),
            Cell::Float(number) => number.to_string(),
            Cell::Missing => String::new(),
        };
        let class = match &self.known {
            Known::Nothing => None,
            Known::Scores => return score(cell),
            Known::Whole(known) => whole(cell).and_then(|whole| known.get(&whole)).copied(),
            Known::Names(known) => known.get(&name).copied(),
            Known::Either(known) => self
                .renamed(cell, known)
                .or_else(|| known.get(&name).copied())
                .or_else(|| whole(cell).and_then(|place| u32::try_from(place).ok()))
                .filter(|&class| (class as usize) < self.classes.len()),
        };
        class.map(Label::Class).ok_or_else(|| self.unknown(cell))
    }

    /// The class of a whole number when the file names its classes and those given are the same,
    /// maybe in another order: then the name decides.
    fn renamed(&self, cell: &Cell, known: &BTreeMap<String, u32>) -> Option<u32> {
        let own = self.own.as_ref()?;
        if own.len() != known.len() || !own.iter().all(|name| known.contains_key(name)) {
            return None;
        }
        let Cell::Int(place) = cell else { return None };
        own.get(usize::try_from(*place).ok()?)
            .and_then(|name| known.get(name))
            .copied()
    }

    fn unknown(&self, cell: &Cell) -> DataError {
        let error = DataError::new("", format!("{} is none of the classes", shown(cell)));
        if whole(cell) == Some(-1) {
            return error
                .help("-1 marks rows without a label, as in a test split; use another split");
        }
        let names = self.classes.iter().map(String::as_str);
        let near = match cell {
            Cell::Text(text) => suggest::did_you_mean(text.trim(), names),
            _ => Some(format!(
                "whole numbers from 0 to {} are",
                self.classes.len().saturating_sub(1)
            )),
        };
        near.into_iter().fold(error, DataError::help)
    }
}

/// Whether text is a number with a fraction.
fn fraction(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit())
        && text.contains('.')
        && text.trim().parse::<f64>().is_ok()
}

fn unlabelled() -> DataError {
    DataError::new("", "the label is missing")
        .help("a split to train or score on has a label in every row")
}

fn score(cell: &Cell) -> Result<Label, DataError> {
    let number = match cell {
        Cell::Int(whole) => Some(*whole as f32),
        Cell::Float(number) => Some(*number as f32),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::Missing => None,
    };
    match number {
        Some(number) if number.is_finite() => Ok(Label::Score(number)),
        _ => Err(
            DataError::new("", format!("{} is no finite number", shown(cell)))
                .help("regression learns from numbers alone"),
        ),
    }
}
