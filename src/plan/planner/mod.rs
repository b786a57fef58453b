//! A stage planned: what it starts from, its texts, its job.

mod options;
mod split_facts;
mod start;
mod taught;
mod texts;

use std::sync::Arc;

use crate::base::{Diag, Diags, Spanned};
use crate::library::data::tokens::Marking;
use crate::library::method::{Tuning, import};
use crate::library::model::{Model, Reserved};
use crate::library::schema::Values;
use crate::library::stage::job::{Job, Routine};
use crate::library::stage::{self, StageCx, StageKind, check_metrics, keys};
use crate::library::{model, task};
use crate::plan::adapters::{self, check_shapes};
use crate::plan::bind::Binder;
use crate::plan::classroom::{self, Classroom};
use crate::plan::error::LENGTH_TOO_LARGE;
use crate::plan::estimate::Around;
use crate::plan::methods::check_methods;
use crate::plan::sweep::Here;
use crate::plan::{
    Handed, Open, Plan, Sets, Stage, choice, drawn, estimate, features, fingerprint, holds, modules,
};
use crate::program::op::Machine;
use crate::resolve::Declared;

use split_facts::split_facts;
use start::hands_on;
use texts::{Texts, on_classes};

/// Fewest tokens of a text that anything can be learned of.
const LEAST_LENGTH: u64 = 4;

/// Plans one stage after the other, each on those before it.
pub(super) struct Planner<'a, 'b> {
    pub(super) binder: &'a mut Binder<'b>,
    pub(super) plan: &'a Plan,
    pub(super) here: &'a Here<'a>,
    pub(super) machine: &'a Machine,
    /// What the stage's methods put into its texts, or mark in them.
    pub(super) marking: Marking,
    /// The stage's method whose tasks the examples name, and how many it has.
    pub(super) tasks: Option<(&'static str, u64)>,
    /// The stages that teach the stage.
    pub(super) classroom: &'a Classroom,
}

impl Planner<'_, '_> {
    /// Plans a declared stage under the name that tells it from its variants. Each phase complains about all it
    /// sees; what comes of them is lowered only where none did.
    #[expect(
        clippy::too_many_lines,
        reason = "the phases of planning, one after the other"
    )]
    pub(super) fn stage(
        &mut self,
        declared: &Declared,
        alias: String,
        diags: &mut Diags,
    ) -> Option<Stage> {
        let filled = &declared.filled;
        let values = &filled.values;
        let kind = stage::stage(&filled.name)?;
        kind.check(values, filled.span, diags);
        let (mut start, parent, mut model) = self.begin(declared, kind, diags)?;
        let tuning = if kind.trains() {
            let from = (&start, parent.is_some());
            self.tuning(declared, from, model.as_ref(), diags)
        } else {
            self.applied(declared, &start, model.as_ref(), diags)
        };
        if let Some(tuning) = &tuning {
            self.marking = tuning.marking();
            self.tasks = tuning.tasks_of_examples();
            reserve(tuning, model.as_mut(), (values, &mut start), diags);
        }
        let model: Arc<dyn Model> = Arc::from(model);
        if let Some(tuning) = &tuning {
            check_methods(&model, &start.task, tuning, values, diags);
        }
        let texts = self.texts(declared, kind, &model, &mut start, diags);
        if let Some(texts) = &texts {
            self.same_texts(values, &start, &texts.sets, diags);
            self.labelled_alike(values, &start, diags)?;
        }
        let of = (start.task.answer(), start.classes.len());
        check_metrics(kind.schema(), values, of, diags);
        let (
            tuning,
            Texts {
                mut sets,
                candidates,
            },
        ) = (tuning?, texts?);
        options::count(self.binder.recipe, (kind, values), &sets, &mut start, diags)?;
        on_classes(kind, values, &sets, &mut start, diags);
        let name = Spanned::new(alias, declared.name.span);
        drawn::room(&start, &mut sets);
        let (parts, fingerprint) = fingerprint::fingerprint(
            self.plan,
            (kind, filled),
            (&start, parent.as_deref()),
            sets.first().map_or(&[], Vec::as_slice),
            adapters::identity(&tuning, declared, self.binder.world),
        );
        // The words of a provisional prompt have the sizes of those that will be chosen.
        choice::provide(&mut start, 0);
        let facts = split_facts(&start, (&sets, self.marking.virtual_tokens), values, diags)?;
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
            tuned: start.tuned.is_some(),
            ranks: 1,
        })?;
        let refused = |list: Vec<Diag>| list.into_iter().for_each(|d| diags.push(d));
        let mut job = kind.lower(&cx).map_err(refused).ok()?;
        if let Err(diag) = resolve_paths(&mut job, declared, model.as_ref()) {
            diags.push(*diag);
            return None;
        }
        let of = (declared, kind);
        if !self.check_tensors(of, (&start, &tuning), (model.as_ref(), &job), diags) {
            return None;
        }
        let keeps = features::Asked::of(values, start.task.as_ref());
        let not_kept = keep_features(&mut job, &sets, keeps);
        let around = Around {
            host: choice::host_bytes(&sets) + classroom::bytes(&start, &sets),
            making: choice::making(&sets),
            makes_adapter: start.adapter.is_none(),
            exports_model: !tuning.exports_adapter(),
        };
        let estimate =
            |lengths: &[Option<&_>]| estimate::estimate(&job, lengths, self.machine, around);
        let (largest, estimate) = choice::largest(&sets, &estimate);
        choice::provide(&mut start, largest);
        Some(Stage {
            hands_on: hands_on(kind, &name.value, &start, &tuning),
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
            ranks: 1,
            estimate,
            parts,
            fingerprint,
            candidates,
            drawn: None,
        })
    }

    /// Whether the job's tensors have names in what it exports, and what it starts from has them in the right shapes.
    fn check_tensors(
        &self,
        (declared, kind): (&Declared, &dyn StageKind),
        (start, tuning): (&Handed, &Tuning),
        (model, job): (&dyn Model, &Job),
        diags: &mut Diags,
    ) -> bool {
        let values = &declared.filled.values;
        let format = stage::export::FORMAT.span(values);
        if let Some(wrong) = super::exports::check(start, model, job, format) {
            diags.push(wrong);
            return false;
        }
        if !check_shapes(tuning, model, (start.task.as_ref(), job), diags) {
            return false;
        }
        let from = if keys::FROM.is_written(values) {
            "from"
        } else {
            "model"
        };
        let stored = adapters::present(tuning, declared, model);
        holds::check(
            self.plan,
            (kind, values),
            (start, &stored),
            (model, job.params.as_slice()),
            values.span(from),
            diags,
        )
    }

    /// What a stage starts from, with its own length and objective; the stage that leaves it, and the model's
    /// architecture.
    fn begin(
        &mut self,
        declared: &Declared,
        kind: &dyn StageKind,
        diags: &mut Diags,
    ) -> Option<(Handed, Option<String>, Box<dyn Model>)> {
        let values = &declared.filled.values;
        let (mut start, parent) = self.start(values, kind, diags)?;
        start.tuned = self.tuned(values, &start, diags)?;
        let mut model = model::parse(&start.model.config).ok()?;
        if !kind.trains() {
            let applied = keys::APPLIED.get(values).and_then(import::folder);
            let applied = applied.map(|dir| declared.base.join(dir));
            for dir in applied.into_iter().chain(adapters::mixed(declared)) {
                adapters::headed(&mut start, &dir, model.as_ref());
            }
        }
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
        let trained = parent.is_some().then(|| taught::head_of(&start)).flatten();
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
        self.modules(&mut start, parent.is_some(), diags)?;
        self.taught((kind, declared), trained, &mut start, diags)?;
        Some((start, parent, model))
    }

    /// Tells the task what stands behind the model, or says that it is not used; `None` after an error.
    fn modules(&mut self, start: &mut Handed, goes_on: bool, diags: &mut Diags) -> Option<()> {
        let model = start.model.clone();
        let Some((own, at)) = &model.modules else {
            return Some(());
        };
        match start.task.of_modules(own) {
            Some(Ok(task)) => start.task = task,
            Some(Err(why)) => {
                diags.push(modules::not_built(&model.name, &why, *at));
                return None;
            }
            None if !goes_on && self.binder.unused.insert(model.name.clone()) => {
                diags.push(modules::unused(&model.name, own, *at));
            }
            None => {}
        }
        Some(())
    }
}

/// Keeps what the frozen part makes of each text, where that pays; gives the reason where it does not.
fn keep_features(job: &mut Job, sets: &[Sets], asked: features::Asked) -> Option<String> {
    let asked = features::Asked {
        decided: sets.len() == 1,
        ..asked
    };
    let set = sets.first()?;
    features::keep(job, &choice::lengths(set), asked)
}

/// Takes the positions that methods need from the model, and from the texts where they would not fit any more.
fn reserve(
    tuning: &Tuning,
    model: &mut dyn Model,
    (values, start): (&Values, &mut Handed),
    diags: &mut Diags,
) {
    let positions = tuning.reserved();
    if positions != Reserved::default() {
        model.reserve_positions(positions);
        fit_length(values, model.facts().max_length, start, diags);
    }
}

/// Makes the paths of a job those seen from the recipe's folder, and checks the adapters that they lead to.
fn resolve_paths(job: &mut Job, declared: &Declared, model: &dyn Model) -> Result<(), Box<Diag>> {
    let Routine::Fold(fold) = &mut job.routine else {
        return Ok(());
    };
    fold.to = fold.to.take().map(|to| declared.base.join(to));
    let Some(mix) = &mut fold.mix else {
        return Ok(());
    };
    for folder in &mut mix.folders {
        *folder = declared.base.join(&*folder);
    }
    let at = stage::convert::ADAPTERS.span(&declared.filled.values);
    adapters::check_mix(mix, model, at)
}

/// Cuts texts where what methods put before them leaves no more positions.
fn fit_length(values: &Values, most: u64, start: &mut Handed, diags: &mut Diags) {
    let written = keys::MAX_LENGTH.is_written(values);
    let message = if most < LEAST_LENGTH {
        format!(
            "what the method puts before each text leaves {most} of the model's positions for it"
        )
    } else if written && start.max_length > most {
        let length = start.max_length;
        format!(
            "`max_length` is {length}, but beside what the method puts before each text the model reads at most {most} tokens"
        )
    } else {
        start.max_length = start.max_length.min(most);
        return;
    };
    let at = if written {
        keys::MAX_LENGTH.span(values)
    } else if keys::ADAPTERS.is_written(values) {
        keys::ADAPTERS.span(values)
    } else {
        keys::ADAPTER.span(values)
    };
    let help = format!("write at most `max_length = {most}`, or fewer virtual tokens");
    diags.push(Diag::error(&LENGTH_TOO_LARGE, at, message).help(help));
}
