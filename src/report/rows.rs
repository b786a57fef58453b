//! From results to rows: each training stage joined with the evaluation that scores it, repetitions
//! under other seeds joined into one.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use indexmap::{IndexMap, IndexSet};

use super::Stat;
use super::names::names;
use super::noise::Difference;
use super::read::{ByClass, Classes, Data, Logged, Point, RunResult, StageResult};
use crate::base::visible;
use crate::library::stage::stage as kind;

/// A row of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// Its methods.
    pub methods: Vec<String>,
    /// The kind of its stage.
    pub kind: String,
    /// The recipe it came from, without folder and ending.
    pub recipe: String,
    /// What its metrics are over; `None` where nothing was scored.
    pub scored_on: Option<Data>,
    /// The evaluations its metrics are of, those of all its runs; none means the training's own on its `dev` split.
    pub scored_by: Vec<String>,
    /// The same in short: each once, without what tells the runs apart.
    pub scorers: Vec<String>,
    /// Its metrics.
    pub metrics: IndexMap<String, Stat>,
    /// Tensors at the peak, as planned.
    pub estimated: Stat,
    /// Tensors at the peak, as executed.
    pub measured: Stat,
    /// The process at its peak.
    pub process: Stat,
    /// Samples a second.
    pub rate: Stat,
    /// Trained parameters.
    pub trained: Option<u64>,
    /// Seeds of the runs it stands for.
    pub seeds: Vec<u64>,
    /// How many runs it stands for.
    pub runs: usize,
    /// The runs one by one.
    pub details: Vec<Detail>,
    /// Logs of the runs, each with the step that was kept.
    pub logs: Vec<(Vec<Logged>, Option<u64>)>,
    /// Classes of memory at the peak.
    pub classes: Classes,
    /// Memory over a step.
    pub profile: Vec<Point>,
    /// The class that an F1 is of, by the name of the metric.
    pub f1_of: IndexMap<String, String>,
    /// How well each class is predicted, by the first evaluation of the first run.
    pub by_class: Option<ByClass>,
    /// Whether no other row is better in both the main metric and memory.
    pub pareto: bool,
    /// Whether its main metric can be told from the best one.
    pub difference: Difference,
}

/// A run that a row stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Where its result lies.
    pub result: String,
    /// Its stage.
    pub stage: String,
    /// Its seed.
    pub seed: Option<u64>,
    /// When it was finished.
    pub date: Option<String>,
    /// The machine that ran it, and where on it.
    pub machine: Option<String>,
}

impl Row {
    /// The mean of a metric.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name)?.mean()
    }

    /// Its methods as one word.
    #[must_use]
    pub fn method(&self) -> String {
        let learned = self.methods.iter().map(String::as_str);
        // MeZO is how it is trained: `mezo` alone means all weights.
        let list: Vec<&str> = if self.kind == "mezo" {
            let others = learned.filter(|m| *m != "full");
            std::iter::once("mezo").chain(others).collect()
        } else {
            learned.collect()
        };
        if list.is_empty() {
            "–".to_owned()
        } else {
            list.join("+")
        }
    }
}

/// A training stage, or an evaluation of a model nothing trained, in one result.
pub(super) struct Single<'a> {
    /// Its recipe without folder and ending.
    pub(super) recipe: String,
    /// The directory of its result, and its last part.
    pub(super) dir: String,
    pub(super) out: String,
    /// Whether its result has others.
    pub(super) among: bool,
    pub(super) stage: &'a StageResult,
    pub(super) scores: Vec<&'a StageResult>,
}

impl Single<'_> {
    /// What repetitions share; `None` where results do not say enough to be joined.
    fn key(&self) -> Option<String> {
        let mut key = self.stage.variant.clone()?;
        for score in &self.scores {
            key.push('|');
            key.push_str(score.variant.as_ref()?);
        }
        Some(key)
    }

    /// What its plain metrics are over.
    fn scored_on(&self) -> Option<Data> {
        let (stage, key) = match self.scores.first() {
            Some(score) => (*score, "data"),
            None => (self.stage, "dev"),
        };
        if stage.metrics.values().all(Option::is_none) {
            return None;
        }
        Some(stage.data.get(key).cloned().unwrap_or_default())
    }

    /// The class that each F1 among its metrics is of.
    fn f1_of(&self, other: &Others) -> IndexMap<String, String> {
        let own = [self.stage];
        let scores: &[&StageResult] = match self.scores.as_slice() {
            [] => &own,
            scores => scores,
        };
        let named = scores.iter().enumerate().filter_map(|(i, score)| {
            let name = match i {
                0 => "f1".to_owned(),
                _ => format!("{}.f1", other.name(score)),
            };
            Some((name, score.f1_class.clone()?))
        });
        named.collect()
    }

    /// Its metrics; `other` tells evaluations of one name over unlike data apart.
    fn metrics(&self, other: &Others) -> Vec<(String, Option<f64>)> {
        if self.scores.is_empty() {
            return self.stage.metrics.clone().into_iter().collect();
        }
        let mut list = Vec::new();
        for (i, score) in self.scores.iter().enumerate() {
            for (name, value) in &score.metrics {
                // The first evaluation gives the plain columns, further ones their own.
                let name = if i == 0 {
                    name.clone()
                } else {
                    format!("{}.{name}", other.name(score))
                };
                list.push((name, *value));
            }
        }
        list
    }
}

/// What further evaluations are called: by their stage, with a number where results of other runs give that name
/// to other data.
#[derive(Default)]
pub(super) struct Others {
    hashes: HashMap<String, IndexSet<Option<String>>>,
}

impl Others {
    fn hash(score: &StageResult) -> Option<String> {
        score.data.get("data")?.key().map(str::to_owned)
    }

    fn of(groups: &[Vec<Single<'_>>]) -> Self {
        let mut hashes: HashMap<String, IndexSet<Option<String>>> = HashMap::new();
        let scores = groups
            .iter()
            .flatten()
            .flat_map(|s| s.scores.iter().skip(1));
        for score in scores {
            let known = hashes.entry(score.name.clone()).or_default();
            known.insert(Self::hash(score));
        }
        Self { hashes }
    }

    fn name(&self, score: &StageResult) -> String {
        let known = self.hashes.get(&score.name);
        match known.and_then(|k| k.get_index_of(&Self::hash(score))) {
            None | Some(0) => score.name.clone(),
            Some(n) => format!("{}#{}", score.name, n + 1),
        }
    }
}

pub(super) fn trains(stage: &StageResult) -> bool {
    match kind(&stage.kind) {
        Some(kind) => kind.trains(),
        None => stage.steps.is_some_and(|n| n > 0),
    }
}

fn evaluates(stage: &StageResult) -> bool {
    let chooses = kind(&stage.kind).is_some_and(|k| k.chooses());
    !trains(stage) && !chooses && !stage.metrics.is_empty()
}

/// The training whose model a stage has before it, through merges.
fn trained_by<'a>(
    result: &'a RunResult,
    by_name: &HashMap<&str, &'a StageResult>,
    stage: &StageResult,
) -> Option<&'a StageResult> {
    let mut trainings = result.stages.iter().filter(|s| trains(s));
    if stage.methods.is_none() {
        // Older results do not say; a single training leaves no doubt.
        let only = trainings.next();
        return only.filter(|_| trainings.next().is_none());
    }
    let mut from = stage.from.as_ref();
    for _ in 0..=result.stages.len() {
        let parent = *by_name.get(from?.as_str())?;
        if trains(parent) {
            return Some(parent);
        }
        from = parent.from.as_ref();
    }
    None
}

/// The rows of some results, in their order.
#[must_use]
pub fn rows(results: &[RunResult]) -> Vec<Row> {
    let mut groups: IndexMap<String, Vec<Single<'_>>> = IndexMap::new();
    let mut known: HashSet<(String, &str)> = HashSet::new();
    for result in results {
        for (i, single) in singles(result).into_iter().enumerate() {
            let key = single
                .key()
                .unwrap_or_else(|| format!("{} {i}", result.dir.display()));
            // The same run, republished from the store, is not a repetition.
            let print = single.stage.fingerprint.as_deref();
            if print.is_none_or(|p| known.insert((key.clone(), p))) {
                groups.entry(key).or_default().push(single);
            }
        }
    }
    let groups: Vec<Vec<Single<'_>>> = groups.into_values().collect();
    let names = names(&groups);
    let others = Others::of(&groups);
    groups
        .iter()
        .zip(names)
        .map(|(group, name)| row(group, name, &others))
        .collect()
}

fn singles(result: &RunResult) -> Vec<Single<'_>> {
    let stem = Path::new(&result.recipe)
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    let out = std::path::absolute(&result.dir)
        .ok()
        .and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default();
    let mut by_name: HashMap<&str, &StageResult> = HashMap::new();
    for stage in &result.stages {
        by_name.entry(&stage.name).or_insert(stage);
    }
    let scores: Vec<(&StageResult, Option<&str>)> = result
        .stages
        .iter()
        .filter(|s| evaluates(s))
        .map(|s| (s, trained_by(result, &by_name, s).map(|t| t.name.as_str())))
        .collect();
    let mut by: HashMap<&str, Vec<&StageResult>> = HashMap::new();
    for (score, trained) in &scores {
        if let Some(trained) = trained {
            by.entry(trained).or_default().push(score);
        }
    }
    let untrained: HashSet<&str> = scores
        .iter()
        .filter(|(_, by)| by.is_none())
        .map(|(s, _)| s.name.as_str())
        .collect();
    let list: Vec<(&StageResult, Vec<&StageResult>)> = result
        .stages
        .iter()
        .filter_map(|stage| {
            if trains(stage) {
                return Some((stage, by.remove(stage.name.as_str()).unwrap_or_default()));
            }
            let plain = stage.methods.is_some() && untrained.contains(stage.name.as_str());
            plain.then(|| (stage, vec![stage]))
        })
        .collect();
    let among = list.len() > 1;
    list.into_iter()
        .map(|(stage, scores)| Single {
            recipe: stem.clone(),
            dir: result.dir.display().to_string(),
            out: out.clone(),
            among,
            stage,
            scores,
        })
        .collect()
}

/// The evaluations of all runs of a row, by their full names and in short: what tells the runs apart goes.
fn scorers(group: &[Single<'_>]) -> (Vec<String>, Vec<String>) {
    let all = group.iter().flat_map(|single| &single.scores);
    let names: IndexSet<String> = all.map(|score| score.name.clone()).collect();
    let most = group.iter().map(|s| s.scores.len()).max().unwrap_or(0);
    let short = (0..most).map(|i| {
        let own: Vec<&&StageResult> = group.iter().filter_map(|s| s.scores.get(i)).collect();
        let Some(first) = own.first() else {
            return String::new();
        };
        if own.iter().all(|s| s.name == first.name) {
            return first.name.clone();
        }
        let plain = || first.name.split('@').next().unwrap_or_default();
        let declared = first.stage.as_deref().unwrap_or_else(plain);
        let shared = first
            .at
            .iter()
            .filter(|(axis, value)| own.iter().all(|s| s.at.get(*axis) == Some(value)));
        let shared: Vec<String> = shared.map(|(a, v)| format!("{a}={v}")).collect();
        if shared.is_empty() {
            declared.to_owned()
        } else {
            format!("{declared}@{}", shared.join(","))
        }
    });
    let short: IndexSet<String> = short.collect();
    (names.into_iter().collect(), short.into_iter().collect())
}

pub(super) fn row(group: &[Single<'_>], name: String, others: &Others) -> Row {
    let mut row = Row {
        name: visible::line(&name).into_owned(),
        runs: group.len(),
        ..Row::default()
    };
    for single in group {
        let stage = single.stage;
        for (name, value) in single.metrics(others) {
            row.metrics.entry(name).or_default().push(value);
        }
        let bytes = |n: Option<u64>| n.map(|n| n as f64);
        row.estimated.push(bytes(stage.estimated_peak_bytes));
        row.measured.push(bytes(stage.measured_peak_bytes));
        row.process.push(bytes(stage.measured_process_bytes));
        row.rate.push(stage.samples_per_s);
        row.seeds.extend(stage.seed);
        if !stage.log.is_empty() {
            row.logs.push((stage.log.clone(), stage.kept_step));
        }
        let machine = [stage.machine.as_deref(), stage.device.as_deref()];
        let machine: Vec<&str> = machine.into_iter().flatten().collect();
        row.details.push(Detail {
            result: single.dir.clone(),
            stage: stage.name.clone(),
            seed: stage.seed,
            date: stage.date.clone(),
            machine: (!machine.is_empty()).then(|| machine.join(", ")),
        });
    }
    row.metrics.retain(|_, stat| stat.n() > 0);
    row.seeds.sort_unstable();
    row.seeds.dedup();
    if let Some(first) = group.first() {
        row.methods = first.stage.methods.clone().unwrap_or_default();
        row.kind = first.stage.kind.clone();
        row.recipe = first.recipe.clone();
        row.scored_on = first.scored_on();
        (row.scored_by, row.scorers) = scorers(group);
        row.trained = first.stage.trainable_parameters;
        row.f1_of = first.f1_of(others);
        let by_class = first.scores.first().map(|s| &s.by_class);
        row.by_class = by_class.filter(|c| !c.classes.is_empty()).cloned();
    }
    // The largest of the planned peaks stands for the row.
    let top = group
        .iter()
        .max_by_key(|s| s.stage.memory_profile.iter().map(|p| p.bytes).max());
    if let Some(top) = top {
        row.classes = top.stage.memory.clone();
        row.profile = top.stage.memory_profile.clone();
    }
    row
}

#[cfg(test)]
pub(super) mod tests;
