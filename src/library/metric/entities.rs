//! Entities among tags of words, as seqeval finds and counts them (`mode` not strict, which is what conlleval does).

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Metric, Predictions, Schema, ratio};
use crate::library::data::tokens::Target;

/// A type, and the words that an entity of it begins and ends with.
type Entity<'a> = (&'a str, usize, usize);

/// The letter and the type of a tag: `B` and `PER` of `B-PER`.
fn parts(tag: &str) -> (Option<char>, &str) {
    let mut rest = tag.chars();
    let letter = rest.next();
    let rest = rest.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (letter, if kind.is_empty() { "_" } else { kind })
}

/// Whether a tag is one that stands for a part of an entity, or for none.
#[must_use]
pub fn is_tag(tag: &str) -> bool {
    tag == "O" || ["B-", "I-", "E-", "S-"].iter().any(|p| tag.starts_with(p))
}

/// Whether an entity ends between two tags.
fn ends((before, old): (char, &str), (tag, new): (char, &str)) -> bool {
    matches!(before, 'E' | 'S')
        || matches!(before, 'B' | 'I') && matches!(tag, 'B' | 'S' | 'O')
        || !matches!(before, 'O' | '.') && old != new
}

/// Whether an entity begins with the second of two tags.
fn begins((before, old): (char, &str), (tag, new): (char, &str)) -> bool {
    matches!(tag, 'B' | 'S')
        || matches!(before, 'E' | 'S' | 'O') && matches!(tag, 'E' | 'I')
        || !matches!(tag, 'O' | '.') && old != new
}

/// The entities of a sentence.
fn entities<'a>(tags: &[&'a str]) -> BTreeSet<Entity<'a>> {
    let mut found = BTreeSet::new();
    let (mut last, mut begin) = (('O', ""), 0);
    let all = tags.iter().copied().chain(["O"]);
    for (i, tag) in all.enumerate() {
        let (letter, kind) = parts(tag);
        let own = (letter.unwrap_or('O'), kind);
        if ends(last, own) {
            found.insert((last.1, begin, i - 1));
        }
        if begins(last, own) {
            begin = i;
        }
        last = own;
    }
    found
}

/// Entities of a type: those of the labels, those that were predicted, and those that are both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the labels.
    pub support: u64,
    /// Predicted.
    pub predicted: u64,
    /// Both.
    pub hits: u64,
}

impl Counts {
    /// Share of the predicted ones that are right; 0 where there are none.
    #[must_use]
    pub fn precision(&self) -> f64 {
        ratio(self.hits as f64, self.predicted as f64)
    }

    /// Share of those of the labels that were found; 0 where there are none.
    #[must_use]
    pub fn recall(&self) -> f64 {
        ratio(self.hits as f64, self.support as f64)
    }

    /// Harmonic mean of the two; 0 where both are.
    #[must_use]
    pub fn f1(&self) -> f64 {
        ratio(
            2.0 * self.hits as f64,
            (self.support + self.predicted) as f64,
        )
    }

    fn add(&mut self, other: &Self) {
        self.support += other.support;
        self.predicted += other.predicted;
        self.hits += other.hits;
    }
}

/// Entities by their types.
#[must_use]
pub fn entities_by_type(p: &Predictions) -> BTreeMap<String, Counts> {
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    for pair in p.rows() {
        let (Target::Each(labels), Target::Each(predicted)) = pair else {
            continue;
        };
        let tags = |list: &[u32]| -> Vec<&str> {
            let name = |class: &u32| p.classes.get(*class as usize).map_or("O", String::as_str);
            list.iter().map(name).collect()
        };
        let (labels, predicted) = (entities(&tags(labels)), entities(&tags(predicted)));
        let mut count = |kind: &str, add: &dyn Fn(&mut Counts)| match all.get_mut(kind) {
            Some(own) => add(own),
            None => add(all.entry(kind.to_owned()).or_default()),
        };
        for own in &labels {
            count(own.0, &|c| c.support += 1);
            if predicted.contains(own) {
                count(own.0, &|c| c.hits += 1);
            }
        }
        for own in &predicted {
            count(own.0, &|c| c.predicted += 1);
        }
    }
    all
}

/// A figure of all entities together.
#[derive(Debug)]
pub(super) struct OfEntities {
    schema: &'static Schema,
    of: fn(&Counts) -> f64,
}

static F1_SCHEMA: Schema = Schema {
    name: "entity_f1",
    summary: "F1 of the entities that tags of words make",
    doc: "An entity is right where its first and last word and its type are those of the labels; all types together. Tags are read as \
          seqeval reads them by default (conlleval): IOB1, IOB2, IOE and IOBES alike. Types by themselves are in the results.",
    paper: "Tjong Kim Sang and De Meulder 2003 (cs/0306050)",
    keys: &[],
};
static PRECISION_SCHEMA: Schema = Schema {
    name: "entity_precision",
    summary: "share of the predicted entities that are right",
    doc: "As `entity_f1` counts them.",
    paper: "",
    keys: &[],
};
static RECALL_SCHEMA: Schema = Schema {
    name: "entity_recall",
    summary: "share of the entities that are found",
    doc: "As `entity_f1` counts them.",
    paper: "",
    keys: &[],
};

/// F1.
pub(super) static F1: OfEntities = OfEntities {
    schema: &F1_SCHEMA,
    of: Counts::f1,
};
/// Precision.
pub(super) static PRECISION: OfEntities = OfEntities {
    schema: &PRECISION_SCHEMA,
    of: Counts::precision,
};
/// Recall.
pub(super) static RECALL: OfEntities = OfEntities {
    schema: &RECALL_SCHEMA,
    of: Counts::recall,
};

impl Metric for OfEntities {
    fn schema(&self) -> &'static Schema {
        self.schema
    }

    fn fits(&self, answer: Answer, _: usize, _: bool) -> bool {
        answer == Answer::Tags
    }

    fn compute(&self, p: &Predictions) -> f64 {
        let mut sum = Counts::default();
        entities_by_type(p).values().for_each(|own| sum.add(own));
        (self.of)(&sum)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use std::sync::Arc;

    #[test]
    fn entities_of_every_scheme_are_those_of_seqeval() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/reference/token_classify.json"
        );
        let bytes = std::fs::read(path).expect("a trace");
        let trace: Value = serde_json::from_slice(&bytes).expect("JSON");
        let cases = trace["tags"].as_array().expect("cases");
        assert_eq!(cases.len(), 6);
        for case in cases {
            let rows = |key: &str| -> Vec<Vec<String>> {
                serde_json::from_value(case[key].clone()).expect("lists of tags")
            };
            let (labels, predictions) = (rows("true"), rows("told"));
            let mut classes: Vec<String> = labels
                .iter()
                .chain(&predictions)
                .flatten()
                .cloned()
                .collect();
            classes.sort();
            classes.dedup();
            let targets = |rows: &[Vec<String>]| -> Vec<Target> {
                let place =
                    |tag: &String| classes.iter().position(|own| own == tag).expect("a tag") as u32;
                let row = |row: &Vec<String>| row.iter().map(place).collect();
                rows.iter()
                    .map(|own| Target::Each(Arc::new(row(own))))
                    .collect()
            };
            let p = Predictions {
                targets: targets(&labels),
                predicted: targets(&predictions),
                classes: Arc::new(classes.clone()),
                ..Predictions::default()
            };
            let close = |is: f64, want: &Value| {
                let want = want.as_f64().expect("a number");
                assert!((is - want).abs() < 1e-12, "{is} against {want}: {case}");
            };
            let all = [&PRECISION, &RECALL, &F1];
            for (metric, want) in all.iter().zip(case["micro"].as_array().expect("three")) {
                close(metric.compute(&p), want);
            }
            let own = entities_by_type(&p);
            let wanted = case["entities"].as_array().expect("types");
            assert_eq!(own.len(), wanted.len());
            for ((name, own), want) in own.iter().zip(wanted) {
                assert_eq!(
                    (Some(name.as_str()), Some(own.support)),
                    (want["name"].as_str(), want["support"].as_u64())
                );
                close(own.precision(), &want["precision"]);
                close(own.recall(), &want["recall"]);
                close(own.f1(), &want["f1"]);
            }
        }
    }
}
