//! From recipe to plan: the stage graph bound to models and data, lowered to jobs, with
//! fingerprints and estimates. Nothing is executed.

pub mod bind;
pub mod choice;
mod dag;
pub mod data;
mod demonstrations;
pub mod disk;
mod doubts;
pub mod encode;
pub mod error;
pub mod estimate;
pub mod facts;
pub mod features;
mod fingerprint;
mod fit;
pub mod holds;
mod kernels;
pub mod methods;
mod models;
pub mod predicting;
mod prompt;
pub mod render;
pub mod seen;
pub mod solve;
mod source;
pub mod split;
mod stages;
pub mod sweep;
pub mod time;

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::units::Count;
use crate::base::world::World;
use crate::base::{Diag, Diags, Outcome, Span, Spanned};
use crate::library::candidates::Candidates;
use crate::library::data::set::generic;
use crate::library::decl;
use crate::library::error::IDLE_KEY;
use crate::library::method::{Tuning, method};
use crate::library::model::{self, Model};
use crate::library::prompt::Template;
use crate::library::schema::{Filled, Reference, Values};
use crate::library::stage::job::Routine;
use crate::library::stage::keys;
use crate::library::stage::{SplitFacts, StageCx, StageKind, check_metrics, stage};
use crate::library::task::{self, Classes, Reads, Task};
use crate::program::op::Machine;
use crate::resolve::error::TOO_MANY_POINTS;
use crate::resolve::points::Gather;
use crate::resolve::{Declared, Recipe, Swept};
pub use predicting::Served;
pub use stages::{Chooser, Handed, Open, Plan, Sets, Stage};

use bind::{Binder, BoundModel, BoundSplit, Want};
use error::{
    BAD_LABELS, BAD_TOKENIZER, LENGTH_TOO_LARGE, NOTHING_LEARNED, UNMERGED_ADAPTER, WRONG_PORT,
};
use estimate::Around;
use methods::{check_methods, check_shapes, start_from_peft};
use prompt::Wording;
use sweep::{Here, Merger, Resolved};

/// Plans a recipe, at all its points, for a machine; `survey` says whether to look at the rows of its data. Of one that is
/// rejected in part, what is sound is planned for the mistakes that are found on the way.
pub fn plan(swept: &Swept, world: &dyn World, machine: &Machine, survey: bool) -> Outcome<Plan> {
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
        let local = (declared.filled.name == "local").then_some(declared.arg.as_ref());
        let own = local.flatten().map(|arg| arg.value.as_str());
        let methods = keys::ADAPTER.get(values).into_iter();
        let starts = methods
            .chain(keys::ADAPTERS.get(values).unwrap_or_default())
            .filter_map(|method| crate::library::method::keys::START.get(&method.values));
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

struct Planner<'a, 'b> {
    binder: &'a mut Binder<'b>,
    plan: &'a Plan,
    here: &'a Here<'a>,
    machine: &'a Machine,
}

impl Planner<'_, '_> {
    /// Plans a declared stage under the name that tells it from its variants. Each phase complains about all it
    /// sees; what comes of them is lowered only where none did.
    fn stage(&mut self, declared: &Declared, alias: String, diags: &mut Diags) -> Option<Stage> {
        let filled = &declared.filled;
        let values = &filled.values;
        let kind = stage(&filled.name)?;
        kind.check(values, filled.span, diags);
        let (mut start, parent, model) = self.begin(values, kind, diags)?;
        let tuning = self.tuning(
            declared,
            kind,
            &start,
            parent.is_some(),
            model.as_ref(),
            diags,
        );
        if let Some(tuning) = &tuning {
            check_methods(&model, &start.task, tuning, values, diags);
        }
        let texts = self.texts(declared, kind, &model, &mut start, diags);
        let of = (start.task.answer(), start.classes.len());
        check_metrics(kind.schema(), values, of, diags);
        let (tuning, Texts { sets, candidates }) = (tuning?, texts?);
        on_classes(kind, values, &sets, &mut start, diags);
        let name = Spanned::new(alias, declared.name.span);
        let (parts, fingerprint) = fingerprint::fingerprint(
            self.plan,
            kind,
            filled,
            &start,
            parent.as_deref(),
            sets.first().map_or(&[], Vec::as_slice),
            methods::identity(&tuning, self.binder.world),
        );
        // The words of a provisional prompt have the sizes of those that will be chosen.
        choice::provide(&mut start, 0);
        let facts = split_facts(&start, &sets, keys::OBJECTIVE.span(values), diags)?;
        let cx = diags.sound(StageCx {
            values,
            span: declared.name.span,
            model: model.clone(),
            storage: start.storage(),
            numbers: start.model.numbers,
            tuning: tuning.clone(),
            task: start.task.clone(),
            classes: start.classes.clone(),
            words: candidates
                .as_ref()
                .map_or_else(|| start.words(), |c| Some(c.tokens())),
            splits: facts,
        })?;
        let mut job = match kind.lower(&cx) {
            Ok(job) => job,
            Err(list) => {
                list.into_iter().for_each(|d| diags.push(d));
                return None;
            }
        };
        if let Routine::Fold(fold) = &mut job.routine {
            fold.to = fold.to.take().map(|to| declared.base.join(to));
        }
        if !check_shapes(&tuning, model.as_ref(), (start.task.as_ref(), &job), diags) {
            return None;
        }
        let from = if keys::FROM.is_written(values) {
            "from"
        } else {
            "model"
        };
        let read = (model.as_ref(), job.params.as_slice());
        let own = (kind, values);
        if !holds::check(self.plan, own, &start, read, values.span(from), diags) {
            return None;
        }
        let asked = features::Asked {
            decided: sets.len() == 1,
            ..features::Asked::of(values, start.task.as_ref())
        };
        let not_kept = sets
            .first()
            .and_then(|set| features::keep(&mut job, &choice::lengths(set), asked));
        let around = Around {
            host: choice::host_bytes(&sets),
            making: choice::making(&sets),
            makes_adapter: start.adapter.is_none(),
            leaves_model: !tuning.leaves_adapter(),
        };
        let estimate =
            |lengths: &[Option<&_>]| estimate::estimate(&job, lengths, self.machine, around);
        let (largest, estimate) = choice::largest(&sets, &estimate);
        choice::provide(&mut start, largest);
        Some(Stage {
            leaves: leaves(kind, &name.value, &start, &tuning),
            name,
            declared: declared.name.value.clone(),
            at: Vec::new(),
            kind,
            filled: filled.clone(),
            parent,
            open: Open::of(&start, &sets),
            start,
            trained_with: tuning,
            model,
            splits: sets.into_iter().nth(largest).unwrap_or_default(),
            facts: cx.into_inner().splits,
            job,
            not_kept,
            fitted: false,
            estimate,
            parts,
            fingerprint,
            candidates,
        })
    }

    /// What a stage starts from, with its own length and objective; the stage that leaves it, and the model's
    /// architecture.
    fn begin(
        &mut self,
        values: &Values,
        kind: &dyn StageKind,
        diags: &mut Diags,
    ) -> Option<(Handed, Option<String>, Arc<dyn Model>)> {
        let (mut start, parent) = self.start(values, kind, diags)?;
        let mut model = model::parse(&start.model.config).ok()?;
        if let Some(rate) = keys::DROPOUT.get(values) {
            model.override_dropout(rate);
        }
        let most = model.facts().max_length;
        match keys::MAX_LENGTH.get(values) {
            Some(length) if length > most => {
                diags.push(
                    Diag::error(
                        &LENGTH_TOO_LARGE,
                        keys::MAX_LENGTH.span(values),
                        format!(
                            "`max_length` is {length}, but the model reads at most {most} tokens"
                        ),
                    )
                    .help(format!("write at most `max_length = {most}`")),
                );
                start.max_length = most;
            }
            Some(length) => start.max_length = length,
            None if parent.is_none() => {
                // What its tokenizer was made for, where that is less.
                let tokenizer = start.model.tokenizer.as_ref();
                let made_for = tokenizer.and_then(|t| t.made_for());
                start.max_length = most.min(made_for.unwrap_or(most));
            }
            None => {}
        }
        let written = keys::OBJECTIVE.get(values).and_then(task::written);
        let task = written.filter(|_| keys::OBJECTIVE.is_written(values) || parent.is_none());
        if let Some(task) = task {
            // The classes of a trained head are those of its model, whatever is learned on them.
            let same = task.name() == start.task.name();
            if !same && (parent.is_some() || !task.answer().names_classes()) {
                start.classes.clear();
            }
            start.task = task;
        }
        if let Some(task) = kind.task() {
            if task.name() != start.task.name() {
                start.classes.clear();
            }
            start.task = task;
        }
        Some((start, parent, Arc::from(model)))
    }

    /// The stage's texts within its prompt, and the prompt's words; `None` after a diagnostic.
    fn texts(
        &mut self,
        declared: &Declared,
        kind: &dyn StageKind,
        model: &Arc<dyn Model>,
        start: &mut Handed,
        diags: &mut Diags,
    ) -> Option<Texts> {
        let values = &declared.filled.values;
        let (plan, here) = (self.plan, self.here);
        let chooser = |name: &str| {
            let stage = plan.stages.get(*here.get(name)?)?;
            Some(Chooser {
                stage: stage.name.value.clone(),
                candidates: stage.candidates.clone()?,
            })
        };
        let bare = Handed {
            prompt: None,
            chooser: None,
            ..start.clone()
        };
        let place = declared.name.span;
        let recipe = self.binder.recipe;
        let wording = prompt::take(recipe, &chooser, (kind, values), place, start, diags);
        let listed = match wording {
            Some(_) if kind.chooses() => choice::templates(values, start, diags).map(Some),
            wording => wording.map(|_| None),
        };
        let (Some(wording), Some(listed)) = (wording, listed) else {
            // Without the prompt, what is wrong with the data can still be said.
            let plain = (Wording::Inherited, None);
            self.sets(kind, values, &mut bare.clone(), plain, diags);
            return None;
        };
        let shows = match wording {
            Wording::Declared(declared) => demonstrations::wanted(declared),
            _ => false,
        };
        let classes = start.classes.clone();
        let mut own = Diags::default();
        let first = self.sets(kind, values, start, (wording, listed.as_ref()), &mut own);
        // Where demonstrations follow, the splits are read again with them, and say the rest then.
        if !shows || first.is_none() {
            diags.extend(own);
        }
        let mut sets = first?;
        holds::segments(start, model.as_ref(), (kind, values), &sets, diags)?;
        if start.task.answer().names_classes() && start.classes.is_empty() {
            start.classes = vec!["0".into(), "1".into()];
        }
        if let Wording::Declared(declared) = wording {
            prompt::label_words(declared, start, diags)?;
            if shows {
                self.binder.show(declared, start, diags)?;
                let known = std::mem::replace(&mut start.classes, classes);
                sets = self.sets(kind, values, start, (wording, None), diags)?;
                start.classes = known;
            }
        }
        demonstrations::check_draws(values, start, diags)?;
        if let Some(chooser) = &start.chooser {
            let at = match wording {
                Wording::Chosen(at) => at,
                _ => place,
            };
            start.chooser = Some(choice::taken(chooser, start, at, diags)?);
        }
        let Some(templates) = listed else {
            let candidates = None;
            return Some(Texts { sets, candidates });
        };
        let candidates = choice::candidates(templates, values, start, diags)?;
        Some(Texts {
            sets: vec![sets.concat()],
            candidates: Some(Arc::new(candidates)),
        })
    }

    /// The splits a kind reads, within each template that may stand around the text: one, or those
    /// that are chosen from. Classes that are not fixed yet come from the first split. `None` after a
    /// diagnostic.
    fn sets(
        &mut self,
        kind: &dyn StageKind,
        values: &Values,
        start: &mut Handed,
        (wording, listed): (Wording<'_>, Option<&Vec<Template>>),
        diags: &mut Diags,
    ) -> Option<Vec<Sets>> {
        let chosen = start.chooser.as_ref().map(|c| &c.candidates.templates);
        let own = start.prompt.as_ref().map(|p| p.template.clone());
        let shown = start
            .prompt
            .as_ref()
            .filter(|_| listed.or(chosen).is_none())
            .and_then(|p| p.demonstrations.clone());
        let templates: Vec<Option<Template>> = match listed.or(chosen) {
            Some(list) => list.iter().cloned().map(Some).collect(),
            None => vec![own],
        };
        let at = |key: &str| match wording {
            _ if listed.is_some() => keys::TEMPLATES.span(values),
            Wording::Declared(declared) => declared.name.span,
            Wording::Chosen(at) => at,
            Wording::Inherited => values.span(key),
        };
        let classes = start.classes.clone();
        let task = start.task.clone();
        let has_classes = task.answer().names_classes();
        let own_head = kind.trains()
            && has_classes
            && !task.needs().is_lm()
            && start.model.random.is_none()
            && start.weights.is_none()
            && start.adapter.is_none();
        let trained = if own_head {
            let (_, names) = trained_head(&start.model);
            names.filter(|names| !generic(names)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut sets = Vec::new();
        let mut complete = true;
        for template in &templates {
            // Each in the same way, so that what is read is read once.
            start.classes.clone_from(&classes);
            let mut set = Sets::new();
            for key in kind.splits() {
                let known = Some(start.classes.as_slice()).filter(|names| !names.is_empty());
                let want = Want {
                    task: task.as_ref(),
                    classes: known,
                    // A trained head is attached by the names of its classes.
                    preferred: Some(trained.as_slice()).filter(|names| !names.is_empty()),
                    template: template.as_ref().map(|t| (t, at(key))),
                    demonstrations: shown.as_ref(),
                    draws: keys::DRAWS.find(values).unwrap_or(1),
                    max_length: start.max_length,
                    survey: self.binder.survey,
                };
                let bound = match values.find::<Reference>(key) {
                    Some((name, Some(split))) => {
                        let at = values.span(key);
                        let bound = self
                            .binder
                            .split(name, split, &start.model, want, at, diags);
                        complete &= bound.is_some();
                        bound
                    }
                    _ => None,
                };
                if let Some(split) = bound.as_ref().filter(|_| has_classes) {
                    match known {
                        None => {
                            let least = task.least_classes();
                            start.classes = self.classes(split, least, (values, key), diags)?;
                        }
                        // Classes without names take those of the data.
                        Some(known) if generic(known) && split.classes.len() == known.len() => {
                            start.classes.clone_from(&split.classes);
                        }
                        Some(_) => {}
                    }
                }
                set.push(bound);
            }
            sets.push(set);
        }
        if !trained.is_empty() {
            let names = &start.classes;
            // The rows of a trained head belong to its own classes, and to no others that are as many. Numbers
            // without names are places in it.
            let by_place = generic(names) && names.len() == trained.len();
            start.fresh_head = *names != trained && !by_place;
        }
        complete.then_some(sets)
    }

    /// What the stage starts from, and the stage that leaves it.
    fn start(
        &mut self,
        values: &Values,
        kind: &dyn StageKind,
        diags: &mut Diags,
    ) -> Option<(Handed, Option<String>)> {
        if let Some((name, _)) = keys::FROM.get(values) {
            let parent = self.plan.stages.get(*self.here.get(name)?)?;
            let Some(handed) = parent.leaves.clone() else {
                diags.push(
                    Diag::error(
                        &WRONG_PORT,
                        keys::FROM.span(values),
                        format!(
                            "`{name}` is a stage of the kind `{}` and leaves no model",
                            parent.filled.name
                        ),
                    )
                    .label("no model comes from here")
                    .related(parent.name.span, "declared here"),
                );
                return None;
            };
            return Some((handed, Some(parent.name.value.clone())));
        }
        let (name, _) = keys::MODEL.get(values)?;
        let model = self.binder.model(name)?;
        let (task, classes) = if kind.trains() {
            (task::usual(), Vec::new())
        } else {
            let (task, classes) = trained_head(&model);
            let task = match task {
                Ok(task) => task,
                Err(problem) if keys::OBJECTIVE.get(values).is_none() => {
                    diags.push(holds::unknown_problem(
                        &model,
                        &problem,
                        keys::MODEL.span(values),
                    ));
                    return None;
                }
                Err(_) => task::usual(),
            };
            (task, classes.unwrap_or_default())
        };
        let tuning = Tuning::default();
        Some((
            Handed {
                model,
                tuning,
                task,
                classes,
                fresh_head: false,
                prompt: None,
                chooser: None,
                max_length: 0,
                weights: None,
                adapter: None,
            },
            None,
        ))
    }

    /// The methods in force: the stage's own, or those of the stage it continues.
    fn tuning(
        &self,
        declared: &Declared,
        kind: &dyn StageKind,
        start: &Handed,
        continues: bool,
        model: &dyn Model,
        diags: &mut Diags,
    ) -> Option<Tuning> {
        let n_layers = model.facts().layers;
        let (base, values) = (declared.base.as_path(), &declared.filled.values);
        if !kind.trains() {
            return Some(Tuning {
                n_layers,
                ..start.tuning.clone()
            });
        }
        let own = |key: &str| values.written(key) || !continues || start.tuning.methods.is_empty();
        let written: Vec<Filled> = keys::ADAPTER
            .get(values)
            .filter(|_| own("adapter") && !keys::ADAPTERS.is_written(values))
            .into_iter()
            .cloned()
            .chain(
                keys::ADAPTERS
                    .get(values)
                    .unwrap_or_default()
                    .iter()
                    .cloned(),
            )
            .collect();
        let inherited = start.adapter.is_some();
        if written.is_empty() && continues && !start.tuning.methods.is_empty() {
            return Some(Tuning {
                n_layers,
                frozen: false,
                ..start.tuning.clone()
            });
        }
        if written.is_empty() {
            diags.push(
                Diag::error(&crate::resolve::error::MISSING_KEY, keys::DATA.span(values), "the stage names no method")
                    .help("write `adapter = lora { … }`, or `adapter = full` to train everything; `peftc list methods` names them all"),
            );
            return None;
        }
        if inherited {
            let key = if keys::ADAPTER.is_written(values) {
                "adapter"
            } else {
                "adapters"
            };
            diags.push(
                Diag::error(&UNMERGED_ADAPTER, values.span(key), "the stage it comes from leaves an adapter that is not folded in")
                    .label("other methods would stand on it")
                    .help("put a `merge` stage between, or remove this key to go on with the same adapter"),
            );
            return None;
        }
        let written = written
            .into_iter()
            .map(|f| start_from_peft(base, f, model, diags))
            .collect::<Option<Vec<_>>>()?;
        let methods = written
            .into_iter()
            .flatten()
            .filter_map(|f| Some((method(&f.name)?, f)))
            .collect();
        Some(Tuning {
            methods,
            n_layers,
            frozen: false,
        })
    }

    fn classes(
        &self,
        split: &BoundSplit,
        least: usize,
        (values, key): (&Values, &str),
        diags: &mut Diags,
    ) -> Option<Vec<String>> {
        if split.encoded.is_some() && split.classes.len() < least {
            // The cause stands where the data are declared, however many stages read them.
            let data = values.find::<Reference>(key).map(|(name, _)| name);
            let data = data.and_then(|name| self.binder.recipe.find("data", name));
            let at = data.map_or(values.span(key), |data| {
                let own = &data.filled.values;
                let label = if decl::LABELS.is_written(own) {
                    "labels"
                } else {
                    "label"
                };
                own.span(label)
            });
            diags.push(
                Diag::error(
                    &BAD_LABELS,
                    at,
                    format!(
                        "a classification needs at least {}; these data have {}",
                        if least > 1 {
                            "two classes"
                        } else {
                            "one class"
                        },
                        split.classes.len()
                    ),
                )
                .label("one class leaves nothing to learn")
                .related(values.span(key), "read here")
                .help("check `label`, or write `objective = regress` to learn a number"),
            );
            return None;
        }
        Some(split.classes.clone())
    }
}

/// A stage's splits within each template that may stand around the text, and what a `choose_prompt` stage chooses from.
struct Texts {
    sets: Vec<Sets>,
    candidates: Option<Arc<Candidates>>,
}

/// Gives the task the classes and labels that the texts turned out to have, where its training depends on them.
fn on_classes(
    kind: &dyn StageKind,
    values: &Values,
    sets: &[Sets],
    start: &mut Handed,
    diags: &mut Diags,
) {
    if !kind.trains() {
        let own = start.task.training_keys().into_iter();
        for (key, at) in own.filter(|_| keys::OBJECTIVE.is_written(values)) {
            let name = kind.schema().name;
            let message = format!("`{key}` has no effect: `{name}` trains nothing");
            diags.push(
                Diag::error(&IDLE_KEY, at, message)
                    .label("changes nothing")
                    .help(format!(
                        "remove `{key}`; the loss of an evaluation is the plain one"
                    )),
            );
        }
        return;
    }
    let train = sets
        .first()
        .and_then(|set| set.first())
        .and_then(Option::as_ref);
    let classes = Classes {
        names: &start.classes,
        train: train.and_then(|split| split.encoded.as_deref()),
    };
    match start.task.on_classes(classes) {
        Ok(Some(task)) => start.task = task,
        Ok(None) => {}
        Err(diag) => diags.push(*diag),
    }
}

/// Something is wrong, and a diagnostic says what.
struct Refused;

/// What lowering has to know of the splits.
fn split_facts(
    start: &Handed,
    sets: &[Sets],
    at: Span,
    diags: &mut Diags,
) -> Option<Vec<Option<SplitFacts>>> {
    let first = sets.first().into_iter().flatten();
    first
        .map(|split| match split {
            Some(split) => Ok(Some(SplitFacts {
                examples: split.lengths.count(),
                masking: masking(start, split, at, diags)?,
            })),
            None => Ok(None),
        })
        .collect::<Result<_, Refused>>()
        .ok()
}

/// How the texts of a split are masked, if they are.
fn masking(
    start: &Handed,
    split: &BoundSplit,
    at: Span,
    diags: &mut Diags,
) -> Result<Option<Reads>, Refused> {
    let template = start.prompt.as_ref().map(|p| &p.template);
    let pair = template.is_none() && split.text.len() > 1;
    let own = template.is_some_and(Template::has_mask);
    let masking = start
        .task
        .reads(start.model.tokenizer.as_deref(), pair, own);
    let reads = masking.map_err(|[message, help]| {
        diags.push(Diag::error(&BAD_TOKENIZER, at, message).help(help));
        Refused
    })?;
    if reads == Some(Reads::Next)
        && let Some(set) = &split.encoded
        && let Some(example) = (0..set.len() as u32).find(|&i| set.length(i) < Some(2))
    {
        let row = set.row(example).unwrap_or(example);
        let message = format!(
            "row {row} (counted from 0) has no token to learn: its text is {} tokens long, and the first has none before it",
            set.length(example).unwrap_or(0)
        );
        diags.push(
            Diag::error(&NOTHING_LEARNED, at, message)
                .label("in this split")
                .help("remove the row, or write a text there"),
        );
        return Err(Refused);
    }
    Ok(reads)
}

/// The task that a model's head was trained for, or the `problem_type` that no task has; and the names of its classes,
/// if it has classes.
fn trained_head(model: &BoundModel) -> (Result<Arc<dyn Task>, String>, Option<Vec<String>>) {
    let config = &model.config;
    let names = config.get("id2label").and_then(|m| m.as_object());
    let mut pairs: Vec<(u64, String)> = names
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.parse().ok()?, v.as_str()?.to_owned())))
        .collect();
    pairs.sort();
    let mut names: Vec<String> = pairs.into_iter().map(|(_, n)| n).collect();
    let count = config.get("num_labels").and_then(serde_json::Value::as_u64);
    if let Some(count) = count.filter(|&n| n <= 1 << 16 && n != names.len() as u64) {
        // As transformers does where the two disagree.
        names = (0..count).map(|i| format!("LABEL_{i}")).collect();
    }
    let task = task::of_config(config, names.len());
    let has_classes = task.as_ref().map_or(true, |t| t.answer().names_classes());
    (task, Some(names).filter(|_| has_classes))
}

fn leaves(kind: &dyn StageKind, name: &str, start: &Handed, tuning: &Tuning) -> Option<Handed> {
    let mut handed = start.clone();
    // Its own head is of its classes.
    handed.fresh_head = false;
    if kind.merges() {
        handed.tuning = Tuning {
            n_layers: tuning.n_layers,
            ..Tuning::default()
        };
        handed.weights = Some(name.to_owned());
        handed.adapter = None;
        return Some(handed);
    }
    if !kind.trains() {
        return None;
    }
    handed.tuning = tuning.begun();
    if tuning.leaves_adapter() {
        handed.adapter = Some(name.to_owned());
    } else {
        handed.weights = Some(name.to_owned());
        handed.adapter = None;
        handed.tuning = Tuning {
            n_layers: tuning.n_layers,
            ..Tuning::default()
        };
    }
    Some(handed)
}
