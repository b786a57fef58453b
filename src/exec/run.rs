//! Carrying out a plan: each stage is taken from the store or run, and leaves its artifact there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::alloc;
use super::choose::{PROMPT, chosen};
use super::features::Source;
use super::leave;
use super::machine::Runner;
use super::observe::{Event, Observer};
use super::prune::Guide;
use super::score::{Walk, metrics, score};
use super::state::{Initial, Sources, load, load_pruned};
use super::store::{Entry, Manifest, Store};
use super::weights::Checkpoint;
use crate::base::world::{HubFile, RepoKind, World};
use crate::files::RunError;
use crate::files::durable::{create_dirs, failed, write_bytes};
use crate::files::peft;
use crate::files::tensorfile::TensorFile;
use crate::library::data::batch::{EncodedSet, Target};
use crate::library::metric::Predictions;
use crate::library::model::HeadKind;
use crate::library::params::{Init, SvdPart};
use crate::library::stage::job::{Fold, Routine, Score};
use crate::library::tokenizer::Tokenizer;
use crate::plan::bind::Place;
use crate::plan::facts::facts;
use crate::plan::{Plan, Stage};
use crate::program::op::{Machine, Tensor};
use crate::program::{Bindings, Resident, Verified};

/// How a plan is run.
#[derive(Debug)]
pub struct Options {
    /// Where the recipe lies.
    pub recipe: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// Where results for people go.
    pub out: PathBuf,
    /// The stage asked for, with all its variants; every stage if `None`.
    pub only: Option<String>,
    /// Ignore the store for this recipe's stages.
    pub fresh: bool,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// The machine.
    pub machine: Machine,
}

/// Identifier of a stage's store entry; results without a fingerprint are kept, but never reused.
#[must_use]
pub fn entry_name(stage: &Stage) -> String {
    stage.fingerprint.clone().unwrap_or_else(|| {
        let text: Vec<String> = stage
            .parts
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        format!(
            "unkeyed-{}",
            blake3::hash(text.join("\n").as_bytes()).to_hex()
        )
    })
}

/// Runs what is asked for; gives the `result.json` document.
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
    let mut results = Vec::new();
    let recipe = options.recipe.display().to_string();
    for stage in stages {
        let decided = match stage.waits_for() {
            Some(chooser) => Some(decide(plan, stage, chooser, &store, options)?),
            None => None,
        };
        let stage = decided.as_ref().unwrap_or(stage);
        let key = entry_name(stage);
        let reusable = stage.fingerprint.is_some() && !options.fresh;
        let mut result = match store.finished(&key).filter(|_| reusable) {
            Some(manifest) => {
                observer.event(Event::Cached {
                    name: &stage.name.value,
                });
                republish(&store.path(&key), &options.out.join(&stage.name.value))?;
                let mut result = manifest.result;
                set(&mut result, "cached", json!(true));
                set(&mut result, "name", json!(stage.name.value));
                result
            }
            None => {
                let entry = store.begin(&key)?;
                if options.fresh || stage.fingerprint.is_none() {
                    entry.reset()?;
                }
                let mut result = Work {
                    plan,
                    stage,
                    store: &store,
                    options,
                    world,
                    dir: entry.dir().to_path_buf(),
                }
                .run(observer)?;
                set(
                    &mut result,
                    "artifact",
                    json!(entry.dir().display().to_string()),
                );
                finish(entry, stage, &key, &result)?;
                result
            }
        };
        // Said by the plan, not by the store: results of older versions get them too.
        for (key, value) in facts(plan, stage, &options.machine) {
            set(&mut result, key, value);
        }
        let _ = store.note_latest(&recipe, &stage.name.value, &key, &stage.parts);
        results.push(result);
        let document = json!({ "schema": 1, "recipe": recipe, "stages": results });
        create_dirs(&options.out)?;
        let mut text =
            serde_json::to_vec_pretty(&document).map_err(|e| RunError::bug(e.to_string()))?;
        text.push(b'\n');
        write_bytes(&options.out.join("result.json"), false, &text)?;
    }
    Ok(json!({ "schema": 1, "recipe": recipe, "stages": results }))
}

/// A stage with the prompt that the stage it waits for has chosen; planned again, it needs no more
/// than was announced.
fn decide(
    plan: &Plan,
    stage: &Stage,
    chooser: &str,
    store: &Store,
    options: &Options,
) -> Result<Stage, RunError> {
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
    Ok(decided)
}

fn set(json: &mut Json, key: &str, value: Json) {
    if let Some(map) = json.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

fn finish(entry: Entry, stage: &Stage, key: &str, result: &Json) -> Result<(), RunError> {
    let mut manifest = Manifest::new(
        key,
        &stage.name.value,
        &stage.filled.name,
        std::env::consts::ARCH,
    );
    manifest.parts = stage.parts.clone();
    manifest.result = result.clone();
    entry.finish(&manifest)
}

/// Puts a stored stage's logs and predictions where the user looks.
fn republish(stored: &Path, out: &Path) -> Result<(), RunError> {
    create_dirs(out)?;
    for name in ["metrics.jsonl", "predictions.tsv", PROMPT] {
        let (from, to) = (stored.join(name), out.join(name));
        if from.exists() {
            std::fs::copy(&from, &to).map_err(|e| failed(&to, "write", &e))?;
        }
    }
    Ok(())
}

/// One stage being run.
pub(super) struct Work<'a> {
    pub(super) plan: &'a Plan,
    pub(super) stage: &'a Stage,
    pub(super) store: &'a Store,
    pub(super) options: &'a Options,
    pub(super) world: &'a dyn World,
    pub(super) dir: PathBuf,
}

impl Work<'_> {
    fn run(&self, observer: &mut dyn Observer) -> Result<Json, RunError> {
        let begun = Instant::now();
        let stage = self.stage;
        let estimate = &stage.estimate;
        let total = match &stage.job.routine {
            Routine::Fit(fit) => fit.steps,
            Routine::Score(_) => self.set(0).map_or(0, |s| s.examples.len() as u64),
            Routine::Choose(_) => {
                let sets = (0..self.stage.splits.len()).filter_map(|i| self.set(i));
                sets.map(|s| s.examples.len() as u64).sum()
            }
            Routine::Fold(fold) => fold.sites.len() as u64,
        };
        observer.event(Event::Stage {
            name: &stage.name.value,
            kind: &stage.filled.name,
            total,
            estimated: estimate.peak(),
        });
        alloc::release_freed_blocks();
        alloc::reset_process_peak();
        let mut runner = Runner::new(self.options.machine);
        let mut result = match &stage.job.routine {
            Routine::Fit(fit) => self.fit(fit, &mut runner, observer)?,
            Routine::Score(score) => self.score(score, &mut runner, observer)?,
            Routine::Choose(choose) => self.choose(choose, &mut runner, observer)?,
            Routine::Fold(fold) => self.fold(fold, &mut runner, observer)?,
        };
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
        for (key, value) in [
            ("name", json!(stage.name.value)),
            ("kind", json!(stage.filled.name)),
            ("fingerprint", json!(stage.fingerprint)),
            ("cached", json!(false)),
            ("wall_s", json!(begun.elapsed().as_secs_f64())),
            ("estimated_peak_bytes", json!(estimate.peak())),
            ("measured_peak_bytes", json!(runner.meter.peak())),
            (
                "estimated_process_bytes",
                json!(estimate.peak() + estimate.host),
            ),
            ("measured_process_bytes", json!(alloc::process_peak())),
            ("trainable_parameters", json!(trainable)),
        ] {
            set(&mut result, key, value);
        }
        Ok(result)
    }

    pub(super) fn set(&self, index: usize) -> Option<&EncodedSet> {
        self.stage.splits.get(index)?.as_ref()?.encoded.as_deref()
    }

    pub(super) fn required(&self, index: usize) -> Result<&EncodedSet, RunError> {
        self.set(index).ok_or_else(|| {
            RunError::file(&self.options.recipe, format!("the data or the tokenizer of stage `{}` are not at hand; run without --offline", self.stage.name.value))
        })
    }

    pub(super) fn sources(&self) -> Result<Sources, RunError> {
        let start = &self.stage.start;
        let stored = |name: &str| -> Result<PathBuf, RunError> {
            let stage = self
                .plan
                .stage(name)
                .ok_or_else(|| RunError::bug(format!("no stage `{name}`")))?;
            Ok(self.store.path(&entry_name(stage)))
        };
        let weights = match (&start.weights, start.model.random) {
            (Some(stage), _) => Some(Checkpoint::open(&stored(stage)?.join("model"))?),
            (None, Some(_)) => None,
            (None, None) => Some(Checkpoint::open(&self.model_dir()?)?),
        };
        let adapter = match &start.adapter {
            Some(stage) => Some(TensorFile::open(
                &stored(stage)?.join("adapter").join(leave::NATIVE),
            )?),
            None => None,
        };
        let mut peft = BTreeMap::new();
        for dir in self.stage.start_adapters() {
            let read = peft::read(&dir)?;
            let names: Vec<String> = read.tensors.names().map(str::to_owned).collect();
            for name in names {
                if let Some((dims, data)) = read.tensors.f32(&name)? {
                    let own = self.stage.job.params.iter().find(|p| p.is_called(&name));
                    peft.insert(
                        own.map_or(name, |p| p.name.clone()),
                        Tensor::new(data, &dims),
                    );
                }
            }
        }
        Ok(Sources {
            weights,
            adapter,
            peft,
            weights_seed: start.model.random.unwrap_or(0),
            seed: self.stage.filled.values.opt_int("seed").unwrap_or(0),
        })
    }

    /// Columns of the text the stage, or the one it comes from, was trained on.
    pub(super) fn columns(&self) -> Vec<String> {
        let mut stage = Some(self.stage);
        while let Some(current) = stage {
            if let Some(split) = current.splits.first().and_then(|s| s.as_ref()) {
                return split.text.clone();
            }
            stage = current.parent.as_deref().and_then(|p| self.plan.stage(p));
        }
        Vec::new()
    }

    /// The directory with the plain weights the stage starts from.
    pub(super) fn weights_dir(&self) -> Result<PathBuf, RunError> {
        match &self.stage.start.weights {
            Some(name) => {
                let stage = self
                    .plan
                    .stage(name)
                    .ok_or_else(|| RunError::bug(format!("no stage `{name}`")))?;
                Ok(self.store.path(&entry_name(stage)).join("model"))
            }
            None => self.model_dir(),
        }
    }

    /// The directory with the base model's weights; a hub model's are fetched.
    fn model_dir(&self) -> Result<PathBuf, RunError> {
        let (repo, revision) = match &self.stage.start.model.place {
            Place::Local(dir) => return Ok(dir.clone()),
            Place::Hub { repo, revision } => (repo, revision),
        };
        let fetch = |file: &str| {
            let file = HubFile {
                repo: repo.clone(),
                kind: RepoKind::Model,
                revision: revision.clone(),
                file: file.to_owned(),
            };
            self.world
                .hub(&file)
                .map_err(|e| RunError::file(repo.as_str(), e.to_string()))
        };
        let files = self
            .world
            .hub_list(repo, RepoKind::Model, revision.as_deref())
            .unwrap_or_default();
        let shards: Vec<&String> = files
            .iter()
            .filter(|f| f.starts_with("model-") && f.ends_with(".safetensors"))
            .collect();
        let main = if shards.is_empty() {
            fetch("model.safetensors")?
        } else {
            fetch("model.safetensors.index.json")?
        };
        for shard in shards {
            fetch(shard)?;
        }
        Ok(main
            .path
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default())
    }

    /// Loads what all programs of the stage use.
    pub(super) fn load(&self, runner: &mut Runner, guide: Guide) -> Result<Initial, RunError> {
        self.load_for(runner, &self.stage.job.programs(), guide)
    }

    /// Loads what some programs use and is not in memory.
    pub(super) fn load_for(
        &self,
        runner: &mut Runner,
        programs: &[&Verified],
        guide: Guide,
    ) -> Result<Initial, RunError> {
        let mut residents: BTreeMap<&str, &Resident> = BTreeMap::new();
        for resident in programs.iter().flat_map(|v| &v.program().residents) {
            residents.insert(&resident.name, resident);
        }
        let list: Vec<&Resident> = residents.into_values().collect();
        let sources = self.sources()?;
        load_pruned(
            runner,
            &self.stage.job.params,
            &list,
            self.stage.model.as_ref(),
            &sources,
            guide,
        )
    }

    fn score(
        &self,
        job: &Score,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let set = self.required(0)?;
        self.load(runner, Guide::nothing())?;
        let begun = Instant::now();
        let walk = Walk {
            source: Source {
                set,
                first_position: self.stage.model.facts().first_position,
                kept: None,
            },
            masking: job.masking.as_ref(),
            batch: job.batch,
        };
        let predictions = score(runner, &job.evaluate, walk, observer)?;
        let rate = set.examples.len() as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        let text = match &self.stage.start.model.tokenizer {
            Some(tokenizer) if job.masking.is_some() => masked_tsv(&predictions, tokenizer),
            _ => predictions_tsv(&predictions, &self.stage.start.head),
        };
        for dir in [&self.dir, &self.options.out.join(&self.stage.name.value)] {
            create_dirs(dir)?;
            write_bytes(&dir.join("predictions.tsv"), false, text.as_bytes())?;
        }
        let values: serde_json::Map<String, Json> = metrics(&job.metrics, &predictions)
            .into_iter()
            .map(|(k, v)| (k, json!(v)))
            .collect();
        Ok(
            json!({ "metrics": values, "loss_first": null, "loss_last": predictions.loss, "steps": 0, "epochs": 0, "samples_per_s": rate }),
        )
    }

    /// Folds adapters in, one tensor at a time: the rest is copied through.
    fn fold(
        &self,
        job: &Fold,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Json, RunError> {
        let sources = self.sources()?;
        let model = self.stage.model.as_ref();
        let by_name: BTreeMap<String, &Verified> = job
            .sites
            .iter()
            .map(|(site, p)| (format!("{}.weight", site.path), p))
            .collect();
        let mut done = 0;
        let machine = self.options.machine;
        let dir = self.dir.join("model");
        leave::write_model_from(&dir, self.stage, job.dtype, &mut |param| {
            let mut own = Runner::new(machine);
            let tensor = match by_name.get(&param.name) {
                Some(program) => {
                    let residents: Vec<&Resident> = program.program().residents.iter().collect();
                    load(
                        &mut own,
                        &self.stage.job.params,
                        &residents,
                        model,
                        &sources,
                    )?;
                    let mut outputs = own.run(program, Vec::new(), &Bindings::default())?;
                    done += 1;
                    observer.event(Event::Scored { done });
                    outputs
                        .take("weight")
                        .ok_or_else(|| RunError::bug("a merge gave no weight"))?
                }
                None => {
                    let plain = Resident {
                        name: param.name.clone(),
                        ty: crate::program::TensorType::fixed(
                            crate::program::DType::F32,
                            &param.shape,
                        ),
                        class: crate::program::Class::Frozen,
                    };
                    let mut params = vec![param.clone()];
                    if matches!(
                        param.init,
                        Init::Svd {
                            part: SvdPart::Rest,
                            ..
                        }
                    ) {
                        params.clear();
                    }
                    load(&mut own, &params, &[&plain], model, &sources)?;
                    own.residents
                        .take(&param.name)
                        .ok_or_else(|| RunError::bug("a tensor was not loaded"))?
                }
            };
            runner.meter.scratch(own.meter.peak());
            Ok(tensor)
        })?;
        leave::write_description(&dir, self.stage, Path::new("."), &self.columns())?;
        if let Some(to) = &job.to {
            let target = self
                .options
                .recipe
                .parent()
                .unwrap_or(Path::new(""))
                .join(to);
            create_dirs(&target)?;
            for name in [
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
            ] {
                let (from, to) = (dir.join(name), target.join(name));
                if from.exists() {
                    std::fs::copy(&from, &to).map_err(|e| failed(&to, "write", &e))?;
                }
            }
        }
        Ok(
            json!({ "metrics": {}, "loss_first": null, "loss_last": null, "steps": 0, "epochs": 0, "samples_per_s": null }),
        )
    }
}

/// One row a masked place: index of the example, position in it, the token that stood there, the one
/// predicted; tokens as the vocabulary writes them.
#[must_use]
pub fn masked_tsv(p: &Predictions, tokenizer: &Tokenizer) -> String {
    use std::fmt::Write as _;
    let token = |id: u32| tokenizer.token(id).unwrap_or_else(|| "?".to_owned());
    let mut text = String::from("index\tposition\tlabel\tprediction\n");
    for (guess, (label, told)) in p.masked.iter().zip(p.pairs()) {
        let (index, position) = (guess.example, guess.position);
        let (label, told) = (token(label), token(told));
        let _ = writeln!(text, "{index}\t{position}\t{label}\t{told}");
    }
    text
}

/// One row an example: index, label, prediction, scores.
#[must_use]
pub fn predictions_tsv(p: &Predictions, head: &HeadKind) -> String {
    use std::fmt::Write as _;
    let names: Vec<&str> = match head {
        HeadKind::Classes(names) => names.iter().map(String::as_str).collect(),
        HeadKind::Regression => vec!["value"],
        HeadKind::Vocabulary => Vec::new(),
    };
    let class = |c: u32| names.get(c as usize).copied().unwrap_or("?");
    let mut text = String::from("index\tlabel\tprediction");
    for name in &names {
        let _ = write!(text, "\tscore_{name}");
    }
    text.push('\n');
    for (i, ((row, target), best)) in p
        .scores
        .chunks(p.width.max(1))
        .zip(&p.targets)
        .zip(p.classes())
        .enumerate()
    {
        let label = match target {
            Target::None => String::new(),
            Target::Class(c) => class(*c).to_owned(),
            Target::Score(x) => x.to_string(),
        };
        let prediction = match head {
            HeadKind::Classes(_) => class(best).to_owned(),
            HeadKind::Regression | HeadKind::Vocabulary => {
                row.first().map(ToString::to_string).unwrap_or_default()
            }
        };
        let _ = write!(text, "{i}\t{label}\t{prediction}");
        for x in row {
            let _ = write!(text, "\t{x}");
        }
        text.push('\n');
    }
    text
}
