//! The world as an editor has it: texts that are not saved stand over the files of the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::world::{HubFile, HubPath, Keep, Kept, RepoKind, World, WorldError};

/// A world in which some files have the texts of an editor.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    world: &'a dyn World,
    texts: Arc<BTreeMap<PathBuf, Arc<str>>>,
    stopped: Arc<AtomicBool>,
}

impl<'a> Overlay<'a> {
    /// A world with texts over it, by the paths of their files; once `stopped` is set, it gives nothing any more.
    #[must_use]
    pub fn new(
        world: &'a dyn World,
        texts: Arc<BTreeMap<PathBuf, Arc<str>>>,
        stopped: Arc<AtomicBool>,
    ) -> Self {
        Self {
            world,
            texts,
            stopped,
        }
    }

    fn text(&self, path: &Path) -> Option<&Arc<str>> {
        self.texts
            .get(path)
            .or_else(|| self.texts.get(&plain(path)))
    }

    /// The error of what is not wanted any more.
    fn check(&self, what: &dyn std::fmt::Display) -> Result<(), WorldError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(WorldError::new(what, "the text has changed", "ask again"));
        }
        Ok(())
    }
}

/// A path without `.`, and without `..` behind the name of a folder.
fn plain(path: &Path) -> PathBuf {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}

impl World for Overlay<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, WorldError> {
        self.check(&path.display())?;
        match self.text(path) {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => self.world.read(path),
        }
    }

    fn open(&self, path: &Path) -> Result<(File, u64), WorldError> {
        self.check(&path.display())?;
        self.world.open(path)
    }

    fn kept(&self, name: &str) -> Option<Kept> {
        self.world.kept(name)
    }

    fn keep(&self, name: &str) -> io::Result<Option<Box<dyn Keep>>> {
        self.world.keep(name)
    }

    fn exists(&self, path: &Path) -> bool {
        self.text(path).is_some() || self.world.exists(path)
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, WorldError> {
        self.check(&dir.display())?;
        self.world.list(dir)
    }

    fn matching(&self, base: &Path, pattern: &str) -> Result<Vec<PathBuf>, WorldError> {
        self.check(&pattern)?;
        self.world.matching(base, pattern)
    }

    fn fingerprint(&self, path: &Path) -> Result<String, WorldError> {
        self.check(&path.display())?;
        self.world.fingerprint(path)
    }

    fn hub(&self, file: &HubFile) -> Result<HubPath, WorldError> {
        self.check(&file)?;
        self.world.hub(file)
    }

    fn hub_list(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: Option<&str>,
    ) -> Result<Vec<String>, WorldError> {
        self.check(&repo)?;
        self.world.hub_list(repo, kind, revision)
    }

    fn offline(&self) -> bool {
        self.world.offline()
    }
}
