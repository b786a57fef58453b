//! From recipe to plan: the stage graph bound to models and data, lowered to jobs, with
//! fingerprints and estimates. Nothing is executed.

mod adapters;
pub mod bind;
mod by_place;
pub mod chat;
pub mod choice;
mod classroom;
mod dag;
pub mod data;
mod demonstrations;
pub mod disk;
mod doubts;
mod drawn;
pub mod encode;
pub mod error;
pub mod estimate;
pub mod exports;
pub mod facts;
pub mod features;
mod fingerprint;
mod fit;
mod gguf;
pub mod holds;
mod kernels;
pub mod methods;
mod model_files;
mod models;
mod modules;
mod planner;
pub mod predicting;
mod prompt;
pub mod ranks;
pub mod render;
pub mod seen;
mod shared;
pub mod solve;
mod source;
pub mod split;
mod stages;
pub mod sweep;
pub mod time;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use drawn::DrawnRows;
pub use predicting::Served;
pub use stages::{Chooser, Handed, Open, Plan, Sets, Stage, Teacher};

use self::bind::Binder;
use self::classroom::Classroom;
use self::sweep::{Here, Merger, Resolved};
use crate::base::units::Count;
use crate::base::world::World;
use crate::base::{Diag, Diags, Outcome, suggest};
use crate::library::data::tokens::Marking;
use crate::library::decl;
use crate::library::method::import;
use crate::library::stage::keys;
use crate::program::op::Machine;
use crate::resolve::error::{DANGLING_NAME, TOO_MANY_POINTS};
use crate::resolve::points::Gather;
use crate::resolve::{Declared, Recipe, Swept};
use planner::Planner;

/// Plans a recipe, at all its points, for a machine; `survey` says whether to look at the rows of its data. Of one that is
/// rejected in part, what is sound is planned for the mistakes that are found on the way.
pub fn plan(swept: &Swept, world: &dyn World, machine: &Machine, survey: bool) -> Outcome<Plan> {
    plan_until(swept, world, machine, (survey, &|| false))
}

/// [`plan`] for somebody who may not wait for it: it ends before the next stage once `stopped` says so, and what it gives
/// then is not the plan.
pub fn plan_until(
    swept: &Swept,
    world: &dyn World,
    machine: &Machine,
    (survey, stopped): (bool, &dyn Fn() -> bool),
) -> Outcome<Plan> {
    let none = Recipe::default();
    let mut binder = Binder::new(&none, world, machine.device);
    binder.survey = survey;
    let mut planning = Planning {
        swept,
        machine,
        stopped,
        binder,
        plan: Plan::default(),
        merger: Merger::default(),
        ahead: BTreeMap::new(),
    };
    let mut homes: Vec<Here<'_>> = Vec::new();
    let mut gather = Gather::default();
    for (point, recipe) in swept.recipes.iter().enumerate() {
        let mut diags = Diags::default();
        planning.plan.reads.extend(reads(recipe));
        homes.push(planning.point(point, None, &mut diags));
        if planning.plan.stages.len() > MOST_STAGES
            && let Some(last) = recipe.stages().last()
        {
            let message = format!(
                "the recipe comes to more than {} stages at all its points",
                Count(MOST_STAGES as u64)
            );
            diags.push(
                Diag::error(&TOO_MANY_POINTS, last.name.span, message)
                    .help("remove values of its sweeps, or divide it into several recipes"),
            );
            gather.add(diags);
            break;
        }
        gather.add(diags);
        if gather.enough() {
            break;
        }
    }
    let Planning {
        mut binder,
        mut plan,
        merger,
        ..
    } = planning;
    let mut diags = gather.into_diags(&swept.points);
    if swept.whole && !diags.has_errors() {
        sweep::finish(&mut plan, swept, &homes, &merger, &mut diags);
        sweep::check_targets(&plan, &mut diags);
        seen::look(&mut plan, std::mem::take(&mut binder.noted), &mut diags);
    }
    Outcome::new(Some(plan), diags)
}

/// A plan on its way.
struct Planning<'s> {
    swept: &'s Swept,
    machine: &'s Machine,
    stopped: &'s dyn Fn() -> bool,
    binder: Binder<'s>,
    plan: Plan,
    merger: Merger,
    /// Stages that were planned before their point was reached, since they teach one of another point.
    ahead: BTreeMap<(usize, &'s str), Option<usize>>,
}

impl<'s> Planning<'s> {
    /// Plans the stages of a point: that of a name with all that it needs, or all. Gives the place of each.
    fn point(&mut self, point: usize, wanted: Option<&'s str>, diags: &mut Diags) -> Here<'s> {
        let mut here = Here::new();
        let swept = self.swept;
        let Some(recipe) = swept.recipes.get(point) else {
            return here;
        };
        self.binder.recipe = recipe;
        self.binder.models(diags);
        let needed = wanted.map(|name| dag::needed(recipe, name));
        for declared in dag::order(recipe, diags) {
            if (self.stopped)() {
                break;
            }
            let name = declared.name.value.as_str();
            if needed.as_ref().is_some_and(|list| !list.contains(name)) {
                continue;
            }
            if let Some(place) = self.stage((point, recipe), declared, &here, diags) {
                here.insert(name, place);
            }
        }
        here
    }

    /// Plans a stage of a point, or finds it among those that are planned.
    fn stage(
        &mut self,
        (point, recipe): (usize, &'s Recipe),
        declared: &'s Declared,
        here: &Here<'s>,
        diags: &mut Diags,
    ) -> Option<usize> {
        let classroom = self.classroom(point, declared, here, diags);
        // Others may have been planned meanwhile.
        self.binder.recipe = recipe;
        let values = Resolved::new(recipe, declared, here, &classroom);
        if let Some((place, own)) = self.merger.known(&values) {
            own.iter().for_each(|d| diags.push(d.clone()));
            return *place;
        }
        let name = &declared.name.value;
        let alias = if self.swept.points.swept() {
            format!("{name}@{}", self.plan.stages.len())
        } else {
            name.clone()
        };
        let mut own = Diags::default();
        let planned = Planner {
            binder: &mut self.binder,
            plan: &self.plan,
            here,
            machine: self.machine,
            marking: Marking::default(),
            tasks: None,
            classroom: &classroom,
        }
        .stage(declared, alias, &mut own);
        let planned = planned.filter(|_| !own.has_errors());
        let place = self.merger.put(&mut self.plan, &values, planned, &own);
        diags.extend(own);
        place
    }

    /// The stages that teach a stage, planned at all points of the sweeps that it takes them over.
    fn classroom(
        &mut self,
        point: usize,
        declared: &'s Declared,
        here: &Here<'s>,
        diags: &mut Diags,
    ) -> Classroom {
        let values = &declared.filled.values;
        let mut classroom = Classroom::default();
        let [teacher, judge] = Classroom::KEYS.map(|key| key.get(values).map(|(name, _)| name));
        let Some(teacher) = teacher else {
            return classroom;
        };
        let over = keys::OVER.get(values).unwrap_or_default();
        let points = &self.swept.points;
        if let Some(unknown) = over.iter().find(|name| !points.sweeps.contains(name)) {
            let message = format!("no sweep is called `{unknown}`");
            let mut diag = Diag::error(&DANGLING_NAME, keys::OVER.span(values), message);
            diag.help = suggest::did_you_mean(unknown, points.sweeps.iter().map(String::as_str))
                .or_else(|| {
                    Some("write the name of a sweep: `sweep patterns = grid { … }`".to_owned())
                });
            diags.push(diag.label("declared nowhere"));
            classroom.broken = true;
            return classroom;
        }
        for other in points.over(point, over) {
            let mut place = |name: &'s str| match other == point {
                true => here.get(name).copied(),
                false => self.planned_ahead(other, name),
            };
            classroom.points += 1;
            let own = (place(teacher), judge.map(&mut place));
            let (Some(teacher), None | Some(Some(_))) = own else {
                classroom.broken = true;
                continue;
            };
            let own = (teacher, own.1.flatten());
            let known = classroom.teachers.iter().position(|other| *other == own);
            let at = known.unwrap_or(classroom.teachers.len());
            if known.is_none() {
                classroom.teachers.push(own);
            }
            if other == point && keys::UNLABELLED.is_written(values) {
                classroom.own = Some(at);
            }
        }
        classroom
    }

    /// The place of a stage of another point. What is wrong with it is said once that point is reached.
    fn planned_ahead(&mut self, point: usize, name: &'s str) -> Option<usize> {
        if let Some(place) = self.ahead.get(&(point, name)) {
            return *place;
        }
        // A stage that teaches itself in a circle of points finds nothing here.
        self.ahead.insert((point, name), None);
        let here = self.point(point, Some(name), &mut Diags::default());
        let place = here.get(name).copied();
        self.ahead.insert((point, name), place);
        place
    }
}

/// The directories that a recipe's models, data and adapters are read from.
fn reads(recipe: &Recipe) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for declared in recipe.items.values() {
        let values = &declared.filled.values;
        let local = matches!(declared.filled.name.as_str(), "local" | "gguf")
            .then_some(declared.arg.as_ref());
        let own = local.flatten().map(|arg| arg.value.as_str());
        let methods = keys::ADAPTER.get(values).into_iter();
        let starts = methods
            .chain(keys::ADAPTERS.get(values).unwrap_or_default())
            .filter_map(|method| {
                let start = crate::library::method::keys::START.get(&method.values);
                start.or_else(|| import::folder(method))
            });
        let paths = own
            .into_iter()
            .chain(decl::TOKENIZER.get(values))
            .chain(starts);
        dirs.extend(paths.map(|path| declared.base.join(path)));
    }
    dirs
}

/// Most stages of a plan.
const MOST_STAGES: usize = 4_000;
