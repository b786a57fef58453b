//! A model's files by name, wherever they are: in a folder, in the hub's cache, or in one GGUF file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::world::{HubFile, HubPath, Location, RepoKind, World};
use crate::files::gguf::Gguf;
use crate::files::weights::sharded::{self, Layout};
use crate::library::tokenizer::Tokenizer;

/// A model's files by name.
pub(super) struct Files<'a> {
    pub(super) world: &'a dyn World,
    pub(super) place: &'a Location,
    /// Names of a repository's files, where they could be had.
    pub(super) names: Option<Arc<[String]>>,
    /// The file that stands for the folder, if one does.
    pub(super) gguf: Option<Arc<Gguf>>,
}

impl Files<'_> {
    pub(super) fn listed(&self, name: &str) -> bool {
        self.names.iter().flat_map(|n| n.iter()).any(|n| n == name)
    }

    /// How the files that are known of hold the weights.
    pub(super) fn layout(&self) -> Layout {
        match self.place {
            Location::Local(dir) => Layout::of(|name| self.world.exists(&dir.join(name))),
            Location::Hub { .. } => Layout::of(|name| self.listed(name)),
        }
    }

    /// Whether a repository's files tell why a tokenizer cannot be read: one that is there, or only the
    /// kind that is not read.
    pub(super) fn explain_themselves(&self) -> bool {
        const TELLING: [&str; 5] = [
            "tokenizer.json",
            "vocab.txt",
            "vocab.json",
            "sentencepiece.bpe.model",
            "tokenizer_config.json",
        ];
        let at_hand = |name: &&str| self.listed(name) && self.optional(name).is_some();
        TELLING.iter().any(at_hand)
    }

    /// The folder of the cache where a repository's files lie.
    pub(super) fn cached(&self) -> Option<PathBuf> {
        let path = self.hub("config.json").ok()?.path;
        path.parent().map(Path::to_path_buf)
    }

    /// A file that need not be there; the hub is not asked for one that it does not list.
    pub(super) fn optional(&self, name: &str) -> Option<Vec<u8>> {
        if self.names.is_some() && !self.listed(name) {
            return None;
        }
        self.read(name).ok()
    }

    pub(super) fn hub(&self, name: &str) -> Result<HubPath, String> {
        let Location::Hub { repo, revision } = self.place else {
            return Err("it is a folder".to_owned());
        };
        let file = HubFile {
            repo: repo.clone(),
            kind: RepoKind::Model,
            revision: revision.clone(),
            file: name.to_owned(),
        };
        self.world.hub(&file).map_err(|e| e.to_string())
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        if let Some(gguf) = &self.gguf {
            let missing = || format!("there is no {name} in it");
            return gguf.side(name)?.ok_or_else(missing);
        }
        let path = match self.place {
            Location::Local(dir) => dir.join(name),
            Location::Hub { .. } => self.hub(name)?.path,
        };
        self.world.read(&path).map_err(|e| e.to_string())
    }

    /// Config, weights and tokenizer: local files by content, hub files by commit.
    pub(super) fn identity(
        &self,
        config: &[u8],
        random: Option<u64>,
        tokenizer: Option<&Tokenizer>,
    ) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(config);
        hasher.update(format!("{random:?}").as_bytes());
        if let Some(tokenizer) = tokenizer {
            hasher.update(tokenizer.identity().as_bytes());
        }
        match (self.place, random) {
            (Location::Local(file), None) if self.gguf.is_some() => {
                hasher.update(self.world.fingerprint(file).ok()?.as_bytes());
            }
            (Location::Local(dir), None) => {
                for file in self.weight_files(dir) {
                    hasher.update(self.world.fingerprint(&dir.join(file)).ok()?.as_bytes());
                }
            }
            (Location::Hub { repo, .. }, None) => {
                let commit = self.hub("config.json").ok()?.commit?;
                hasher.update(format!("{repo}@{commit}").as_bytes());
            }
            (_, Some(_)) => {}
        }
        Some(hasher.finalize().to_hex().to_string())
    }

    /// The files that the weights are read from; others of such names count for nothing.
    pub(super) fn weight_files(&self, dir: &Path) -> Vec<String> {
        match self.layout() {
            Layout::Single => vec![sharded::SINGLE.to_owned()],
            Layout::Sharded => {
                let index = self
                    .world
                    .read(&dir.join(sharded::INDEX))
                    .unwrap_or_default();
                let mut files = sharded::listed(&index).unwrap_or_default();
                files.push(sharded::INDEX.to_owned());
                files
            }
            Layout::Pickle | Layout::None => Vec::new(),
        }
    }
}
