//! Classes found in data that nobody has named.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Cell, DataError};
use super::key::{label_error, unlabelled};
use super::spelling::{Spelled, shown};

/// The most classes that are found in data; beyond, the column holds something else.
const MOST_CLASSES: usize = 10_000;

/// Labels of the rows seen so far.
#[derive(Default)]
pub(super) struct Found {
    seen: BTreeSet<Spelled>,
    /// Where a word stands that other programs write for a missing value.
    null: Option<(String, u64, String)>,
}

impl Found {
    /// Takes in the label of a row.
    pub(super) fn see(&mut self, cell: &Cell, file: &str, line: u64) -> Result<(), DataError> {
        let spelled = Spelled::of(cell);
        match &spelled {
            Spelled::Missing => return Err(unlabelled()),
            Spelled::Fraction(_) => {
                let wrong = label_error(format!("{} is a score, not a class", shown(cell)));
                return Err(wrong.kind("score").help(
                    "scores are learned by `objective = regress`; classes that look like numbers are listed: `labels = […]`",
                ));
            }
            _ => {}
        }
        if spelled.is_null_word() && self.null.is_none() {
            self.null = Some((file.to_owned(), line, spelled.text()));
        }
        if !self.seen.contains(&spelled) {
            self.seen.insert(spelled);
        }
        if self.seen.len() > MOST_CLASSES {
            let message = format!("there are more than {MOST_CLASSES} different labels");
            return Err(label_error(message)
                .kind("many")
                .help("name the column of the classes in `label`; a number to be learned takes `objective = regress`"));
        }
        Ok(())
    }

    /// The classes: whole numbers in order, `false` before `true`, else names in order; `several` says whether rows may
    /// have several labels.
    pub(super) fn classes(self, several: bool) -> Result<Vec<String>, DataError> {
        let of = |kind: fn(&Spelled) -> bool| self.seen.iter().filter(|s| kind(s)).count();
        let all = self.seen.len();
        let numbers = of(|s| matches!(s, Spelled::Number(_)));
        if let Some((file, line, word)) = &self.null
            && numbers + 1 == all
            && numbers > 0
        {
            let message =
                format!("the label `{word}` stands among numbers: here a value is missing");
            return Err(DataError {
                file: file.clone(),
                ..label_error(message)
            }
            .at(*line)
            .help(format!("remove such rows, or give them a label; if it is a class of its own, list all of them: `labels = [\"{word}\", …]`")));
        }
        if numbers == all || of(|s| matches!(s, Spelled::Truth(_))) == all {
            return Ok(self.seen.iter().map(Spelled::text).collect());
        }
        let names: BTreeSet<String> = self.seen.iter().map(Spelled::text).collect();
        if let Some((name, separator)) = joined(&names).filter(|_| !several) {
            let message = format!(
                "the label `{name}` is made of other labels with `{separator}` between them, and an example has one class"
            );
            return Err(label_error(message).help(
                format!("if each combination is a class of its own, list them all: `labels = […]`; tasks with several labels an example read `label_separator = \"{separator}\"`"),
            ));
        }
        Ok(names.into_iter().collect())
    }
}

/// A name that is made of other names, and what stands between them.
fn joined(names: &BTreeSet<String>) -> Option<(&str, char)> {
    for separator in ['|', ';', ','] {
        let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names {
            for part in name.split(separator) {
                *parts.entry(part.trim()).or_insert(0) += 1;
            }
        }
        // Each part is a label of its own, or occurs in another combination.
        let made = |name: &&String| {
            let mut own = name.split(separator).map(str::trim);
            name.contains(separator)
                && own.all(|part| !part.is_empty() && parts.get(part).is_some_and(|&n| n > 1))
        };
        if let Some(name) = names.iter().find(made) {
            return Some((name, separator));
        }
    }
    None
}
