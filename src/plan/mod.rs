//! From recipe to plan: the stage graph bound to models and data, lowered to jobs, with
//! fingerprints and estimates. Nothing is executed.

mod adapters;
pub mod bind;
mod by_place;
pub mod chat;
pub mod choice;
mod dag;
pub mod data;
mod demonstrations;
pub mod disk;
mod doubts;
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

use std::path::PathBuf;

pub use predicting::Served;
pub use stages::{Chooser, Handed, Open, Plan, Sets, Stage};

use self::bind::Binder;
use self::sweep::{Here, Merger, Resolved};
use crate::base::units::Count;
use crate::base::world::World;
use crate::base::{Diag, Diags, Outcome};
use crate::library::data::tokens::Marking;
use crate::library::decl;
use crate::library::method::import;
use crate::library::stage::keys;
use crate::program::op::Machine;
use crate::resolve::error::TOO_MANY_POINTS;
use crate::resolve::points::Gather;
use crate::resolve::{Recipe, Swept};
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
    let mut plan = Plan::default();
    let mut merger = Merger::default();
    let mut homes: Vec<Here<'_>> = Vec::new();
    let mut gather = Gather::default();
    for recipe in &swept.recipes {
        let mut diags = Diags::default();
        binder.recipe = recipe;
        binder.models(&mut diags);
        let mut here = Here::new();
        plan.reads.extend(reads(recipe));
        for declared in dag::order(recipe, &mut diags) {
            if stopped() {
                break;
            }
            let values = Resolved::new(recipe, declared, &here);
            let place = if let Some((place, own)) = merger.known(&values) {
                own.iter().for_each(|d| diags.push(d.clone()));
                *place
            } else {
                let name = &declared.name.value;
                let alias = if swept.points.swept() {
                    format!("{name}@{}", plan.stages.len())
                } else {
                    name.clone()
                };
                let mut own = Diags::default();
                let planned = Planner {
                    binder: &mut binder,
                    plan: &plan,
                    here: &here,
                    machine,
                    marking: Marking::default(),
                    tasks: None,
                }
                .stage(declared, alias, &mut own);
                let planned = planned.filter(|_| !own.has_errors());
                let place = merger.put(&mut plan, &values, planned, &own);
                diags.extend(own);
                place
            };
            if let Some(place) = place {
                here.insert(&declared.name.value, place);
            }
        }
        homes.push(here);
        if plan.stages.len() > MOST_STAGES
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
    let mut diags = gather.into_diags(&swept.points);
    if swept.whole && !diags.has_errors() {
        sweep::finish(&mut plan, swept, &homes, &merger, &mut diags);
        sweep::check_targets(&plan, &mut diags);
        seen::look(&mut plan, std::mem::take(&mut binder.noted), &mut diags);
    }
    Outcome::new(Some(plan), diags)
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
