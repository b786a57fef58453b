//! One plan for all points of a recipe: stages that come out the same at several points are one
//! stage, and the others are named by the axes that reach them.
//!
//! **Invariant:** a stage is planned once for each set of resolved values, not once a point.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;

use super::classroom::Classroom;
use super::error::SHARED_TARGET;
use super::fingerprint::{CHOSEN, PLACE, TAUGHT};
use super::{Plan, Stage};
use crate::base::{Diag, Diags};
use crate::library::schema::Checked;
use crate::library::stage::job::Routine;
use crate::library::stage::keys;
use crate::resolve::points::{Axis, Points};
use crate::resolve::sweep::without_effect;
use crate::resolve::{Declared, Recipe, Swept};

/// Longest name of a stage; longer ones are numbered.
const LONGEST: usize = 200;

/// A swept `let`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweptAxis {
    /// Its name.
    pub name: String,
    /// What its values are called.
    pub values: Vec<String>,
    /// The group it moves with: axes of a `zip` share one.
    pub group: usize,
    /// Points of that group.
    pub size: usize,
    /// Whether it changes nothing but stages' `seed`: its points are repetitions.
    pub repeats: bool,
}

/// For a point, the planned stage of each declared one.
pub(super) type Here<'a> = BTreeMap<&'a str, usize>;

/// What is planned already.
#[derive(Debug, Default)]
pub(super) struct Merger {
    known: BTreeMap<[u8; 32], (Option<usize>, Vec<Diag>)>,
    prints: BTreeMap<(String, String), usize>,
    /// What each stage refers to beside other stages.
    inputs: Vec<[u8; 32]>,
}

/// Resolved values of a stage and all it refers to.
pub(super) struct Resolved {
    whole: [u8; 32],
    inputs: [u8; 32],
}

impl Resolved {
    pub(super) fn new(
        recipe: &Recipe,
        declared: &Declared,
        here: &Here<'_>,
        classroom: &Classroom,
    ) -> Self {
        let (mut stages, mut inputs) = (blake3::Hasher::new(), blake3::Hasher::new());
        stages.update(declared.identity().as_bytes());
        let taught = (&classroom.teachers, classroom.own);
        stages.update(format!("{taught:?}").as_bytes());
        for (key, value) in declared.filled.values.iter() {
            let Checked::Ref(name, split) = value else {
                continue;
            };
            match recipe.items.get(name) {
                Some(d) if d.declaration.keyword == "stage" => {
                    if classroom.names(key) {
                        continue;
                    }
                    stages.update(format!("{key} {:?}", here.get(name.as_str())).as_bytes());
                }
                Some(d) => {
                    inputs.update(format!("{key} {split:?} {}", d.identity()).as_bytes());
                    // A prompt refers to data.
                    for (key, value) in d.filled.values.iter() {
                        if let Checked::Ref(name, _) = value
                            && let Some(d) = recipe.items.get(name)
                        {
                            inputs.update(format!("{key} {}", d.identity()).as_bytes());
                        }
                    }
                }
                None => {}
            }
        }
        let inputs = *inputs.finalize().as_bytes();
        stages.update(&inputs);
        Self {
            whole: *stages.finalize().as_bytes(),
            inputs,
        }
    }
}

impl Merger {
    /// The stage planned for these values, and what was found; `None` if none was planned yet.
    pub(super) fn known(&self, values: &Resolved) -> Option<&(Option<usize>, Vec<Diag>)> {
        self.known.get(&values.whole)
    }

    /// Takes up a planned stage: as one with an earlier point's of the same fingerprint, if there is.
    pub(super) fn put(
        &mut self,
        plan: &mut Plan,
        values: &Resolved,
        stage: Option<Stage>,
        diags: &Diags,
    ) -> Option<usize> {
        let place = stage.map(|stage| {
            let next = plan.stages.len();
            let print = stage.fingerprint.clone();
            let key = print.map(|print| (stage.declared.clone(), print));
            let place = key.map_or(next, |key| *self.prints.entry(key).or_insert(next));
            if place == next {
                plan.stages.push(stage);
                self.inputs.push(values.inputs);
            }
            place
        });
        let found = diags.iter().cloned().collect();
        self.known.insert(values.whole, (place, found));
        place
    }

    /// For each stage, a text of what its result depends on, seeds aside.
    fn seedless(&self, plan: &Plan) -> Vec<String> {
        let mut texts: IndexMap<&str, String> = IndexMap::new();
        for (stage, inputs) in plan.stages.iter().zip(&self.inputs) {
            let parts = stage.parts.iter();
            let mut text: Vec<String> = parts
                .filter(|(key, _)| {
                    !matches!(key.as_str(), "key seed" | "from" | CHOSEN | TAUGHT | PLACE)
                })
                .map(|(key, value)| format!("{key}\u{1f}{value}"))
                .collect();
            if stage.fingerprint.is_none() {
                text.push(format!("{inputs:?}"));
            }
            text.extend(stage.needs().filter_map(|n| texts.get(n)).cloned());
            let hash = blake3::hash(text.join("\u{1e}").as_bytes()).to_hex();
            texts.insert(&stage.name.value, hash.to_string());
        }
        texts.into_values().collect()
    }
}

/// Names the stages of a swept recipe and reports axes that reach none.
pub(super) fn finish(
    plan: &mut Plan,
    swept: &Swept,
    homes: &[Here<'_>],
    merger: &Merger,
    diags: &mut Diags,
) {
    let points = &swept.points;
    plan.points = points.count();
    if !points.swept() {
        return;
    }
    let seedless = merger.seedless(plan);
    // For each stage, the groups that reach it; for each group, whether it reaches any, and whether
    // only by seeds.
    let mut reach: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); plan.stages.len()];
    let mut reaches = vec![(false, true); points.groups.len()];
    let names: BTreeSet<&str> = homes.iter().flat_map(|h| h.keys().copied()).collect();
    for (group, effect) in reaches.iter_mut().enumerate() {
        for first in 0..points.count() {
            if points.line(first, group).next() != Some(first) {
                continue;
            }
            for &name in &names {
                let line: Vec<usize> = points
                    .line(first, group)
                    .filter_map(|p| homes.get(p)?.get(name).copied())
                    .collect();
                if line.windows(2).all(|w| w.first() == w.last()) {
                    continue;
                }
                effect.0 = true;
                let of = |stage: &usize| seedless.get(*stage);
                effect.1 &= line
                    .windows(2)
                    .all(|w| w.first().and_then(of) == w.last().and_then(of));
                for stage in line {
                    if let Some(groups) = reach.get_mut(stage) {
                        groups.insert(group);
                    }
                }
            }
        }
    }
    for axis in &points.axes {
        let (reaches, seeds) = reaches.get(axis.group).copied().unwrap_or_default();
        let size = points.groups.get(axis.group).map_or(1, Vec::len);
        if !reaches && size > 1 {
            diags.push(
                without_effect(axis, "all stages come out the same at its values").help(
                    "remove the axis, or let its values differ in something a result depends on",
                ),
            );
        }
        plan.axes.push(SweptAxis {
            name: axis.name.clone(),
            values: axis.labels.clone(),
            group: axis.group,
            size,
            repeats: reaches && seeds,
        });
    }
    rename(plan, swept, homes, &reach);
}

/// Gives each stage the axes that reach it, and its name of them.
fn rename(plan: &mut Plan, swept: &Swept, homes: &[Here<'_>], reach: &[BTreeSet<usize>]) {
    let mut first: Vec<Option<usize>> = vec![None; plan.stages.len()];
    for (point, home) in homes.iter().enumerate() {
        for &stage in home.values() {
            if let Some(slot) = first.get_mut(stage) {
                slot.get_or_insert(point);
            }
        }
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for ((stage, groups), first) in plan.stages.iter_mut().zip(reach).zip(first) {
        let point = first.unwrap_or(0);
        stage.at = values(
            &swept.points,
            swept.recipes.get(point),
            stage,
            groups,
            point,
        );
        let pairs: Vec<String> = stage.at.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut name = stage.declared.clone();
        if !pairs.is_empty() {
            name = format!("{name}@{}", pairs.join(","));
        }
        if name.len() > LONGEST || taken.contains(&name) {
            name = format!("{}@point={}", stage.declared, point + 1);
        }
        taken.insert(name.clone());
        names.insert(std::mem::replace(&mut stage.name.value, name.clone()), name);
    }
    let renamed = |old: &mut Option<String>| {
        if let Some(old) = old
            && let Some(new) = names.get(old)
        {
            old.clone_from(new);
        }
    };
    for stage in &mut plan.stages {
        renamed(&mut stage.parent);
        renamed(&mut stage.start.tuned);
        for teacher in &mut stage.start.teachers {
            let mut own = Some(std::mem::take(&mut teacher.stage));
            renamed(&mut own);
            teacher.stage = own.unwrap_or_default();
            renamed(&mut teacher.judge);
        }
        for handed in std::iter::once(&mut stage.start).chain(&mut stage.hands_on) {
            renamed(&mut handed.weights);
            renamed(&mut handed.adapter);
            if let Some(chooser) = &mut handed.chooser
                && let Some(new) = names.get(&chooser.stage)
            {
                chooser.stage.clone_from(new);
            }
        }
    }
}

/// The values of the axes that reach a stage.
fn values(
    points: &Points,
    recipe: Option<&Recipe>,
    stage: &Stage,
    groups: &BTreeSet<usize>,
    point: usize,
) -> Vec<(String, String)> {
    let uses = recipe.map(|r| r.uses(&stage.declared)).unwrap_or_default();
    let together = |axis: &Axis| points.axes.iter().filter(|a| a.group == axis.group).count();
    let pair = |axis: &Axis| (axis.name.clone(), points.label(point, axis).to_owned());
    let reaching = || points.axes.iter().filter(|a| groups.contains(&a.group));
    // Axes of a `zip` move together, so comparing points cannot tell which of them it was.
    let own: Vec<_> = reaching()
        .filter(|a| together(a) == 1 || uses.contains(a.name.as_str()))
        .map(pair)
        .collect();
    if own.is_empty() {
        reaching().map(pair).collect()
    } else {
        own
    }
}

/// Reports stages that would copy their models into one directory.
pub(super) fn check_targets(plan: &Plan, diags: &mut Diags) {
    let mut targets: BTreeMap<PathBuf, &Stage> = BTreeMap::new();
    for stage in &plan.stages {
        let Routine::Fold(fold) = &stage.job.routine else {
            continue;
        };
        let Some(to) = &fold.to else { continue };
        let read = plan.reads.iter().find(|dir| plain(dir) == plain(to));
        if let Some(dir) = read {
            let message = format!(
                "the merged model would be written over `{}`, which the recipe reads",
                dir.display()
            );
            let diag = Diag::error(&SHARED_TARGET, keys::TO.span(&stage.filled.values), message);
            diags.push(diag.help("name another directory"));
            return;
        }
        if let Some(other) = targets.insert(plain(to), stage) {
            diags.push(
                Diag::error(
                    &SHARED_TARGET,
                    keys::TO.span(&stage.filled.values),
                    format!(
                        "`{}` and `{}` would both write to `{}`",
                        other.name.value,
                        stage.name.value,
                        keys::TO.get(&stage.filled.values).unwrap_or_default()
                    ),
                )
                .label("one directory for several models")
                .help("remove `to`: each model is kept in the store, and `result.json` says where"),
            );
            return;
        }
    }
}

/// A path without `.` and `..`, as far as that is known without looking.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(plain.components().next_back(), Some(Component::Normal(_))) =>
            {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

impl Stage {
    /// Whether a name is this stage's, or that of the declaration it is a variant of.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.value == name || self.declared == name
    }
}

impl Plan {
    /// The stages of a name: one, or all variants of a declared one.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Stage> {
        self.stages.iter().filter(move |s| s.is(name))
    }

    /// The stages of a name and all they need, in the order of the plan.
    #[must_use]
    pub fn needed(&self, name: &str) -> Vec<&Stage> {
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        let mut list: Vec<&Stage> = Vec::new();
        for stage in self.stages.iter().rev() {
            if stage.is(name) || wanted.contains(stage.name.value.as_str()) {
                wanted.extend(stage.needs());
                list.push(stage);
            }
        }
        list.reverse();
        list
    }
}
