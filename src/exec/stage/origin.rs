//! Where a stage's tensors come from: the model's files, an earlier stage, an adapter in peft's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Work, entry_name};
use crate::base::world::{HubFile, Location, RepoKind};
use crate::exec::export;
use crate::exec::export::base::Base;
use crate::exec::interpreter::Runner;
use crate::exec::load::prune::Guide;
use crate::exec::load::{Initial, Origins, check_adapter, load_pruned};
use crate::files::RunError;
use crate::files::paths::absolute;
use crate::files::weights::Checkpoint;
use crate::files::weights::TensorFile;
use crate::files::weights::sharded::{self, Layout};
use crate::library::chat::Kept;
use crate::library::stage::job::Routine;
use crate::library::stage::keys;
use crate::plan::Stage;
use crate::program::{Resident, Verified};

impl Work<'_> {
    pub(in crate::exec) fn sources(&self) -> Result<Origins, RunError> {
        let start = &self.stage.start;
        let mut sources = self.bare_sources(start.weights.as_deref())?;
        if let Some(stage) = &start.tuned {
            sources.tuned = Some(Checkpoint::open(&self.stored(stage)?.join("model"))?);
        }
        if let Some(stage) = &start.adapter {
            let file = TensorFile::open(&self.stored(stage)?.join("adapter").join(export::NATIVE))?;
            let handed = &self.planned(stage)?.job.params;
            // A head stays behind where the objective is another one.
            let left = |name: &str| {
                let param = handed.iter().find(|p| p.name == name);
                param.is_some_and(|p| p.role.is_head() || p.role.is_lm())
            };
            check_adapter(&file, &self.stage.job.params, &left)?;
            sources.adapter = Some(file);
        } else {
            for dir in self.stage.start_adapters() {
                sources.take_peft(&dir, self.stage.model.as_ref())?;
            }
        }
        Ok(sources)
    }

    /// Where the folder of a stage's result is.
    fn stored(&self, name: &str) -> Result<PathBuf, RunError> {
        Ok(self.store.path(&entry_name(self.planned(name)?)))
    }

    /// The plain weights that a stage left, or the model's own, without an adapter.
    pub(in crate::exec) fn bare_sources(&self, weights: Option<&str>) -> Result<Origins, RunError> {
        let start = &self.stage.start;
        let mut weights = match (weights, start.model.random) {
            (Some(stage), _) => Some(Checkpoint::open(&self.stored(stage)?.join("model"))?),
            (None, Some(_)) => None,
            (None, None) => Some(Checkpoint::open(&self.model_dir()?)?),
        };
        if let Some(weights) = &mut weights {
            weights.check_read(self.stage.model.as_ref())?;
        }
        Ok(Origins {
            weights,
            tuned: None,
            adapter: None,
            given: BTreeMap::new(),
            edits: BTreeMap::new(),
            storage: start.storage(),
            fresh_head: start.fresh_head,
            weights_seed: start.model.random.unwrap_or(0),
            seed: keys::SEED.find(&self.stage.filled.values).unwrap_or(0),
            fresh: self.begins_fresh(),
        })
    }

    fn planned(&self, name: &str) -> Result<&Stage, RunError> {
        let stage = self.plan.stage(name);
        stage.ok_or_else(|| RunError::bug(format!("no stage `{name}`")))
    }

    /// Whether a head that no file holds is made: where it is trained, or asked for.
    fn begins_fresh(&self) -> bool {
        let trains = matches!(self.stage.job.routine, Routine::Fit(_));
        let random = self.stage.parent.is_none() && self.stage.start.model.random.is_some();
        trains || random || keys::HEAD.find(&self.stage.filled.values) == Some("random")
    }

    /// Columns of the text the stage, or the one it comes from, was trained on, and what its chat template was given.
    pub(in crate::exec) fn texts(&self) -> (Vec<String>, Option<Kept>) {
        self.plan.trained_on(self.stage)
    }

    /// What an adapter of this stage stands on.
    pub(in crate::exec) fn base(&self) -> Result<Base, RunError> {
        let start = &self.stage.start;
        if let (None, Some(seed)) = (&start.weights, start.model.random) {
            return Ok(Base {
                random: Some(seed),
                ..Base::default()
            });
        }
        let (dir, hub) = match &start.weights {
            Some(name) => {
                let entry = entry_name(self.planned(name)?);
                (self.store.path(&entry).join("model"), None)
            }
            None => match &start.model.place {
                Location::Local(dir) => (dir.clone(), None),
                Location::Hub { repo, revision } => {
                    (self.model_dir()?, Some((repo.clone(), revision.clone())))
                }
            },
        };
        let dir = absolute(&dir);
        let (name, revision) = hub.unwrap_or_else(|| (dir.display().to_string(), None));
        Ok(Base {
            hash: Some(Checkpoint::open(&dir)?.hash(&|file| self.world.fingerprint(file).ok())),
            dir: Some(dir),
            name: Some(name),
            revision,
            random: None,
        })
    }

    /// The directory with the base model's weights; a hub model's are fetched.
    fn model_dir(&self) -> Result<PathBuf, RunError> {
        let (repo, revision) = match &self.stage.start.model.place {
            Location::Local(dir) => return Ok(dir.clone()),
            Location::Hub { repo, revision } => (repo, revision),
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
        let layout = Layout::of(|name| files.iter().any(|f| f == name));
        let main = match layout {
            Layout::Sharded => {
                let index = fetch(sharded::INDEX)?;
                let bytes = self
                    .world
                    .read(&index.path)
                    .map_err(|e| RunError::file(&index.path, e.to_string()))?;
                let list = sharded::listed(&bytes).map_err(|e| RunError::file(&index.path, e))?;
                for shard in &list {
                    fetch(shard)?;
                }
                index
            }
            Layout::Pickle => {
                return Err(RunError::file(
                    repo.as_str(),
                    "its weights are there as pytorch_model.bin only, a pickle, which is never read; name a `revision` with \
                     model.safetensors",
                ));
            }
            Layout::Single | Layout::None => fetch(sharded::SINGLE)?,
        };
        Ok(main
            .path
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default())
    }

    /// Loads what all programs of the stage use.
    pub(in crate::exec) fn load(&self, runner: &mut Runner) -> Result<(), RunError> {
        let how = (Guide::nothing(), false);
        self.load_for(runner, &self.stage.job.programs(), how)
            .map(|_| ())
    }

    /// Loads what some programs use and is not in memory; gives the initial values that exports need, if they are to
    /// be kept.
    pub(in crate::exec) fn load_for(
        &self,
        runner: &mut Runner,
        programs: &[&Verified],
        how: (Guide, bool),
    ) -> Result<Initial, RunError> {
        let mut residents: BTreeMap<&str, &Resident> = BTreeMap::new();
        for resident in programs.iter().flat_map(|v| &v.program().residents) {
            // What joins a training later is frozen in programs before that, and those come last.
            residents.entry(&resident.name).or_insert(resident);
        }
        let list: Vec<&Resident> = residents.into_values().collect();
        let sources = self.sources()?;
        load_pruned(
            runner,
            &self.stage.job.params,
            &list,
            self.stage.model.as_ref(),
            &sources,
            how,
        )
    }
}
