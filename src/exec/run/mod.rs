//! Carrying out a plan: each stage is taken from the store or run, and leaves its artifact there.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value as Json, json};

use self::budget::{fits_device, fits_disk, ran_out};
pub use self::reason::reason;
use self::result::Results;
use crate::base::date::utc;
use crate::base::world::World;
use crate::exec::backend::alloc;
use crate::exec::backend::{Device, Open};
use crate::exec::checkpoint;
use crate::exec::checkpoint::resume;
use crate::exec::interpreter::Runner;
use crate::exec::observe::{Event, Observer, wait};
use crate::exec::stage::Work;
use crate::exec::stage::choose::chosen;
use crate::exec::stage::taught::Lesson;
pub use crate::exec::stage::{Options, entry_name, is_finished, resumes_at};
use crate::exec::store::{About, Entry, Manifest, State, Store};
use crate::files::RunError;
use crate::files::paths::absolute;
use crate::library::stage::job::Routine;
use crate::plan::{Plan, Stage};
use crate::program::rates::{Rates, Spent};

mod adopt;
pub mod budget;
mod card;
mod destination;
mod follow;
mod publish;
mod reason;
pub mod replay;
pub mod result;

/// Runs what is asked for; gives the `result.json` document, with the results of other stages that still hold. Of several
/// ranks the first does so, and the others help it with its trainings.
///
/// # Errors
/// The first stage that failed; those before it are in the store.
pub fn run(
    plan: &Plan,
    options: &Options,
    world: &dyn World,
    observer: &mut dyn Observer,
) -> Result<Json, RunError> {
    let store = Store::open(options.store.clone());
    let stages: Vec<&Stage> = match &options.only {
        Some(name) => plan.needed(name),
        None => plan.stages.iter().collect(),
    };
    if !options.ranks.leads() {
        follow::follow((plan, &stages), &store, options, world, observer)?;
        return Ok(Json::Null);
    }
    destination::refuse_sources(plan, store.dir())?;
    let to_run = stages
        .iter()
        .copied()
        .filter(|stage| options.fresh || !is_finished(&store, stage));
    fits_disk(plan, to_run, &store, &options.out)?;
    let mut results = Results::new(plan, options, &stages);
    let ran = run_stages(&store, world, &mut results, observer);
    // What a stage left stays where a later one fails.
    let notes = results.write();
    ran?;
    for note in notes? {
        observer.event(Event::Note(&note));
    }
    Ok(results.document())
}

/// Runs the stages one after the other, or takes them from the store.
fn run_stages(
    store: &Store,
    world: &dyn World,
    results: &mut Results<'_>,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let (plan, options, stages) = results.of();
    let reusable = |stage: &Stage| stage.fingerprint.is_some() && !options.fresh;
    let mut first = true;
    let recipe = options.recipe.display().to_string();
    for stage in stages.iter().copied() {
        let decided = decide(plan, stage, store, options)?;
        let stage = decided.as_ref().unwrap_or(stage);
        let key = entry_name(stage);
        let out = options.out.join(&stage.name.value);
        let entered = enter(stage, store, reusable(stage), options, observer)?;
        follow::tell(options, stage, &entered)?;
        let mut result = match entered {
            Entered::Finished(manifest) => {
                tracing::info!(
                    stage = stage.name.value,
                    entry = key,
                    "taken from the store"
                );
                observer.event(Event::Cached {
                    name: &stage.name.value,
                });
                publish::all(&store.path(&key), &out)?;
                store.take(&key);
                let mut result = manifest.result;
                set(&mut result, "cached", json!(true));
                set(&mut result, "name", json!(stage.name.value));
                result
            }
            Entered::Open(entry) => {
                publish::withdraw(&out)?;
                let work = Work {
                    plan,
                    stage,
                    store,
                    options,
                    world,
                    dir: entry.dir().to_path_buf(),
                    first: std::mem::take(&mut first),
                };
                let result = work.run(observer)?;
                card::write(&work, &result)?;
                publish::link(entry.dir(), &out)?;
                work.finish(entry, &key, &result)?;
                publish::copy(&store.path(&key), &out)?;
                result
            }
        };
        destination::publish(stage, &store.path(&key))?;
        // Where the store is now, whoever filled it.
        let artifact = absolute(&store.path(&key));
        set(
            &mut result,
            "artifact",
            json!(artifact.display().to_string()),
        );
        // Said by the plan, not by the store: results of older versions get them too.
        for (key, value) in plan.facts(stage, &options.machine) {
            set(&mut result, key, value);
        }
        let _ = store.note_latest(&recipe, &stage.name.value, &key, &stage.parts);
        for note in results.add(result)? {
            observer.event(Event::Note(&note));
        }
    }
    Ok(())
}

/// What a stage finds in the store.
enum Entered {
    /// A finished entry that can be used.
    Finished(Box<Manifest>),
    /// One to work in.
    Open(Entry),
}

/// Looks for a stage's entry, waits for another process that works on it, and sets aside what is damaged.
fn enter(
    stage: &Stage,
    store: &Store,
    reusable: bool,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Entered, RunError> {
    let (key, name) = (entry_name(stage), &stage.name.value);
    if let State::Finished(manifest) = store.look(&key)
        && reusable
    {
        return Ok(Entered::Finished(manifest));
    }
    if tracing::enabled!(tracing::Level::INFO) {
        let why = reason(stage, store, options);
        tracing::info!(stage = name, entry = key, why, "runs");
    }
    let entry = wait(observer, &format!("running `{name}`"), &mut || {
        store.begin(&key)
    })?;
    // Only now can no other process change it.
    match entry.look() {
        State::Finished(manifest) if reusable => return Ok(Entered::Finished(manifest)),
        State::Damaged(damage) if reusable => {
            let place = entry.set_aside()?;
            observer.event(Event::Note(&format!(
                "{damage}; set aside in {}, and `{name}` runs again",
                place.display()
            )));
        }
        _ => {}
    }
    if !reusable {
        entry.reset()?;
    } else if !options.resume {
        checkpoint::clear(&store.checkpoint(&key))?;
    }
    if options.adopts && reusable {
        adopt::adopt((stage, &key), store, &entry, observer)?;
    }
    let recipe = &options.recipe;
    entry.is_of(&About {
        recipe: std::path::absolute(recipe).unwrap_or_else(|_| recipe.clone()),
        name: name.clone(),
        kind: stage.filled.name.clone(),
    })?;
    Ok(Entered::Open(entry))
}

/// A stage with what the stages that it waits for have left: the prompt that one chose, the rows that others label. Planned again,
/// it needs no more than was announced.
fn decide(
    plan: &Plan,
    stage: &Stage,
    store: &Store,
    options: &Options,
) -> Result<Option<Stage>, RunError> {
    let decided = prompted(plan, stage, store, options)?;
    let lesson = Lesson {
        plan,
        stage: decided.as_ref().unwrap_or(stage),
        store,
        options,
    };
    let Some(drawn) = lesson.drawn()? else {
        return Ok(decided);
    };
    if drawn.estimate.peak() > stage.estimate.peak() {
        return Err(RunError::bug(format!(
            "with the rows that were drawn, `{}` needs {} bytes, and {} were announced",
            stage.name.value,
            drawn.estimate.peak(),
            stage.estimate.peak()
        )));
    }
    Ok(Some(drawn))
}

/// A stage with the prompt that the stage it waits for has chosen, if it waits for one.
fn prompted(
    plan: &Plan,
    stage: &Stage,
    store: &Store,
    options: &Options,
) -> Result<Option<Stage>, RunError> {
    let Some(chooser) = stage.waits_for() else {
        return Ok(None);
    };
    let from = plan
        .stage(chooser)
        .ok_or_else(|| RunError::bug(format!("no stage `{chooser}`")))?;
    let choice = chosen(&store.path(&entry_name(from)))?;
    let decided = stage
        .decided(&choice, &options.machine)
        .map_err(RunError::bug)?;
    if decided.estimate.peak() > stage.estimate.peak() {
        return Err(RunError::bug(format!(
            "with the prompt that `{chooser}` chose, `{}` needs {} bytes, and {} were announced",
            stage.name.value,
            decided.estimate.peak(),
            stage.estimate.peak()
        )));
    }
    Ok(Some(decided))
}

/// What the timed runs spent on each op, the most time first.
fn profile(rates: &Rates) -> Json {
    let all = rates.by_op();
    let total: f64 = all.iter().map(|(_, s)| s.seconds).sum();
    let line = |(op, s): &(&str, Spent)| {
        json!({
            "op": op, "share": s.seconds / total.max(1e-12), "calls": s.calls, "seconds": s.seconds,
            "gflop_per_s": s.flops / s.seconds.max(1e-12) / 1e9, "gb_per_s": s.bytes / s.seconds.max(1e-12) / 1e9,
        })
    };
    Json::Array(all.iter().map(line).collect())
}

fn set(json: &mut Json, key: &str, value: Json) {
    if let Some(map) = json.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

impl Work<'_> {
    /// Finishes the entry: from now on the stage is in the store.
    fn finish(&self, entry: Entry, key: &str, result: &Json) -> Result<(), RunError> {
        let stage = self.stage;
        let mut manifest = Manifest::new(
            key,
            &stage.name.value,
            &stage.filled.name,
            std::env::consts::ARCH,
        );
        let recipe = &self.options.recipe;
        manifest.recipe = std::path::absolute(recipe).unwrap_or_else(|_| recipe.clone());
        // An adapter is read together with the plain weights that it was trained on.
        let weights = stage.start.weights.as_ref();
        let weights = weights.filter(|_| stage.trained_with.exports_adapter());
        let weights = weights.and_then(|name| self.plan.stage(name));
        manifest.needs = weights.map(entry_name).into_iter().collect();
        manifest.parts = stage.parts.clone();
        manifest.result = result.clone();
        entry.finish(&manifest).map(|_| ())
    }

    /// What is kept of a stage that a signal ended where there is no checkpoint.
    fn left(&self) -> String {
        let name = &self.stage.name.value;
        let checkpoint = self.dir.join("checkpoint");
        match (&self.stage.job.routine, resume::step(&checkpoint)) {
            (Routine::Fit(fit), Some(step)) => format!(
                "checkpoint at step {step} of {} of `{name}` kept; {}",
                fit.steps,
                self.again()
            ),
            (Routine::Fit(_), None) => format!(
                "no checkpoint: `{name}` had made no step; run the same command to begin it again"
            ),
            _ => format!(
                "no checkpoint: `{name}` ({}) keeps none; run the same command to begin it again",
                self.stage.filled.name
            ),
        }
    }

    /// Steps, examples or sites that it has to go through.
    fn total(&self) -> u64 {
        match &self.stage.job.routine {
            Routine::Fit(fit) => fit.steps,
            Routine::Score(_) => self.set(0).map_or(0, |s| s.len() as u64),
            Routine::Choose(_) => {
                let sets = (0..self.stage.splits.len()).filter_map(|i| self.set(i));
                sets.map(|s| s.len() as u64).sum()
            }
            Routine::Fold(fold) => (fold.sites.len() + fold.biases.len()) as u64,
        }
    }

    /// Does the stage's work. An error says what remains of it, and where a device ran out of memory what was planned.
    fn routine(&self, runner: &mut Runner, observer: &mut dyn Observer) -> Result<Json, RunError> {
        let result = match &self.stage.job.routine {
            Routine::Fit(fit) => self.fit(fit, runner, observer),
            Routine::Score(score) => self.evaluate(score, runner, observer),
            Routine::Choose(choose) => self.choose(choose, runner, observer),
            Routine::Fold(fold) => self.fold(fold, runner, observer),
        };
        result.map_err(|error| match error {
            RunError::Memory { what } => RunError::Budget {
                message: ran_out(self.stage, &what, runner.peak()),
            },
            RunError::Interrupted { signal, left } if left.is_empty() => RunError::Interrupted {
                signal,
                left: self.left(),
            },
            other => other,
        })
    }

    fn run(&self, observer: &mut dyn Observer) -> Result<Json, RunError> {
        let begun = Instant::now();
        let stage = self.stage;
        let _span = tracing::debug_span!("stage", name = stage.name.value).entered();
        let estimate = &stage.estimate;
        observer.event(Event::Stage {
            name: &stage.name.value,
            kind: &stage.filled.name,
            total: self.total(),
            estimated: estimate.peak(),
        });
        alloc::release_freed_blocks();
        if !self.first {
            alloc::reset_process_peak();
        }
        let threads = self.options.machine.threads;
        let expected = stage.seconds(&self.store.rates(threads), &self.options.machine);
        // What is merged is matrix arithmetic of the host's, wherever programs run.
        let device: Arc<dyn Open> = match &stage.job.routine {
            Routine::Fold(_) => Arc::new(Device::Cpu),
            _ => self.options.device.clone(),
        };
        let mut runner = Runner::on(self.options.machine, &device)?;
        runner.accepts(stage.job.first().chain(stage.job.programs()))?;
        if let Some(free) = runner.free_bytes()? {
            fits_device([stage], free)?;
        }
        let mut result = self.routine(&mut runner, observer)?;
        let (_, trainable) = stage.job.parameters();
        let metrics: Vec<(String, f64)> = result
            .get("metrics")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(k, v)| Some((k.clone(), v.as_f64()?)))
            .collect();
        observer.event(Event::Done {
            name: &stage.name.value,
            metrics: &metrics,
        });
        if !runner.rates.is_empty() {
            let _ = self.store.learn(threads, &runner.rates);
        }
        for (key, value) in [
            ("name", json!(stage.name.value)),
            ("kind", json!(stage.filled.name)),
            ("fingerprint", json!(stage.fingerprint)),
            ("cached", json!(false)),
            ("date", json!(utc(SystemTime::now()))),
            ("machine", json!(self.options.machine_name)),
            ("wall_s", json!(begun.elapsed().as_secs_f64())),
            ("estimated_s", json!(expected)),
            ("profile", profile(&runner.rates)),
            ("estimated_peak_bytes", json!(estimate.peak())),
            ("measured_peak_bytes", json!(runner.peak())),
            ("device", json!(device.to_string())),
            ("estimated_process_bytes", json!(estimate.process())),
            ("measured_process_bytes", json!(alloc::process_peak())),
            ("trainable_parameters", json!(trainable)),
        ] {
            set(&mut result, key, value);
        }
        Ok(result)
    }
}
