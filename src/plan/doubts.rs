//! What is doubtful about data and can be trained on all the same: each doubt a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::drawn::UNLABELLED;
use super::error::{
    IMBALANCED_CLASSES, NULL_CLASS, ONE_CLASS, SHARED_ROWS, SORTED_LABELS, UNFIT_TOKENIZER,
    UNSEEN_CLASS,
};
use super::seen::Noted;
use super::stages::{Plan, Stage};
use crate::base::{Code, Diag, Span};
use crate::library::data::report::says_nothing;
use crate::library::metric::Metric;
use crate::library::stage::job::Routine;
use crate::library::stage::keys;

/// How many times as many rows as the rarest the most frequent class may have.
const UNEVEN: u64 = 20;
/// Share of unknown tokens from which on a tokenizer does not fit.
const UNFIT: f64 = 0.05;
/// Rows from which on classes that stand in stretches do not stand so by chance.
const ENOUGH: u64 = 16;
/// Names that a message lists.
const LISTED: usize = 5;

/// All doubts, and what was counted on the way.
#[derive(Default)]
pub(super) struct Doubts {
    pub list: Vec<Diag>,
    /// How many rows of the first split the second has, too, for all that were compared.
    shared: BTreeMap<(usize, usize), u64>,
    /// Of splits with the same rows, the first.
    first: BTreeMap<*const Vec<u64>, usize>,
}

impl Doubts {
    /// The splits that one was compared with, and how many of its rows each has, too.
    pub(super) fn shared_by(&self, split: &Noted) -> impl Iterator<Item = (usize, u64)> + '_ {
        let place = self.first.get(&Arc::as_ptr(&split.texts)).copied();
        let place = place.unwrap_or(usize::MAX);
        let own = self.shared.range((place, 0)..=(place, usize::MAX));
        own.map(|((_, other), rows)| (*other, *rows))
    }

    /// Compares two splits, once.
    fn compare(&mut self, (i, one): (usize, &Noted), (j, other): (usize, &Noted)) -> u64 {
        let mut first = |place, split: &Noted| {
            let key = Arc::as_ptr(&split.texts);
            *self.first.entry(key).or_insert(place)
        };
        let (i, j) = (first(i, one), first(j, other));
        let mut rows = |key, a: &Noted, b: &Noted| -> u64 {
            *self.shared.entry(key).or_insert_with(|| a.shared_with(b))
        };
        rows((j, i), other, one);
        rows((i, j), one, other)
    }
}

/// A split that a stage scores, and one that its model has learned from.
struct Relation<'a> {
    learner: &'a Stage,
    scorer: &'a Stage,
    learned: usize,
    /// Whether it has learned the labels of that split, and not what other stages say of its texts.
    labelled: bool,
    scored: usize,
    /// Where the scored split is named.
    at: Span,
}

/// Looks for what is doubtful about the splits that stages read.
pub(super) fn find(plan: &Plan, noted: &[Noted], used: &[(usize, &Noted)]) -> Doubts {
    let mut doubts = Doubts::default();
    let mut said = Said::default();
    let mut sets: IndexMap<*const u8, Vec<(usize, &Noted)>> = IndexMap::new();
    for (place, own) in used {
        said.extend(classes(own));
        said.extend(unfit(own));
        let set = sets.entry(own.identity.as_ptr()).or_default();
        // Other tokens of the same rows are no other split.
        if !set.iter().any(|(_, known)| known.is_same(own)) {
            set.push((*place, own));
        }
    }
    for set in sets.values() {
        for (i, one) in set.iter().enumerate() {
            for other in set.iter().skip(i + 1) {
                said.extend(beside(*one, *other, &mut doubts));
            }
        }
    }
    for stage in &plan.stages {
        said.extend(uneven(stage, noted));
        for relation in relations(plan, stage) {
            let (Some(learned), Some(scored)) =
                (noted.get(relation.learned), noted.get(relation.scored))
            else {
                continue;
            };
            if relation.labelled {
                said.extend(unseen(&relation, learned, scored));
            }
            if learned.is_beside(scored) && !learned.is_same(scored) {
                continue; // said of the data set
            }
            let rows = doubts.compare((relation.scored, scored), (relation.learned, learned));
            said.extend(scores_learned(&relation, learned, scored, rows));
        }
    }
    doubts.list = said.list;
    doubts
}

/// Doubts, each once: the points of a sweep read the same data.
#[derive(Default)]
struct Said {
    known: BTreeSet<(&'static str, Span, String)>,
    list: Vec<Diag>,
}

impl Said {
    fn extend(&mut self, doubts: impl IntoIterator<Item = Diag>) {
        for diag in doubts {
            let at = diag.span.unwrap_or_default();
            if self
                .known
                .insert((diag.code.name, at, diag.message.clone()))
            {
                self.list.push(diag);
            }
        }
    }
}

fn warn(code: &'static Code, at: Span, message: String, help: &str) -> Diag {
    Diag::warning(code, at, message).help(help)
}

/// `a`, `b` and 3 others.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    match all.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        list if list.len() > LISTED + 1 => {
            let (shown, rest) = list.split_at(LISTED);
            format!("{} and {} others", shown.join(", "), rest.len())
        }
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// Classes that are words for nothing, a single one, or one after the other.
fn classes(own: &Noted) -> Vec<Diag> {
    let mut list = Vec::new();
    let name = |class: usize| own.classes.get(class).map_or("?", String::as_str);
    let present: Vec<(usize, u64)> = own.present().collect();
    let rows = own.findings.rows;
    let title = own.title();
    let nothing: Vec<&str> = present
        .iter()
        .map(|(class, _)| name(*class))
        .filter(|class| says_nothing(class) && !own.named)
        .collect();
    if !nothing.is_empty() {
        let message = match nothing.as_slice() {
            [one] => format!("`{title}` has a class called `{one}`, a word for nothing"),
            several => {
                let all = listed(several.iter().copied());
                format!("`{title}` has classes called {all}, words for nothing")
            }
        };
        let help = "if these rows have no label, leave them out of the file; if it is a class, name all of them: `labels = […]`";
        list.push(
            warn(&NULL_CLASS, own.at, message, help).label("its classes come from the files"),
        );
    }
    if own.classes.len() < 2 || present.is_empty() {
        return list;
    }
    let headed = own.taken == Some(rows);
    let stretches = own.findings.stretches == present.len() as u64;
    if headed && stretches && rows >= ENOUGH {
        let each = present.iter().take(LISTED);
        let each: Vec<String> = each
            .map(|(class, rows)| format!("{rows} of `{}`", name(*class)))
            .collect();
        let message = format!(
            "`take` keeps the first {rows} rows of `{title}`, and the file is sorted by label: {}, of {} classes",
            each.join(", "),
            own.classes.len()
        );
        let help = "write `shuffle = 1` beside `take`, so that it keeps rows of every class";
        list.push(warn(&SORTED_LABELS, own.at, message, help));
    } else if let [(class, all)] = present.as_slice()
        && rows > 1
        && *all == rows
    {
        let message = format!(
            "all {rows} rows of `{title}` are of the class `{}`, one of {}",
            name(*class),
            own.classes.len()
        );
        let help = "check `label` and the files; where every row is of one class, a model that knows nothing is always right";
        list.push(warn(&ONE_CLASS, own.at, message, help));
    }
    list
}

/// Many tokens that the vocabulary does not hold.
fn unfit(own: &Noted) -> Option<Diag> {
    let share = own.findings.unknown_share()?;
    if share < UNFIT {
        return None;
    }
    let message = format!(
        "{:.1} % of the tokens of `{}` are unknown to the model's tokenizer",
        100.0 * share,
        own.title()
    );
    let help = "check the language and the encoding of the texts, and that the tokenizer is the model's own; what is unknown reads as one and the same token";
    Some(warn(&UNFIT_TOKENIZER, own.at, message, help))
}

/// Splits of one data set that share rows.
fn beside(one: (usize, &Noted), other: (usize, &Noted), doubts: &mut Doubts) -> Option<Diag> {
    // What is learned from is the one that should not hold rows of the others.
    let learns = |n: &Noted| (n.split == "train", n.findings.rows);
    let (learned, scored) = if learns(one.1) >= learns(other.1) {
        (one, other)
    } else {
        (other, one)
    };
    let rows = doubts.compare(scored, learned);
    let (learned, scored) = (learned.1, scored.1);
    if rows == 0 {
        return None;
    }
    let message = format!(
        "{} of `{}` {} in `{}`, too",
        of_rows(rows, scored.findings.rows),
        scored.title(),
        if rows == 1 { "is" } else { "are" },
        learned.title()
    );
    let help = "keep each text in one split: scores on rows that were learned from are too good";
    Some(warn(&SHARED_ROWS, learned.at, message, help).label("two of its splits share rows"))
}

fn of_rows(some: u64, all: u64) -> String {
    if some == all {
        format!("all {all} rows")
    } else {
        format!("{some} of the {all} rows")
    }
}

/// The splits that a stage scores, each beside those that its model has learned from.
fn relations<'a>(plan: &'a Plan, scorer: &'a Stage) -> Vec<Relation<'a>> {
    let split = |stage: &Stage, place: usize| stage.splits.get(place)?.as_ref()?.noted;
    let keys = scorer.kind.splits();
    let (place, mut learner) = if scorer.kind.trains() {
        (1, Some(scorer))
    } else {
        (0, scorer.parent.as_deref().and_then(|p| plan.stage(p)))
    };
    let (Some(scored), Some(key)) = (split(scorer, place), keys.get(place)) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    while let Some(stage) = learner {
        // Texts that teachers label are labelled again for the next generation.
        let places = [Some(0), (!scorer.kind.annotates()).then_some(UNLABELLED)];
        for place in places.into_iter().flatten() {
            if let (true, Some(learned)) = (stage.kind.trains(), split(stage, place)) {
                list.push(Relation {
                    learner: stage,
                    scorer,
                    learned,
                    labelled: place == 0,
                    scored,
                    at: scorer.filled.values.span(key),
                });
            }
        }
        learner = stage.parent.as_deref().and_then(|p| plan.stage(p));
    }
    list
}

/// Rows that are scored and were learned from.
fn scores_learned(
    relation: &Relation<'_>,
    learned: &Noted,
    scored: &Noted,
    shared: u64,
) -> Option<Diag> {
    if shared == 0 {
        return None;
    }
    let (learner, scorer) = (&relation.learner.declared, &relation.scorer.declared);
    let who = if learner == scorer {
        "it learns from them".to_owned()
    } else {
        format!("`{learner}` has learned from them")
    };
    let rows = of_rows(shared, scored.findings.rows);
    let where_ = if learned.is_same(scored) {
        String::new()
    } else {
        format!(" in `{}`", learned.title())
    };
    let message = format!(
        "`{scorer}` scores {rows} of `{}`, and {who}{where_}",
        scored.title()
    );
    let help = "name a split that nothing was learned from: scores on rows that were learned from are too good";
    Some(warn(&SHARED_ROWS, relation.at, message, help).label("scored here"))
}

/// Classes that are scored and never learned.
fn unseen(relation: &Relation<'_>, learned: &Noted, scored: &Noted) -> Option<Diag> {
    let known: BTreeSet<&str> = learned
        .present()
        .filter_map(|(class, _)| Some(learned.classes.get(class)?.as_str()))
        .collect();
    if known.is_empty() {
        return None;
    }
    let name = |class: usize| scored.classes.get(class).map(String::as_str);
    let missing = || {
        let all = scored.present();
        all.filter_map(|(class, rows)| Some((name(class)?, rows)))
            .filter(|(class, _)| !known.contains(class))
    };
    let rows: u64 = missing().map(|(_, rows)| rows).sum();
    if rows == 0 {
        return None;
    }
    let message = format!(
        "{} of `{}` {} of {}, of which `{}` has no row to learn from",
        of_rows(rows, scored.findings.rows),
        scored.title(),
        if rows == 1 { "is" } else { "are" },
        listed(missing().map(|(class, _)| class)),
        learned.title()
    );
    let help = "check how the files were split; a class that is never learned is never predicted";
    Some(warn(&UNSEEN_CLASS, relation.at, message, help).label("scored here"))
}

/// Accuracy as the metric where one class is rare.
fn uneven(stage: &Stage, noted: &[Noted]) -> Option<Diag> {
    let (metrics, best, positive, place): (&[&dyn Metric], _, _, _) = match &stage.job.routine {
        Routine::Fit(fit) if fit.evaluate.is_some() => (&fit.metrics, fit.best, fit.positive, 1),
        Routine::Score(score) => (&score.metrics, None, score.positive, 0),
        _ => return None,
    };
    let scored = noted.get(stage.splits.get(place)?.as_ref()?.noted?)?;
    let most = scored.present().max_by_key(|(_, rows)| *rows)?;
    let least = scored.present().min_by_key(|(_, rows)| *rows)?;
    if most.1 <= UNEVEN * least.1 {
        return None;
    }
    let has = |name: &str| metrics.iter().any(|m| m.schema().name == name);
    let rare = has("f1") && positive as usize == least.0;
    let looks = has("f1_macro") || has("matthews") || rare;
    let chosen = best.is_some_and(|m| m.schema().name == "accuracy");
    if !(chosen || has("accuracy") && !looks) {
        return None;
    }
    let name = |class: usize| scored.classes.get(class).map_or("?", String::as_str);
    let message = format!(
        "`{}` has {} rows of `{}` and {} of `{}`, and accuracy is the metric",
        scored.title(),
        most.1,
        name(most.0),
        least.1,
        name(least.0)
    );
    let values = &stage.filled.values;
    let key = match chosen {
        true => "best",
        false if keys::METRICS.is_written(values) => "metrics",
        false => stage.kind.splits().get(place)?,
    };
    let share = 100.0 * most.1 as f64 / scored.findings.rows.max(1) as f64;
    let help = format!(
        "a model that always says `{}` has an accuracy of {share:.1} %; look at `f1_macro` or `matthews` as well, or write `positive = {}` for the `f1` of the rare class",
        name(most.0),
        crate::library::schema::Checked::Str(name(least.0).to_owned())
    );
    Some(warn(&IMBALANCED_CLASSES, values.span(key), message, &help))
}
