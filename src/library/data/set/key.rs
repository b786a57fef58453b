//! From label cells to labels.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Cell, DataError, Table};
use super::{ENOUGH, Label, Labels};
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
pub(super) struct Key {
    /// What the classes are called.
    pub(super) classes: Vec<String>,
    /// The class names the files themselves give.
    own: Option<Vec<String>>,
    known: Known,
}

enum Known {
    Nothing,
    Scores,
    Whole(BTreeMap<i64, u32>),
    Names(BTreeMap<String, u32>),
    /// Names, else places in the list.
    Either(BTreeMap<String, u32>),
}

fn indexed<K: Ord>(keys: impl IntoIterator<Item = K>) -> BTreeMap<K, u32> {
    keys.into_iter().zip(0u32..).collect()
}

impl Key {
    pub(super) fn new(labels: &Labels, tables: &[(String, Table)]) -> Result<Self, Vec<DataError>> {
        let mut own: Option<&Vec<String>> = None;
        for (file, table) in tables {
            match (own, &table.class_names) {
                (Some(known), Some(names)) if known != names => {
                    let message = "the file names other classes than the ones before it";
                    return Err(vec![DataError::new(file.as_str(), message)]);
                }
                (_, names) => own = own.or(names.as_ref()),
            }
        }
        let own = own.cloned();
        Ok(match labels {
            Labels::None => Self {
                classes: Vec::new(),
                own,
                known: Known::Nothing,
            },
            Labels::Regression => Self {
                classes: Vec::new(),
                own,
                known: Known::Scores,
            },
            Labels::Given(names) => Self {
                classes: names.clone(),
                known: Known::Either(indexed(names.iter().cloned())),
                own,
            },
            Labels::Derive => Self::derive(own, tables)?,
        })
    }

    fn derive(
        own: Option<Vec<String>>,
        tables: &[(String, Table)],
    ) -> Result<Self, Vec<DataError>> {
        let mut errors = Vec::new();
        let (mut numbers, mut names, mut all_whole) = (BTreeSet::new(), BTreeSet::new(), true);
        for (file, table) in tables {
            for row in &table.rows {
                let Some(cell) = row.cells.last() else {
                    continue;
                };
                if let Some(whole) = whole(cell) {
                    numbers.insert(whole);
                    names.insert(whole.to_string());
                    continue;
                }
                match cell {
                    Cell::Text(text) if text.trim().is_empty() => errors.push(unlabelled().at(row.line)),
                    Cell::Missing => errors.push(unlabelled().at(row.line)),
                    Cell::Text(text) if !fraction(text) => {
                        all_whole = false;
                        if !names.contains(text.trim()) {
                            names.insert(text.trim().to_owned());
                        }
                    }
                    _ => errors.push(
                        DataError::new("", format!("{} is a score, not a class", shown(cell)))
                            .at(row.line)
                            .help("scores are learned by regression; classes that look like numbers are listed: `labels = […]`"),
                    ),
                }
                if let Some(error) = errors.last_mut()
                    && error.file.is_empty()
                {
                    error.file.clone_from(file);
                }
                if errors.len() >= ENOUGH {
                    return Err(errors);
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(match own {
            Some(classes) if all_whole => {
                let known = Known::Whole((0i64..).zip(0u32..).take(classes.len()).collect());
                Self {
                    classes,
                    own: None,
                    known,
                }
            }
            own if all_whole => Self {
                classes: numbers.iter().map(i64::to_string).collect(),
                own,
                known: Known::Whole(indexed(numbers)),
            },
            own => Self {
                classes: names.iter().cloned().collect(),
                own,
                known: Known::Names(indexed(names)),
            },
        })
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
