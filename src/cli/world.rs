//! The real world: the file system and the Hugging Face hub.
//!
//! **Invariant:** offline, nothing here opens a connection; a file that is not cached is an error
//! that says so.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use memmap2::Mmap;

use crate::base::world::{HubFile, HubPath, Keep, Kept, RepoKind, World, WorldError};

mod kept;

/// Compares the kept tokens with what was written; those that are damaged go, and are made again.
pub(super) fn kept_files() -> Vec<Option<crate::files::sums::Damage>> {
    crate::files::cache("tokens").map_or_else(Vec::new, |folder| kept::verify(&folder))
}

const MAIN: &str = "main";

/// What a file's fingerprint is remembered by.
type Stamp = (PathBuf, u64, Option<SystemTime>);

/// The file system, the hub's cache and, unless offline, the hub.
#[derive(Debug)]
pub struct RealWorld {
    offline: bool,
    cache: Option<PathBuf>,
    /// Where what was made is kept.
    made: Option<PathBuf>,
    endpoint: Option<String>,
    fingerprints: Mutex<HashMap<Stamp, String>>,
}

/// How the hub is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Where files of it are kept; `None` without a home directory.
    pub cache: Option<PathBuf>,
    /// Repositories kept there.
    pub cached: usize,
    /// Its address.
    pub endpoint: String,
    /// Whether the network may be used.
    pub offline: bool,
    /// Whether there is a token to show.
    pub token: bool,
}

impl RealWorld {
    /// The world as the environment describes it: `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and
    /// `HF_HUB_OFFLINE`; `offline` forbids the network whatever the environment says.
    #[must_use]
    pub fn new(offline: bool) -> Self {
        let forbidden = variable("HF_HUB_OFFLINE").is_some_and(|value| {
            matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on")
        });
        let cache = match variable("HF_HOME") {
            Some(home) => Some(PathBuf::from(home).join("hub")),
            None => {
                std::env::home_dir().map(|home| home.join(".cache").join("huggingface").join("hub"))
            }
        };
        let endpoint =
            variable("HF_ENDPOINT").map(|address| address.trim_end_matches('/').to_owned());
        Self {
            offline: offline || forbidden,
            cache,
            made: crate::files::cache("tokens"),
            endpoint,
            fingerprints: Mutex::default(),
        }
    }

    /// The same with the hub's cache (the directory that holds `models--…`) at `cache`, and what is made
    /// of its files below.
    #[must_use]
    pub fn with_cache(offline: bool, cache: PathBuf) -> Self {
        Self {
            made: Some(cache.join("made")),
            cache: Some(cache),
            ..Self::new(offline)
        }
    }

    /// How the hub is reached; nothing is asked of it.
    #[must_use]
    pub fn reach(&self) -> Hub {
        let kept = |dir: &PathBuf| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let is_repo =
                |name: &str| name.starts_with("models--") || name.starts_with("datasets--");
            entries
                .filter(|e| is_repo(&e.file_name().to_string_lossy()))
                .count()
        };
        let endpoint = self.endpoint.clone();
        let own = |cache: &PathBuf| Cache::new(cache.clone()).token();
        Hub {
            cache: self.cache.clone(),
            cached: self.cache.as_ref().map_or(0, kept),
            endpoint: endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned()),
            offline: self.offline,
            token: variable("HF_TOKEN")
                .or_else(|| own(self.cache.as_ref()?))
                .is_some(),
        }
    }

    fn repo_dir(&self, repo: &str, kind: RepoKind) -> Option<PathBuf> {
        let name = format!("{}--{}", kind.folder(), repo.replace('/', "--"));
        self.cache.as_ref().map(|cache| cache.join(name))
    }

    /// The cached snapshot of a revision, and its commit.
    fn snapshot(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: Option<&str>,
    ) -> Option<(PathBuf, String)> {
        let dir = self.repo_dir(repo, kind)?;
        let revision = revision.unwrap_or(MAIN);
        let commit = match std::fs::read_to_string(dir.join("refs").join(revision)) {
            Ok(commit) => commit.trim().to_owned(),
            Err(_) => revision.to_owned(),
        };
        if !plain(&commit) {
            return None;
        }
        let snapshot = dir.join("snapshots").join(&commit);
        snapshot.is_dir().then_some((snapshot, commit))
    }

    fn cached(&self, file: &HubFile) -> Option<HubPath> {
        let (snapshot, commit) = self.snapshot(&file.repo, file.kind, file.revision.as_deref())?;
        let path = snapshot.join(&file.file);
        path.is_file().then_some(HubPath {
            path,
            commit: Some(commit),
        })
    }

    fn api(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: Option<&str>,
    ) -> Result<ApiRepo, WorldError> {
        let Some(cache) = &self.cache else {
            return Err(WorldError::new(
                format!("hub:{repo}"),
                "no home directory for the cache",
                "set HF_HOME",
            ));
        };
        let cache = Cache::new(cache.clone());
        let token = variable("HF_TOKEN").or_else(|| cache.token());
        let mut builder = ApiBuilder::from_cache(cache)
            .with_token(token)
            .with_progress(false)
            .with_retries(3);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api: Api = builder
            .build()
            .map_err(|error| remote(&format!("hub:{repo}"), repo, kind, &error))?;
        let kind = match kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        Ok(api.repo(Repo::with_revision(
            repo.to_owned(),
            kind,
            revision.unwrap_or(MAIN).to_owned(),
        )))
    }

    /// The error for something that is not in the cache while offline.
    fn not_cached(&self, what: &str) -> WorldError {
        let place = self
            .cache
            .as_ref()
            .map_or_else(|| "HF_HOME".to_owned(), |cache| cache.display().to_string());
        WorldError::new(
            what,
            format!("not in the cache {place}, and the network is off"),
            "run once without `--offline` and HF_HUB_OFFLINE, or use `local`",
        )
    }
}

impl World for RealWorld {
    fn read(&self, path: &Path) -> Result<Vec<u8>, WorldError> {
        std::fs::read(path).map_err(|error| WorldError::io(path, &error))
    }

    fn map(&self, path: &Path) -> Result<Bytes, WorldError> {
        let io = |error: io::Error| WorldError::io(path, &error);
        let file = File::open(path).map_err(io)?;
        // Nothing can be mapped of an empty file, and not every special file.
        if !file.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) {
            return self.read(path).map(Bytes::from);
        }
        // SAFETY: the map is read-only and its bytes are only ever read as plain bytes. As with every
        // map, another process that truncates the file meanwhile ends this one with a signal.
        #[expect(unsafe_code, reason = "files may be larger than memory")]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Bytes::from_owner(map))
    }

    fn kept(&self, name: &str) -> Option<Kept> {
        kept::open(self.made.as_ref()?, name)
    }

    fn keep(&self, name: &str) -> io::Result<Option<Box<dyn Keep>>> {
        let begin = |folder: &PathBuf| kept::begin(folder, name);
        self.made.as_ref().map(begin).transpose()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, WorldError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|error| WorldError::io(dir, &error))? {
            let entry = entry.map_err(|error| WorldError::io(dir, &error))?;
            if entry.path().is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn fingerprint(&self, path: &Path) -> Result<String, WorldError> {
        let io = |error: std::io::Error| WorldError::io(path, &error);
        let meta = std::fs::metadata(path).map_err(io)?;
        let stamp: Stamp = (path.to_owned(), meta.len(), meta.modified().ok());
        let known = |map: &HashMap<Stamp, String>| map.get(&stamp).cloned();
        if stamp.2.is_some()
            && let Some(hash) = known(
                &self
                    .fingerprints
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            )
        {
            return Ok(hash);
        }
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(std::fs::File::open(path).map_err(io)?)
            .map_err(io)?;
        let hash = hasher.finalize().to_hex().to_string();
        self.fingerprints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(stamp, hash.clone());
        Ok(hash)
    }

    fn hub(&self, file: &HubFile) -> Result<HubPath, WorldError> {
        check(&file.repo, file.revision.as_deref(), Some(&file.file))?;
        if let Some(found) = self.cached(file) {
            return Ok(found);
        }
        if self.offline {
            return Err(self.not_cached(&file.to_string()));
        }
        // Files of one repository are of one commit: what the cache has of it decides which.
        let snapshot = self.snapshot(&file.repo, file.kind, file.revision.as_deref());
        let revision = snapshot
            .as_ref()
            .map(|(_, commit)| commit.as_str())
            .or(file.revision.as_deref());
        let path = self
            .api(&file.repo, file.kind, revision)?
            .download(&file.file)
            .map_err(|error| remote(&file.to_string(), &file.repo, file.kind, &error))?;
        let commit = commit_of(&path);
        Ok(HubPath { path, commit })
    }

    fn hub_list(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: Option<&str>,
    ) -> Result<Vec<String>, WorldError> {
        check(repo, revision, None)?;
        let snapshot = self.snapshot(repo, kind, revision);
        let cached = |missing: WorldError| {
            let (dir, _) = snapshot.as_ref().ok_or(missing)?;
            let mut files = Vec::new();
            walk(dir, "", 0, &mut files)?;
            Ok(files)
        };
        let mut files = if self.offline {
            cached(self.not_cached(&format!("hub:{repo}")))?
        } else {
            let commit = snapshot.as_ref().map(|(_, commit)| commit.as_str());
            match self.api(repo, kind, commit.or(revision))?.info() {
                Ok(info) => info
                    .siblings
                    .into_iter()
                    .map(|sibling| sibling.rfilename)
                    .collect(),
                // A hub that does not answer takes nothing away from what is already here.
                Err(error) => cached(remote(&format!("hub:{repo}"), repo, kind, &error))?,
            }
        };
        files.sort();
        Ok(files)
    }

    fn offline(&self) -> bool {
        self.offline
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// Whether a relative path stays below where it is joined.
fn plain(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Names go into paths and addresses: none may lead out of the cache.
fn check(repo: &str, revision: Option<&str>, file: Option<&str>) -> Result<(), WorldError> {
    if !plain(repo) || repo.matches('/').count() > 1 {
        return Err(WorldError::new(
            format!("hub:{repo}"),
            "not the name of a repository",
            "write it as `organisation/name`",
        ));
    }
    for (what, value) in [("revision", revision), ("file", file)] {
        if let Some(value) = value
            && !plain(value)
        {
            return Err(WorldError::new(
                format!("hub:{repo}"),
                format!("`{value}` is no {what} of a repository"),
                "write it as on the hub's page",
            ));
        }
    }
    Ok(())
}

/// The commit in `…/snapshots/COMMIT/…`.
fn commit_of(path: &Path) -> Option<String> {
    let mut parts = path.components().rev().map(Component::as_os_str);
    let mut last = parts.next()?;
    for part in parts {
        if part == "snapshots" {
            return last.to_str().map(str::to_owned);
        }
        last = part;
    }
    None
}

fn walk(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) -> Result<(), WorldError> {
    const DEEPEST: usize = 16;
    for entry in std::fs::read_dir(dir).map_err(|error| WorldError::io(dir, &error))? {
        let entry = entry.map_err(|error| WorldError::io(dir, &error))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let inner = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        let path = entry.path();
        if path.is_file() {
            files.push(inner);
        } else if path.is_dir() && depth < DEEPEST {
            walk(&path, &inner, depth + 1, files)?;
        }
    }
    Ok(())
}

/// What a failed request means.
fn remote(what: &str, repo: &str, kind: RepoKind, error: &ApiError) -> WorldError {
    let text = error.to_string();
    let has = |code: &str| text.contains(code);
    let (cause, remedy) = if has("status: 404") {
        (
            format!("the hub has no such file, revision or {kind}"),
            format!("look at the page of `{repo}`"),
        )
    } else if has("status: 401") || has("status: 403") {
        (
            format!("the hub refuses it: the {kind} is missing, private or gated"),
            "check the name; for a gated repository accept its terms and set HF_TOKEN".to_owned(),
        )
    } else {
        (
            text,
            "check the connection and HF_ENDPOINT; cached files work with `--offline`".to_owned(),
        )
    };
    WorldError::new(what, cause, remedy)
}

#[cfg(test)]
mod tests;
