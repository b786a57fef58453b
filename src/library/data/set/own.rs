//! What a data set calls its classes: the recipe's names and those of the files, brought together.

use std::collections::{BTreeMap, BTreeSet};

use crate::library::counts::to_u32;

use super::super::{About, DataError};
use super::Given;
use super::key::generic;
use super::spelling::{Spelled, quoted};

/// What a data set calls its classes.
pub(super) struct Own {
    /// In the order of their numbers.
    pub(super) classes: Vec<String>,
    pub(super) names: BTreeMap<String, u32>,
    pub(super) places: Option<Vec<u32>>,
    pub(super) written: bool,
}

impl Own {
    /// The recipe's names and those of the files, brought together.
    pub(super) fn of(given: &Given, files: Option<Vec<String>>) -> Result<Option<Self>, DataError> {
        let Given::List(list) = given else {
            let Given::Map(pairs) = given else {
                return Ok(files.map(|names| Self {
                    names: indexed(&names),
                    places: Some((0u32..).take(names.len()).collect()),
                    classes: names,
                    written: false,
                }));
            };
            return Self::mapped(pairs, files).map(Some);
        };
        twice(list)?;
        let names = indexed(list);
        let numeric = list
            .iter()
            .any(|name| matches!(Spelled::of_text(name), Spelled::Number(_)));
        let in_order = || Some((0u32..).take(list.len()).collect());
        let places = match &files {
            None if numeric => None,
            None => in_order(),
            Some(files) => {
                // `NEG` in the recipe may be `neg` in the files, if nothing else is.
                let folded: BTreeMap<String, u32> = names
                    .iter()
                    .map(|(name, at)| (name.to_lowercase(), *at))
                    .collect();
                let find = |name: &String| {
                    let exact = names.get(&same(name));
                    let near = || folded.get(&same(name).to_lowercase());
                    exact
                        .or_else(|| near().filter(|_| folded.len() == names.len()))
                        .copied()
                };
                let by_name: Option<Vec<u32>> = files.iter().map(find).collect();
                match by_name {
                    Some(places) if files.len() == list.len() => Some(places),
                    _ if generic(files) && files.len() == list.len() => in_order(),
                    _ => return Err(other_names(list, files)),
                }
            }
        };
        Ok(Some(Self {
            classes: list.clone(),
            names,
            places,
            written: files.is_none(),
        }))
    }

    /// Labels and the classes that they stand for.
    fn mapped(pairs: &[(String, String)], files: Option<Vec<String>>) -> Result<Self, DataError> {
        let mut pairs: Vec<(Spelled, &String)> = pairs
            .iter()
            .map(|(from, to)| (Spelled::of_text(from), to))
            .collect();
        // Numbers say in which order their classes are.
        if pairs
            .iter()
            .all(|(from, _)| matches!(from, Spelled::Number(_)))
        {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut classes: Vec<String> = Vec::new();
        let mut names = BTreeMap::new();
        for (from, to) in pairs {
            let class = classes
                .iter()
                .position(|name| name == to)
                .unwrap_or_else(|| {
                    classes.push(to.clone());
                    classes.len() - 1
                });
            names.insert(from.text(), to_u32(class));
        }
        // A number of the files is a name, which the map may hold.
        let places = files.map(|files| {
            let class = |(n, name): (usize, &String)| {
                let known = names.get(&same(name)).or_else(|| names.get(&n.to_string()));
                known.copied().unwrap_or(u32::MAX)
            };
            files.iter().enumerate().map(class).collect()
        });
        Ok(Self {
            classes,
            names,
            places,
            written: false,
        })
    }
}

fn twice(list: &[String]) -> Result<(), DataError> {
    let mut seen = BTreeSet::new();
    match list.iter().find(|name| !seen.insert(same(name))) {
        Some(name) => Err(
            labels_error(format!("`labels` names the class `{name}` twice"))
                .help("each class has one name"),
        ),
        None => Ok(()),
    }
}

fn other_names(list: &[String], files: &[String]) -> DataError {
    let rename = files.iter().zip(list).take(3);
    let rename: Vec<String> = rename
        .map(|(from, to)| format!("{from:?}: {to:?}"))
        .collect();
    labels_error(format!(
        "the files name their classes {}, and `labels` names {}",
        quoted(files.iter().map(String::as_str)),
        quoted(list.iter().map(String::as_str))
    ))
    .help(format!(
        "leave `labels` away, or say which name stands for which: `labels = {{ {}, … }}`",
        rename.join(", ")
    ))
}

pub(super) fn strange(name: &str, own: &Own, fixed: &[String]) -> DataError {
    let (written, own) = (own.written, &own.classes);
    let error = labels_error(format!(
        "the classes of the data set are {}, and those of the stage are {}: `{name}` is none of them",
        quoted(own.iter().map(String::as_str)),
        quoted(fixed.iter().map(String::as_str))
    ));
    let alike = |name: &String| {
        let same = |other: &&String| other.to_lowercase() == name.to_lowercase();
        fixed.iter().find(same)
    };
    let spelled: Option<Vec<String>> = own
        .iter()
        .map(|name| alike(name).map(|n| format!("{n:?}")))
        .collect();
    match spelled {
        Some(names) => error.help(format!("write `labels = [{}]`", names.join(", "))),
        None if written => error.help(
            "name the classes as the stage does, in the order of the data set's numbers; or say which label stands for which class: `labels = { 0: \"…\", … }`",
        ),
        None => {
            let pairs: Vec<String> = own.iter().take(3).map(|n| format!("{n:?}: \"…\"")).collect();
            error.help(format!(
                "say which label stands for which class of the stage: `labels = {{ {} }}`",
                pairs.join(", ")
            ))
        }
    }
}

/// What all spellings of a name are looked up by.
pub(super) fn same(name: &str) -> String {
    Spelled::of_text(name).text()
}

pub(super) fn indexed(names: &[String]) -> BTreeMap<String, u32> {
    let mut map = BTreeMap::new();
    for (name, class) in names.iter().zip(0u32..) {
        map.entry(same(name)).or_insert(class);
    }
    map
}

pub(super) fn labels_error(message: impl Into<String>) -> DataError {
    DataError::new("", message).about(About::Labels)
}
