//! What is seen of a recipe's data while they are tokenized: a report a split.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bind::{Binder, Want};
use super::doubts;
use super::stages::{Plan, Stage};
use crate::base::{Diags, Span};
use crate::library::data::report::{Findings, Survey, shared};
use crate::library::decl;
use crate::library::schema::Checked;
use crate::resolve::Declared;

/// What is reported of a split, as a stage reads it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Name of the data set.
    pub name: String,
    /// The split.
    pub split: String,
    /// Tokens after which its texts are cut.
    pub max_length: u64,
    /// Names of the classes, in the order of the findings'.
    pub classes: Vec<String>,
    /// What was seen.
    pub findings: Findings,
    /// How many of its rows other splits have, too; splits of other data sets are called `NAME.SPLIT`.
    pub overlap: BTreeMap<String, u64>,
    /// The stages that read it so, by their names in the recipe.
    pub stages: Vec<String>,
}

/// What was seen of a split, until the plan is whole.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub name: String,
    pub split: String,
    /// The declaration with its values: the same for the same data.
    pub identity: Arc<str>,
    /// The declaration's name in the recipe.
    pub at: Span,
    pub classes: Vec<String>,
    /// Whether the recipe names the classes.
    pub named: bool,
    /// How many rows are taken from the head of the files, if not all.
    pub taken: Option<u64>,
    pub max_length: u64,
    pub findings: Findings,
    /// Hashes of the rows' texts, ascending.
    pub texts: Arc<Vec<u64>>,
}

impl Noted {
    /// Whether both are the same rows.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.texts, &other.texts)
    }

    /// Whether both are splits of one data set.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }

    /// How many of its rows another split has, too.
    pub(super) fn shared_with(&self, other: &Self) -> u64 {
        if self.is_same(other) {
            return self.findings.rows;
        }
        shared(&self.texts, &other.texts)
    }

    /// As a recipe writes it.
    pub(super) fn title(&self) -> String {
        format!("{}.{}", self.name, self.split)
    }

    /// Rows of each class that occurs.
    pub(super) fn present(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let classes = self.findings.classes.iter().copied().enumerate();
        classes.filter(|(_, rows)| *rows > 0)
    }
}

/// All that was noted, found again by what it is of.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub list: Vec<Noted>,
    /// By the data, the split and all that makes its tokens others.
    places: BTreeMap<String, usize>,
    /// By the data.
    identities: BTreeMap<String, Arc<str>>,
    /// By the data and the split.
    texts: BTreeMap<(String, String), Arc<Vec<u64>>>,
}

impl Binder<'_> {
    /// Notes what was seen of a split, once for each way its rows become tokens.
    #[expect(
        clippy::too_many_arguments,
        reason = "what is planned, what it stands on, and where complaints go"
    )]
    pub(super) fn note(
        &mut self,
        (declared, split): (&Declared, &str),
        want: Want<'_>,
        tokenizer: Option<&str>,
        classes: &[String],
        survey: Option<Survey>,
    ) -> Option<usize> {
        let Survey { findings, texts } = survey?;
        let values = &declared.filled.values;
        let template = want.template.map(|(t, _)| t.source.as_str());
        let (identity, length) = (declared.identity(), want.max_length);
        let learned = (
            want.rows.learn,
            want.task.skips_empty(),
            want.rows.identity(),
        );
        let key = format!(
            "{identity} {split} {length} {template:?} {tokenizer:?} {classes:?} {learned:?}"
        );
        let notes = &mut self.noted;
        if let Some(place) = notes.places.get(&key) {
            return Some(*place);
        }
        let place = notes.list.len();
        notes.places.insert(key, place);
        let own = (identity.clone(), split.to_owned());
        let texts = notes.texts.entry(own).or_insert_with(|| Arc::new(texts));
        let known = notes.identities.entry(identity);
        let identity = known.or_insert_with_key(|text| Arc::from(text.as_str()));
        notes.list.push(Noted {
            name: declared.name.value.clone(),
            split: split.to_owned(),
            identity: identity.clone(),
            at: declared.name.span,
            classes: classes.to_vec(),
            named: matches!(decl::LABELS.get(values), Some(Checked::Names(list)) if !list.is_empty()),
            taken: decl::TAKE
                .get(values)
                .filter(|_| decl::SHUFFLE.get(values).is_none()),
            max_length: length,
            findings,
            texts: texts.clone(),
        });
        Some(place)
    }
}

/// The noted splits that a stage reads.
pub(super) fn read_by(stage: &Stage) -> impl Iterator<Item = usize> + '_ {
    stage.splits.iter().flatten().filter_map(|s| s.noted)
}

/// Reports the data that a plan's stages read, and says what is doubtful about them.
pub(super) fn look(plan: &mut Plan, notes: Notes, diags: &mut Diags) {
    let noted = notes.list;
    let mut readers: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for stage in &plan.stages {
        for place in read_by(stage) {
            let names = readers.entry(place).or_default();
            if !names.contains(&stage.declared) {
                names.push(stage.declared.clone());
            }
        }
    }
    let used: Vec<(usize, &Noted)> = readers
        .keys()
        .filter_map(|&i| Some((i, noted.get(i)?)))
        .collect();
    let doubts = doubts::find(plan, &noted, &used);
    // The same rows may be read with their classes in another order.
    let mut known: BTreeMap<(*const Vec<u64>, String), usize> = BTreeMap::new();
    for (place, own) in &used {
        let stages = readers.get(place).cloned().unwrap_or_default();
        let found = &own.findings;
        let view = format!(
            "{} {:?} {:?}",
            own.max_length, found.lengths, found.supervision
        );
        let next = plan.data.len();
        let at = *known.entry((Arc::as_ptr(&own.texts), view)).or_insert(next);
        if let Some(seen) = plan.data.get_mut(at) {
            let new = stages.into_iter().filter(|s| !seen.stages.contains(s));
            let new: Vec<String> = new.collect();
            seen.stages.extend(new);
            continue;
        }
        let shared = doubts.shared_by(own).filter_map(|(other, rows)| {
            let other = noted.get(other)?;
            let title = if other.is_beside(own) {
                other.split.clone()
            } else {
                other.title()
            };
            (!other.is_same(own)).then_some((title, rows))
        });
        plan.data.push(Seen {
            name: own.name.clone(),
            split: own.split.clone(),
            max_length: own.max_length,
            classes: own.classes.clone(),
            findings: own.findings.clone(),
            overlap: shared.collect(),
            stages,
        });
    }
    doubts.list.into_iter().for_each(|diag| diags.push(diag));
}
