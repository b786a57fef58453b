//! Where a stage's tensors come from: the model's files, an earlier stage, an adapter in peft's format.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::leave;
use super::machine::Runner;
use super::prune::Guide;
use super::run::{Work, entry_name};
use super::state::{Initial, Sources, load_pruned};
use super::weights::Checkpoint;
use crate::base::world::{HubFile, RepoKind};
use crate::files::RunError;
use crate::files::peft;
use crate::files::shards::{self, Layout};
use crate::files::tensorfile::TensorFile;
use crate::plan::bind::Place;
use crate::program::op::Tensor;
use crate::program::{Resident, Verified};

impl Work<'_> {
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
            fresh_head: start.fresh_head,
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
        let layout = Layout::of(|name| files.iter().any(|f| f == name));
        let main = match layout {
            Layout::Sharded => {
                let index = fetch(shards::INDEX)?;
                let bytes = self
                    .world
                    .read(&index.path)
                    .map_err(|e| RunError::file(&index.path, e.to_string()))?;
                let list = shards::listed(&bytes).map_err(|e| RunError::file(&index.path, e))?;
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
            Layout::Single | Layout::None => fetch(shards::SINGLE)?,
        };
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
}
