//! What a stage says about itself in `result.json` beside what was measured: its methods, what it
//! comes from, what it shares with repetitions under other seeds, its memory over a step.

use serde_json::{Value as Json, json};

use super::estimate::{Estimate, describe_node, evaluation_sizes, every_size, training_sizes};
use super::fingerprint::{CHOSEN, PLACE, TAUGHT};
use super::split::Lengths;
use super::{Plan, Stage};
use crate::library::metric::Metric;
use crate::library::stage::job::{Fit, Job, Routine, Update};
use crate::library::stage::keys;
use crate::program::op::{FEW_ROWS, Machine};
use crate::program::{Bindings, Verified, memory};

/// Most points of a memory profile.
const POINTS: usize = 200;

impl Plan {
    /// The facts, by the names `result.json` gives them.
    #[must_use]
    pub fn facts(&self, stage: &Stage, machine: &Machine) -> Vec<(&'static str, Json)> {
        let lengths: Vec<_> = stage
            .splits
            .iter()
            .map(|s| s.as_ref().map(|s| &s.lengths))
            .collect();
        let e = &stage.estimate;
        let profile: Vec<Json> = profile(&stage.job, &lengths, machine, e)
            .into_iter()
            .map(|(op, bytes)| json!({ "op": op, "bytes": bytes }))
            .collect();
        let at: serde_json::Map<String, Json> = stage
            .at
            .iter()
            .map(|(axis, value)| (axis.clone(), json!(value)))
            .collect();
        let mut memory = json!({
            "frozen_weights": e.frozen_weights, "trainable_weights": e.trainable_weights, "gradients": e.gradients,
            "optimizer": e.optimizer, "activations": e.activations, "transient": e.transient, "workspace": e.workspace,
            "peak_op": e.peak_op,
        });
        super::render::with_cache(&mut memory, e);
        vec![
            ("stage", json!(stage.declared)),
            ("at", Json::Object(at)),
            ("methods", json!(stage.methods())),
            ("data", data(stage)),
            ("from", json!(stage.parent)),
            ("seed", json!(keys::SEED.find(&stage.filled.values))),
            ("f1_class", json!(f1_class(stage))),
            ("variant", json!(variant(self, stage))),
            ("memory", memory),
            ("memory_profile", Json::Array(profile)),
        ]
    }
}

/// A stage's data by the key that names them: what the recipe calls them, the hash of the files and of what is
/// taken of them, and how many rows that is.
fn data(stage: &Stage) -> Json {
    let keys = stage.kind.splits().iter().zip(&stage.splits).enumerate();
    let list = keys.filter_map(|(place, (key, split))| {
        let split = split.as_ref()?;
        let name = stage.filled.values.get(key).map(ToString::to_string);
        let rows = stage.rows(place);
        let known = json!({
            "name": name, "hash": split.identity, "rows_hash": split.rows_hash, "rows": rows,
        });
        Some(((*key).to_owned(), known))
    });
    Json::Object(list.collect())
}

/// The class that a stage's `f1` is of, if it computes one.
#[must_use]
pub fn f1_class(stage: &Stage) -> Option<&str> {
    let is_f1 = |m: &&dyn Metric| m.schema().name == "f1";
    let positive = match &stage.job.routine {
        Routine::Fit(fit) if fit.evaluate.is_some() => {
            let all = fit.metrics.iter().chain(&fit.best);
            all.copied().any(|m| is_f1(&m)).then_some(fit.positive)
        }
        Routine::Score(score) => {
            let mut all = score.metrics.iter().copied();
            all.any(|m| is_f1(&m)).then_some(score.positive)
        }
        Routine::Choose(choose) => is_f1(&choose.metric).then_some(choose.positive),
        Routine::Fit(_) | Routine::Fold(_) => None,
    };
    let class = stage.start.classes.get(positive? as usize);
    class.map(String::as_str)
}

/// Hash of all that a result depends on except the seeds of its stage and of those before it;
/// `None` where an input's identity could not be had.
#[must_use]
pub fn variant(plan: &Plan, stage: &Stage) -> Option<String> {
    stage.fingerprint.as_ref()?;
    let parent = match stage.parent.as_deref().and_then(|p| plan.stage(p)) {
        Some(parent) => Some(variant(plan, parent)?),
        None => None,
    };
    let chooser = match &stage.start.chooser {
        Some(chooser) => Some(variant(plan, plan.stage(&chooser.stage)?)?),
        None => None,
    };
    let mut taught: Vec<String> = Vec::new();
    for teacher in &stage.start.teachers {
        taught.push(variant(plan, plan.stage(&teacher.stage)?)?);
        if let Some(judge) = &teacher.judge {
            taught.push(variant(plan, plan.stage(judge)?)?);
        }
    }
    let taught = taught.join(" ");
    let text: Vec<String> = stage
        .parts
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "key seed" | PLACE))
        .map(|(name, value)| {
            let value = match (&parent, name.as_str()) {
                (Some(parent), "from") => parent,
                (_, CHOSEN) => chooser.as_ref().unwrap_or(value),
                (_, TAUGHT) => &taught,
                _ => value,
            };
            format!("{name}\u{1f}{value}")
        })
        .collect();
    Some(
        blake3::hash(text.join("\u{1e}").as_bytes())
            .to_hex()
            .to_string(),
    )
}

/// Bytes alive over one step of the largest batch, residents included: what runs, and how much is
/// alive while it does. What surrounds the step is there only if it holds the stage's peak.
#[must_use]
pub fn profile(
    job: &Job,
    splits: &[Option<&Lengths>],
    machine: &Machine,
    estimate: &Estimate,
) -> Vec<(String, u64)> {
    let walk = |verified: &Verified, sizes: &[Bindings], resident: u64| {
        walk(verified, sizes, resident, machine)
    };
    let mut points = match &job.routine {
        Routine::Fit(fit) => of_training(job, fit, splits, &walk),
        Routine::Score(score) => {
            let sizes = splits.first().copied().flatten();
            let sizes = sizes.map(|l| evaluation_sizes(l, score.batch, score.reads.as_ref()));
            let resident = resident([&score.evaluate]);
            walk(&score.evaluate, &sizes.unwrap_or_default(), resident)
        }
        Routine::Choose(choose) => {
            let sizes = every_size(splits, choose.batch);
            walk(&choose.evaluate, &sizes, resident([&choose.evaluate]))
        }
        Routine::Fold(fold) => {
            let sites = fold.sites.iter();
            let each = sites.map(|(_, program)| walk(program, &ONCE, resident([program])));
            each.max_by_key(|points| highest(points))
                .unwrap_or_default()
        }
    };
    if highest(&points) < estimate.peak() {
        points.insert(0, (estimate.peak_op.clone(), estimate.peak()));
    }
    thin(points)
}

/// The sizes of what runs once.
const ONCE: [Bindings; 1] = [Bindings::NONE];

/// Bytes of the residents of some programs.
fn resident<'a>(programs: impl IntoIterator<Item = &'a Verified>) -> u64 {
    let programs = programs.into_iter().map(Verified::program);
    memory::residents(programs).values().sum()
}

/// The nodes of a program over the largest of its batches, with the bytes alive beside those held.
fn walk(
    verified: &Verified,
    sizes: &[Bindings],
    resident: u64,
    machine: &Machine,
) -> Vec<(String, u64)> {
    let program = verified.program();
    let fronts = Bindings::pareto(sizes.iter().copied(), FEW_ROWS).into_iter();
    let totals = fronts
        .map(|front| memory::profile(program, verified.schedule(), &front, machine))
        .max_by_key(|totals| totals.iter().max().copied())
        .unwrap_or_default();
    let each = totals.into_iter().enumerate();
    each.map(|(i, bytes)| (describe_node(program, i), resident + bytes))
        .collect()
}

/// The programs of a training's last phase, and its evaluation where that takes more.
fn of_training(
    job: &Job,
    fit: &Fit,
    splits: &[Option<&Lengths>],
    walk: &dyn Fn(&Verified, &[Bindings], u64) -> Vec<(String, u64)>,
) -> Vec<(String, u64)> {
    let split = |i: usize| splits.get(i).copied().flatten();
    let gone = fit.features.as_ref().filter(|f| f.everything);
    let programs = job.programs().into_iter();
    let resident = resident(programs.filter(|v| gone.is_none_or(|f| **v != f.prefix)));
    let sizes = split(0).map(|l| training_sizes(fit, l)).unwrap_or_default();
    let parts: &[(&Verified, &[Bindings])] = match &fit.update {
        Update::Whole(step) => &[(step, &sizes)],
        Update::Zeroth { loss, perturb, .. } => &[(perturb, &ONCE), (loss, &sizes)],
        Update::Split { accumulate, apply } => &[(accumulate, &sizes), (apply, &ONCE)],
    };
    let parts = parts.iter();
    let mut points: Vec<(String, u64)> = parts
        .flat_map(|(program, sizes)| walk(program, sizes, resident))
        .collect();
    if let (Some(program), Some(dev)) = (&fit.evaluate, split(1)) {
        let sizes = evaluation_sizes(dev, fit.batch, fit.dev_reads.as_ref());
        let own = walk(program, &sizes, resident);
        if highest(&own) > highest(&points) {
            points.extend(
                own.into_iter()
                    .map(|(op, n)| (format!("evaluation: {op}"), n)),
            );
        }
    }
    points
}

fn highest(points: &[(String, u64)]) -> u64 {
    points.iter().map(|(_, n)| *n).max().unwrap_or(0)
}

/// At most [`POINTS`] points: of neighbours, the highest stays.
fn thin(points: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let count = points.len();
    if count <= POINTS {
        return points;
    }
    let mut kept: Vec<(String, u64)> = Vec::with_capacity(POINTS);
    let mut bucket = usize::MAX;
    for (i, point) in points.into_iter().enumerate() {
        let own = i * POINTS / count;
        match kept.last_mut() {
            Some(last) if own == bucket => {
                if point.1 > last.1 {
                    *last = point;
                }
            }
            _ => kept.push(point),
        }
        bucket = own;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_peak_and_the_order() {
        let points: Vec<(String, u64)> = (0..1733u64)
            .map(|i| (i.to_string(), if i == 1234 { 9999 } else { i % 7 }))
            .collect();
        let kept = thin(points);
        assert_eq!(kept.len(), POINTS);
        assert_eq!(highest(&kept), 9999);
        let order: Vec<u64> = kept.iter().filter_map(|(op, _)| op.parse().ok()).collect();
        assert!(order.is_sorted());
        assert_eq!(thin(vec![("a".to_owned(), 1)]).len(), 1);
    }
}
