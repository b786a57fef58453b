//! From label cells to labels.
//!
//! A number is a place in the list that the *data set* gives: its `labels`, or the `ClassLabel` names of its files. The
//! name that stands there is then looked up in the classes of the stage. A number is never a place in a list that came
//! from elsewhere.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::{About, Cell, DataError};
use super::found::Found;
use super::own::{Own, indexed, labels_error, strange};
use super::several::Separator;
use super::spelling::{Spelled, quoted, shown};
use super::{Label, Labels, Naming};
use crate::base::suggest;
use crate::library::counts::to_u32;

/// From label cells to labels.
#[derive(Debug)]
pub(super) struct Key {
    /// What the classes are called.
    pub(super) classes: Vec<String>,
    known: Known,
    /// What stands between the labels of a row; `None` where a row has one label.
    several: Option<Separator>,
    /// Whether each word of a row has a label.
    each: bool,
}

#[derive(Debug)]
enum Known {
    /// Labels are not read, or their classes are yet to be found.
    Nothing,
    Scores,
    Classes(Table),
}

/// Classes by what labels say.
#[derive(Debug)]
struct Table {
    names: BTreeMap<String, u32>,
    /// The classes of the numbers from 0 on, where numbers are places in a list of names.
    places: Option<Vec<u32>>,
    /// Whether the list is the recipe's: it may be meant for numbers that begin at 1.
    written: bool,
}

/// The numbers of a data set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    range: Option<(i64, i64)>,
}

impl Numbers {
    /// Takes in the label of a row.
    pub(super) fn see(&mut self, cell: &Cell) {
        if let Spelled::Number(number) = Spelled::of(cell) {
            let (least, most) = self.range.unwrap_or((number, number));
            self.range = Some((least.min(number), most.max(number)));
        }
    }
}

/// Whether two spellings are one label: `1` and `1.0`, `true` and `True`.
#[must_use]
pub fn same_label(one: &str, other: &str) -> bool {
    one == other || Spelled::of_text(one) == Spelled::of_text(other)
}

/// Names that say nothing: `LABEL_0`, `LABEL_1`, …, or `0`, `1`, ….
#[must_use]
pub fn generic(names: &[String]) -> bool {
    let like = |prefix: &str| {
        let mut all = names.iter().enumerate();
        all.all(|(i, name)| name.strip_prefix(prefix) == Some(i.to_string().as_str()))
    };
    !names.is_empty() && (like("LABEL_") || like(""))
}

impl Key {
    /// What labels are, as far as that can be said without having seen them; `files` are the class names that the
    /// files give.
    ///
    /// # Errors
    /// When the names of the recipe, of the files and of the stage are not those of the same classes.
    pub(super) fn new(
        labels: &Labels,
        files: Option<Vec<String>>,
        separator: Option<String>,
    ) -> Result<Self, DataError> {
        let lists = matches!(labels, Labels::Several(_) | Labels::Each(_));
        let several = lists.then_some(Separator(separator));
        let each = matches!(labels, Labels::Each(_));
        let own = Self::of_one(labels, files)?;
        Ok(Self {
            several,
            each,
            ..own
        })
    }

    /// The same of rows with one label.
    fn of_one(labels: &Labels, files: Option<Vec<String>>) -> Result<Self, DataError> {
        let Some(naming) = labels.naming() else {
            let known = match labels {
                Labels::Regression => Known::Scores,
                _ => Known::Nothing,
            };
            return Ok(Self {
                classes: Vec::new(),
                known,
                several: None,
                each: false,
            });
        };
        let own = Own::of(&naming.given, files)?;
        match (own, &naming.fixed) {
            (None, None) => Ok(Self {
                classes: Vec::new(),
                known: Known::Nothing,
                several: None,
                each: false,
            }),
            (Some(own), None) => {
                let order = ordered(&own.classes, naming.preferred.as_deref());
                Ok(Self::within(own, order.clone(), &order))
            }
            (None, Some(fixed)) => {
                let numeric = fixed
                    .iter()
                    .any(|name| matches!(Spelled::of_text(name), Spelled::Number(_)));
                let places =
                    (!numeric && generic(fixed)).then(|| (0u32..).take(fixed.len()).collect());
                Ok(Self {
                    classes: fixed.clone(),
                    known: Known::Classes(Table {
                        names: indexed(fixed),
                        places,
                        written: false,
                    }),
                    several: None,
                    each: false,
                })
            }
            (Some(own), Some(fixed)) if generic(fixed) && *fixed != own.classes => {
                if own.classes.len() != fixed.len() {
                    return Err(labels_error(format!(
                        "the data set has {} classes, {}, and the model has {}",
                        own.classes.len(),
                        quoted(own.classes.iter().map(String::as_str)),
                        fixed.len()
                    ))
                    .help("name as many classes as the model has, in the model's order"));
                }
                let order = own.classes.clone();
                Ok(Self::within(own, order.clone(), &order))
            }
            (Some(own), Some(fixed)) => {
                if let Some(stranger) = own.classes.iter().find(|name| !fixed.contains(name)) {
                    return Err(strange(stranger, &own, fixed));
                }
                Ok(Self::within(own, fixed.clone(), fixed))
            }
        }
    }

    /// The data set's labels as places in `order`, which holds all of its classes.
    fn within(own: Own, classes: Vec<String>, order: &[String]) -> Self {
        let to: Vec<u32> = own
            .classes
            .iter()
            .map(|name| to_u32(order.iter().position(|other| other == name).unwrap_or(0)))
            .collect();
        let class = |at: u32| to.get(at as usize).copied().unwrap_or(u32::MAX);
        let names = own.names.into_iter().map(|(name, at)| (name, class(at)));
        Self {
            classes,
            known: Known::Classes(Table {
                names: names.collect(),
                places: own.places.map(|list| list.into_iter().map(class).collect()),
                written: own.written,
            }),
            several: None,
            each: false,
        }
    }

    /// Whether classes are to be found in the data.
    pub(super) fn is_open(&self, labels: &Labels) -> bool {
        labels.naming().is_some() && matches!(self.known, Known::Nothing)
    }

    /// Takes the classes from what was found.
    pub(super) fn derive(&mut self, found: Found, naming: &Naming) -> Result<(), DataError> {
        let classes = found.classes(self.several.is_some())?;
        self.classes = ordered(&classes, naming.preferred.as_deref());
        self.known = Known::Classes(Table {
            names: indexed(&self.classes),
            places: None,
            written: false,
        });
        Ok(())
    }

    /// The labels in a cell: one, where a row has one.
    pub(super) fn elements<'c>(&self, cell: &'c Cell) -> Result<Cow<'c, [Cell]>, DataError> {
        match &self.several {
            Some(separator) => separator.elements(cell),
            None => Ok(Cow::Borrowed(std::slice::from_ref(cell))),
        }
    }

    /// The label of a row.
    pub(super) fn label(&self, cell: &Cell) -> Result<Label, DataError> {
        if self.several.is_none() {
            return self.one(cell);
        }
        let mut classes = Vec::new();
        for cell in self.elements(cell)?.iter() {
            if let Label::Class(class) = self.one(cell)? {
                classes.push(class);
            }
        }
        if self.each {
            return Ok(Label::Each(classes));
        }
        classes.sort_unstable();
        classes.dedup();
        Ok(Label::Classes(classes))
    }

    /// One label.
    fn one(&self, cell: &Cell) -> Result<Label, DataError> {
        let table = match &self.known {
            Known::Scores => return score(cell),
            Known::Nothing => return Err(self.unknown(cell, None)),
            Known::Classes(table) => table,
        };
        let spelled = Spelled::of(cell);
        let place = |n: usize| table.places.as_ref().and_then(|list| list.get(n)).copied();
        let class = match &spelled {
            Spelled::Missing => return Err(unlabelled()),
            // Of numbers, the list says what they are; a name that looks like one is a name.
            Spelled::Number(number) => match &table.places {
                Some(_) => usize::try_from(*number).ok().and_then(place),
                None => table.names.get(&spelled.text()).copied(),
            },
            Spelled::Truth(truth) => {
                let two = self.classes.len() == 2;
                let named = table.names.get(&spelled.text()).copied();
                named.or_else(|| place(usize::from(*truth)).filter(|_| two))
            }
            _ => table.names.get(&spelled.text()).copied(),
        };
        class
            .filter(|&class| (class as usize) < self.classes.len())
            .map(Label::Class)
            .ok_or_else(|| self.unknown(cell, Some(table)))
    }

    /// What is wrong with the numbers of all rows beside a list of names.
    pub(super) fn check_numbers(&self, numbers: Numbers) -> Option<DataError> {
        let Known::Classes(table) = &self.known else {
            return None;
        };
        let (least, most) = numbers.range?;
        if !table.written || table.places.is_none() || least <= 0 {
            return None;
        }
        let pairs = self.classes.iter().zip(least..);
        let pairs: Vec<String> = pairs
            .take(4)
            .map(|(name, n)| format!("{n}: {name:?}"))
            .collect();
        let more = if self.classes.len() > 4 { ", …" } else { "" };
        let which = if least == most {
            format!("the only number among the labels is {least}")
        } else {
            format!("the labels are numbers from {least} to {most}")
        };
        Some(
            labels_error(format!("{which}, and those of a list of names begin at 0")).help(
                format!(
                    "say what each number stands for: `labels = {{ {}{more} }}`",
                    pairs.join(", ")
                ),
            ),
        )
    }

    fn unknown(&self, cell: &Cell, table: Option<&Table>) -> DataError {
        let error =
            label_error(format!("{} is none of the classes", shown(cell))).kind("unknown label");
        let spelled = Spelled::of(cell);
        if spelled == Spelled::Number(-1) {
            return error
                .help("-1 marks rows without a label, as in a test split; use another split");
        }
        let names = quoted(self.classes.iter().map(String::as_str));
        match (&spelled, table.and_then(|t| t.places.as_ref())) {
            (Spelled::Number(_) | Spelled::Truth(_), Some(places)) => error.help(format!(
                "numbers from 0 to {} stand for {names}",
                places.len().saturating_sub(1)
            )),
            (Spelled::Number(_) | Spelled::Truth(_), None) if table.is_some() => error
                .kind("number without list")
                .help(format!(
                    "the classes are {names}; write what the labels of this data set stand for, in the order of their numbers: `labels = […]`"
                )),
            _ if generic(&self.classes) => error.help(format!(
                "the model calls its classes {names}; write what the data set calls them, in the model's order: `labels = […]`"
            )),
            _ => {
                let near =
                    suggest::did_you_mean(&spelled.text(), self.classes.iter().map(String::as_str));
                error.help(near.unwrap_or_else(|| format!("the classes are {names}")))
            }
        }
    }
}

/// Names in the order of others that are the same ones.
fn ordered(names: &[String], preferred: Option<&[String]>) -> Vec<String> {
    let same = |other: &&[String]| {
        other.len() == names.len() && names.iter().all(|name| other.contains(name))
    };
    preferred.filter(same).unwrap_or(names).to_vec()
}

pub(super) fn label_error(message: impl Into<String>) -> DataError {
    DataError::new("", message).about(About::Label)
}

pub(super) fn unlabelled() -> DataError {
    label_error("the label is missing")
        .kind("missing label")
        .help("a split to train or score on has a label in every row")
}

fn score(cell: &Cell) -> Result<Label, DataError> {
    let number = match cell {
        Cell::Int(whole) => Some(*whole as f32),
        Cell::Float(number) => Some(*number as f32),
        Cell::Bool(truth) => Some(f32::from(*truth)),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::List(_) => None,
        Cell::Missing => return Err(unlabelled()),
    };
    match number {
        Some(number) if number.is_finite() => Ok(Label::Score(number)),
        _ => Err(label_error(format!("{} is no finite number", shown(cell)))
            .kind("no number")
            .help("regression learns from numbers alone")),
    }
}
