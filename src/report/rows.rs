//! From results to rows: each training stage joined with the evaluation that scores it, repetitions
//! under other seeds joined into one.

use std::path::Path;

use indexmap::IndexMap;

use super::Stat;
use super::names::names;
use super::read::{Classes, Logged, Point, RunResult, StageResult};
use crate::library::stage::stage as kind;

/// A row of the comparison.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// Its methods.
    pub methods: Vec<String>,
    /// The evaluations its metrics are of; none means the training's own on its `dev` split.
    pub scored_by: Vec<String>,
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
    /// Logs of the runs.
    pub logs: Vec<Vec<Logged>>,
    /// Classes of memory at the peak.
    pub classes: Classes,
    /// Memory over a step.
    pub profile: Vec<Point>,
    /// Whether no other row is better in both the main metric and memory.
    pub pareto: bool,
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
        if self.methods.is_empty() {
            "–".to_owned()
        } else {
            self.methods.join("+")
        }
    }
}

/// A training stage, or an evaluation of a model nothing trained, in one result.
pub(super) struct Single<'a> {
    /// Its recipe without folder and ending.
    pub(super) recipe: String,
    /// The directory of its result.
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

    fn metrics(&self) -> Vec<(String, Option<f64>)> {
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
                    format!("{}.{name}", score.name)
                };
                list.push((name, *value));
            }
        }
        list
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
fn trained_by<'a>(result: &'a RunResult, stage: &StageResult) -> Option<&'a StageResult> {
    let mut trainings = result.stages.iter().filter(|s| trains(s));
    if stage.methods.is_none() {
        // Older results do not say; a single training leaves no doubt.
        let only = trainings.next();
        return only.filter(|_| trainings.next().is_none());
    }
    let mut from = stage.from.as_ref();
    for _ in 0..=result.stages.len() {
        let parent = result.stages.iter().find(|s| Some(&s.name) == from)?;
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
    for result in results {
        for (i, single) in singles(result).into_iter().enumerate() {
            let key = single
                .key()
                .unwrap_or_else(|| format!("{} {i}", result.dir.display()));
            let group = groups.entry(key).or_default();
            // The same run, republished from the store, is not a repetition.
            let again = single.stage.fingerprint.is_some()
                && group
                    .iter()
                    .any(|s| s.stage.fingerprint == single.stage.fingerprint);
            if !again {
                group.push(single);
            }
        }
    }
    let groups: Vec<Vec<Single<'_>>> = groups.into_values().collect();
    let names = names(&groups);
    groups
        .iter()
        .zip(names)
        .map(|(group, name)| row(group, name))
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
    let scores: Vec<(&StageResult, Option<&str>)> = result
        .stages
        .iter()
        .filter(|s| evaluates(s))
        .map(|s| (s, trained_by(result, s).map(|t| t.name.as_str())))
        .collect();
    let list: Vec<(&StageResult, Vec<&StageResult>)> = result
        .stages
        .iter()
        .filter_map(|stage| {
            if trains(stage) {
                let own = scores.iter().filter(|(_, by)| *by == Some(&stage.name));
                return Some((stage, own.map(|(s, _)| *s).collect()));
            }
            let untrained = stage.methods.is_some()
                && scores
                    .iter()
                    .any(|(s, by)| s.name == stage.name && by.is_none());
            untrained.then(|| (stage, vec![stage]))
        })
        .collect();
    let among = list.len() > 1;
    list.into_iter()
        .map(|(stage, scores)| Single {
            recipe: stem.clone(),
            out: out.clone(),
            among,
            stage,
            scores,
        })
        .collect()
}

pub(super) fn row(group: &[Single<'_>], name: String) -> Row {
    let mut row = Row {
        name,
        runs: group.len(),
        ..Row::default()
    };
    for single in group {
        let stage = single.stage;
        for (name, value) in single.metrics() {
            row.metrics.entry(name).or_default().push(value);
        }
        let bytes = |n: Option<u64>| n.map(|n| n as f64);
        row.estimated.push(bytes(stage.estimated_peak_bytes));
        row.measured.push(bytes(stage.measured_peak_bytes));
        row.process.push(bytes(stage.measured_process_bytes));
        row.rate.push(stage.samples_per_s);
        row.seeds.extend(stage.seed);
        if !stage.log.is_empty() {
            row.logs.push(stage.log.clone());
        }
    }
    row.metrics.retain(|_, stat| stat.n() > 0);
    row.seeds.sort_unstable();
    row.seeds.dedup();
    if let Some(first) = group.first() {
        row.methods = first.stage.methods.clone().unwrap_or_default();
        row.scored_by = first.scores.iter().map(|s| s.name.clone()).collect();
        row.trained = first.stage.trainable_parameters;
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
pub(super) mod tests {
    use super::*;

    pub(in crate::report) fn result(
        out: &str,
        recipe: &str,
        method: &str,
        seed: u64,
        accuracy: f64,
        bytes: u64,
    ) -> RunResult {
        let stage = |name: &str, kind: &str, from: Option<&str>| StageResult {
            name: name.to_owned(),
            kind: kind.to_owned(),
            fingerprint: Some(format!("{name}{method}{seed}")),
            variant: Some(format!("{name}{method}")),
            methods: Some(vec![method.to_owned()]),
            from: from.map(str::to_owned),
            ..StageResult::default()
        };
        let mut learn = stage("learn", "train", None);
        learn.seed = Some(seed);
        learn.metrics.insert("accuracy".to_owned(), Some(0.1));
        learn.measured_peak_bytes = Some(bytes);
        learn.log = (1..=40)
            .map(|step| Logged {
                step,
                loss: 1.0 / step as f64,
                dev: if step == 40 {
                    [("accuracy".to_owned(), 0.5)].into()
                } else {
                    IndexMap::new()
                },
            })
            .collect();
        learn.memory_profile = vec![
            Point {
                op: "matmul a (forward)".to_owned(),
                bytes: bytes / 2,
            },
            Point {
                op: "matmul <b> (backward)".to_owned(),
                bytes,
            },
        ];
        let merge = stage("fold", "merge", Some("learn"));
        let mut score = stage("score", "eval", Some("fold"));
        score.metrics.insert("accuracy".to_owned(), Some(accuracy));
        RunResult {
            dir: out.into(),
            recipe: recipe.to_owned(),
            stages: vec![learn, merge, score],
        }
    }

    #[test]
    fn repetitions_are_joined_and_scored_through_merges() {
        let results = [
            result("o/lora-1", "x/lora-1.peft", "lora", 1, 0.8, 10),
            result("o/lora-2", "x/lora-2.peft", "lora", 2, 0.9, 12),
            result("o/copy", "x/lora-2.peft", "lora", 2, 0.9, 12),
            result("o/full", "x/full.peft", "full", 1, 0.7, 40),
        ];
        let rows = rows(&results);
        assert_eq!(rows.len(), 2);
        let (lora, full) = (&rows[0], &rows[1]);
        assert_eq!((lora.name.as_str(), lora.runs), ("lora", 2));
        assert_eq!(lora.seeds, [1, 2]);
        assert_eq!(lora.scored_by, ["score"]);
        assert_eq!(lora.metrics["accuracy"].values(), [0.8, 0.9]);
        assert_eq!(lora.measured.mean(), Some(11.0));
        assert_eq!((full.name.as_str(), full.runs), ("full", 1));
    }

    #[test]
    fn results_that_do_not_say_are_not_joined() {
        let mut old = [
            result("o/a", "r.peft", "lora", 1, 0.8, 10),
            result("o/b", "r.peft", "lora", 2, 0.9, 10),
        ];
        for stage in old.iter_mut().flat_map(|r| &mut r.stages) {
            (stage.methods, stage.variant, stage.from) = (None, None, None);
        }
        let rows = rows(&old);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].name, "r (a)");
        assert_eq!(
            rows[1].metric("accuracy"),
            Some(0.9),
            "a single training is what the evaluation scores"
        );
    }
}
