//! `peftc replay`: a zeroth-order training done again from its log alone.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::destination;
use super::{Options, entry_name};
use crate::base::world::World;
use crate::exec::export;
use crate::exec::interpreter::Runner;
use crate::exec::observe::Silent;
use crate::exec::stage::Work;
use crate::exec::stage::zeroth;
use crate::exec::store::{State, Store};
use crate::files::RunError;
use crate::files::tensorfile::bytes_of;
use crate::files::weights::TensorFile;
use crate::library::stage::job::{Routine, Update};
use crate::plan::{Plan, Stage};

/// What a replay came to.
#[derive(Debug)]
pub struct Replayed {
    /// Steps done again.
    pub steps: u64,
    /// Tensors whose bits are those of the stored result, and all compared; `None` if there was nothing
    /// to compare with.
    pub equal: Option<(usize, usize)>,
}

/// Does a finished stage's training again from its initial weights and its trajectory, compares the
/// result with what is stored, and writes it to `to` if asked.
///
/// # Errors
/// The stage is of another kind, or its log is missing or damaged.
pub fn replay(
    plan: &Plan,
    options: &Options,
    (name, log, to): (&str, Option<&Path>, Option<&Path>),
    world: &dyn World,
) -> Result<Replayed, RunError> {
    let refuse = |why: String| RunError::file(&options.recipe, why);
    let stage = plan
        .stage(name)
        .ok_or_else(|| refuse(format!("there is no stage `{name}`")))?;
    let fit = match &stage.job.routine {
        Routine::Fit(fit) if matches!(fit.update, Update::Zeroth { .. }) => fit,
        _ => {
            return Err(refuse(format!(
                "`{name}` is no `mezo` stage: only those leave a trajectory"
            )));
        }
    };
    if let Some(chooser) = stage.waits_for() {
        return Err(refuse(format!(
            "`{chooser}` has not chosen the prompt of `{name}` yet; run the recipe first"
        )));
    }
    let store = Store::open(options.store.clone());
    if let Some(to) = to {
        destination::refuse(plan, store.dir(), to, name)?;
    }
    let key = entry_name(stage);
    let entry = store.path(&key);
    if let State::Damaged(damage) = store.look(&key) {
        return Err(RunError::file(
            damage.path,
            format!("damaged: {}; run the stage again", damage.what),
        ));
    }
    let log: PathBuf = log.map_or_else(|| entry.join("metrics.jsonl"), Path::to_path_buf);
    let trajectory = read(&log)?;
    let finished = store.finished(&key).is_some() && fit.best.is_none();
    let work = Work {
        plan,
        stage,
        store: &store,
        options,
        world,
        dir: entry.clone(),
        first: true,
    };
    let mut runner = Runner::on(options.machine, &options.device)?;
    let guide = work.guide(fit, &mut runner, &mut Silent)?;
    let initial = work.load_for(&mut runner, &stage.job.programs(), (guide, true))?;
    let steps = zeroth::replay(&mut runner, fit, trajectory)?;
    runner.fetch()?;
    let equal = match finished && steps == fit.steps {
        true => compared(stage, &entry, &runner)?,
        false => None,
    };
    if let Some(to) = to {
        let adapter = stage.trained_with.exports_adapter().then_some(&initial);
        work.export(to, &mut runner, adapter)?;
    }
    Ok(Replayed { steps, equal })
}

/// How many of the trained tensors have the bits of those that are stored, and how many were compared.
fn compared(
    stage: &Stage,
    entry: &Path,
    runner: &Runner,
) -> Result<Option<(usize, usize)>, RunError> {
    let stored = [
        entry.join("model").join("model.safetensors"),
        entry.join("adapter").join(export::NATIVE),
    ];
    let Some(path) = stored.iter().find(|path| path.exists()) else {
        return Ok(None);
    };
    let file = TensorFile::open(path)?;
    let (mut same, mut all) = (0, 0);
    for param in stage.job.params.iter().filter(|p| p.trainable) {
        let (Some(own), Some(_)) = (runner.residents.get(&param.name), file.get(&param.name))
        else {
            continue;
        };
        all += 1;
        same += usize::from(bytes_of(own) == bytes_of(&file.tensor(&param.name)?));
    }
    Ok(Some((same, all)))
}

/// The projected gradients of each step.
fn read(path: &Path) -> Result<Vec<Vec<f32>>, RunError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        RunError::file(
            path,
            format!("cannot be read: {e}; run the stage first, or name its metrics.jsonl"),
        )
    })?;
    let mut steps = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let damaged = || {
            RunError::file(
                path,
                format!(
                    "line {} holds no projected gradients of step {}",
                    i + 1,
                    i + 1
                ),
            )
        };
        let json: Json = serde_json::from_str(line).map_err(|_| damaged())?;
        let list = json
            .get("projected_grad")
            .and_then(Json::as_array)
            .ok_or_else(damaged)?;
        if json.get("step").and_then(Json::as_u64) != Some(i as u64 + 1) || list.is_empty() {
            return Err(damaged());
        }
        steps.push(
            list.iter()
                .map(|g| g.as_f64().map(|g| g as f32).ok_or_else(damaged))
                .collect::<Result<_, _>>()?,
        );
    }
    Ok(steps)
}
