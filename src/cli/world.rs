//! The real world: the file system and the Hugging Face hub.
//!
//! **Invariant:** offline, nothing here opens a connection; a file that is not cached is an error
//! that says so.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::base::units::Bytes;
use crate::base::world::{HubFile, HubPath, Keep, Kept, RepoKind, World, WorldError};
use crate::files::near;
use blobs::Blobs;
use hub::{Client, Patience, Trouble};
use names::{check, is_commit, plain, without_password};

mod blobs;
mod hub;
mod kept;
mod names;

/// Compares the kept tokens with what was written; those that are damaged go, and are made again.
pub(super) fn kept_files() -> Vec<Option<crate::files::sums::Damage>> {
    crate::files::cache("tokens").map_or_else(Vec::new, |folder| kept::verify(&folder))
}

const MAIN: &str = "main";
/// The hub, unless HF_ENDPOINT names another.
const HUB: &str = "https://huggingface.co";
/// Most bytes of a recipe, a configuration or a tokenizer; the largest tokenizers have some 40 MiB.
const MOST_READ: u64 = 256 << 20;

/// What a file's fingerprint is remembered by.
type Stamp = (PathBuf, u64, Option<SystemTime>);

/// The file system, the hub's cache and, unless offline, the hub.
pub struct RealWorld {
    offline: bool,
    cache: Option<PathBuf>,
    /// Where what was made is kept.
    made: Option<PathBuf>,
    endpoint: Option<String>,
    /// What HF_TOKEN says.
    token: Option<String>,
    patience: Patience,
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
    /// Why it is not asked as the environment says.
    pub refused: Option<String>,
}

impl std::fmt::Debug for RealWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token.
        f.debug_struct("RealWorld")
            .field("offline", &self.offline)
            .field("cache", &self.cache)
            .field("endpoint", &without_password(self.address()))
            .finish_non_exhaustive()
    }
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
            token: variable("HF_TOKEN"),
            patience: Patience::default(),
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
        Hub {
            cache: self.cache.clone(),
            cached: self.cache.as_ref().map_or(0, kept),
            endpoint: without_password(self.address()),
            offline: self.offline,
            token: self.token().is_some(),
            refused: self.client(true).err().map(|why| why.to_string()),
        }
    }

    fn address(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(HUB)
    }

    /// The token to show: HF_TOKEN, or what `huggingface-cli login` left beside the cache.
    fn token(&self) -> Option<String> {
        let kept = || std::fs::read_to_string(self.cache.as_ref()?.parent()?.join("token")).ok();
        let token = self.token.clone().or_else(kept)?;
        Some(token.trim().to_owned()).filter(|t| !t.is_empty())
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
        if !hub::answer::is_name(&commit) {
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

    /// What asks the hub; with `patient` false it asks once.
    fn client(&self, patient: bool) -> Result<Client, Trouble> {
        let mut patience = self.patience;
        if !patient {
            patience.tries = 1;
        }
        Client::new(self.address(), self.token().as_deref(), patience)
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
        let io = |error: io::Error| io_error(path, &error);
        // What never ends, or waits for somebody to write, is refused before it is opened.
        let meta = std::fs::metadata(path).map_err(io)?;
        if !meta.is_file() && !meta.is_dir() {
            return Err(WorldError::new(
                path.display(),
                "this is a device or a pipe, not a file",
                "write its content to a file, and name that",
            ));
        }
        if meta.len() > MOST_READ {
            return Err(WorldError::new(
                path.display(),
                format!("it has {}", Bytes(meta.len())),
                format!("at most {} are read into memory at once", Bytes(MOST_READ)),
            ));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        tracing::info!(path = %path.display(), bytes = bytes.len(), "read");
        Ok(bytes)
    }

    fn open(&self, path: &Path) -> Result<(File, u64), WorldError> {
        let io = |error: io::Error| io_error(path, &error);
        let regular = |meta: &std::fs::Metadata| {
            if meta.is_dir() {
                Err(io(io::ErrorKind::IsADirectory.into()))
            } else if meta.is_file() {
                Ok(meta.len())
            } else {
                Err(WorldError::new(
                    path.display(),
                    "this is a pipe or a device, not a file",
                    "write what it gives into a file: data are read more than once",
                ))
            }
        };
        // Looked at first: opening a pipe waits for its writer.
        regular(&std::fs::metadata(path).map_err(io)?)?;
        let file = File::open(path).map_err(io)?;
        let size = regular(&file.metadata().map_err(io)?)?;
        tracing::info!(path = %path.display(), bytes = size, "opened");
        Ok((file, size))
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
        for entry in std::fs::read_dir(dir).map_err(|error| io_error(dir, &error))? {
            let entry = entry.map_err(|error| io_error(dir, &error))?;
            if entry.path().is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn matching(&self, base: &Path, pattern: &str) -> Result<Vec<PathBuf>, WorldError> {
        const MOST: usize = 10_000;
        let shown = base.join(pattern);
        let wrong = |cause: String, remedy: &str| WorldError::new(shown.display(), cause, remedy);
        let base = glob::Pattern::escape(&base.to_string_lossy());
        let whole = match base.as_str() {
            "" => pattern.to_owned(),
            _ if Path::new(pattern).is_absolute() => pattern.to_owned(),
            base => format!("{}/{pattern}", base.trim_end_matches('/')),
        };
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths = glob::glob_with(&whole, options).map_err(|error| {
            wrong(
                format!("the pattern is malformed: {}", error.msg),
                "`*`, `?`, `[a-z]` and `**` stand for several characters; `[*]` is the character itself",
            )
        })?;
        let mut files = Vec::new();
        for path in paths {
            let path = path.map_err(|error| WorldError::io(error.path(), error.error()))?;
            if path.is_file() {
                files.push(path);
            }
            if files.len() > MOST {
                return Err(wrong(
                    format!("it matches more than {MOST} files"),
                    "name them more narrowly",
                ));
            }
        }
        files.sort();
        Ok(files)
    }

    fn fingerprint(&self, path: &Path) -> Result<String, WorldError> {
        let io = |error: std::io::Error| io_error(path, &error);
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
        let (file, _) = self.open(path)?;
        hasher.update_reader(file).map_err(io)?;
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
            tracing::info!(%file, path = %found.path.display(), "found in the hub's cache");
            return Ok(found);
        }
        if self.offline {
            return Err(self.not_cached(&file.to_string()));
        }
        let trouble = |why| remote(&file.to_string(), &file.repo, file.kind, why);
        let Some(dir) = self.repo_dir(&file.repo, file.kind) else {
            return Err(WorldError::new(
                file,
                "no home directory for the cache",
                "set HF_HOME",
            ));
        };
        // Files of one repository are of one commit: what the cache has of it decides which.
        let snapshot = self.snapshot(&file.repo, file.kind, file.revision.as_deref());
        let commit = snapshot.map(|(_, commit)| commit);
        let asked = file.revision.as_deref();
        let pinned = commit.as_deref().or(asked.filter(|r| is_commit(r)));
        let revision = pinned.or(asked).unwrap_or(MAIN);
        let (path, commit) = self
            .client(true)
            .and_then(|client| client.file(&Blobs::at(dir), file, revision, pinned))
            .map_err(trouble)?;
        tracing::info!(%file, path = %path.display(), "fetched from the hub");
        Ok(HubPath {
            path,
            commit: Some(commit),
        })
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
            let listed = self
                .client(commit.is_none())
                .and_then(|client| client.list(repo, kind, commit.or(revision).unwrap_or(MAIN)));
            let what = format!("hub:{repo}");
            match listed {
                Ok(files) => files,
                Err(why @ (Trouble::Refused(_) | Trouble::Setting(_))) => {
                    return Err(remote(&what, repo, kind, why));
                }
                // A hub that does not answer takes nothing away from what is already here.
                Err(why) => cached(remote(&what, repo, kind, why))?,
            }
        };
        files.sort();
        Ok(files)
    }

    fn offline(&self) -> bool {
        self.offline
    }
}

/// The error of a failed file operation; where nothing is there, with the path that was probably meant.
fn io_error(path: &Path, error: &io::Error) -> WorldError {
    let own = WorldError::io(path, error);
    match near::did_you_mean(path).filter(|_| error.kind() == io::ErrorKind::NotFound) {
        Some(remedy) => WorldError { remedy, ..own },
        None => own,
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

fn walk(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) -> Result<(), WorldError> {
    const DEEPEST: usize = 16;
    for entry in std::fs::read_dir(dir).map_err(|error| io_error(dir, &error))? {
        let entry = entry.map_err(|error| io_error(dir, &error))?;
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
fn remote(what: &str, repo: &str, kind: RepoKind, why: Trouble) -> WorldError {
    const CONNECTION: &str =
        "check the connection and HF_ENDPOINT; cached files work with `--offline`";
    let (cause, remedy) = match why {
        Trouble::Status(404) => (
            format!("the hub has no such file, revision or {kind}"),
            format!("look at the page of `{repo}`"),
        ),
        Trouble::Status(401 | 403) => (
            format!("the hub refuses it: the {kind} is missing, private or gated"),
            "check the name; for a gated repository accept its terms and set HF_TOKEN".to_owned(),
        ),
        Trouble::Early(..) | Trouble::Slow(..) => (
            why.to_string(),
            "what has come is kept: the same command goes on from there".to_owned(),
        ),
        Trouble::Refused(_) => (
            why.to_string(),
            "check that HF_ENDPOINT names a hub you trust; nothing of it was kept".to_owned(),
        ),
        Trouble::Setting(_) => (
            why.to_string(),
            "see `peftc doctor`; cached files work with `--offline`".to_owned(),
        ),
        Trouble::Disk { .. } => (
            why.to_string(),
            "free some space there, or set HF_HOME to another folder".to_owned(),
        ),
        Trouble::Status(_) | Trouble::Network(_) => (why.to_string(), CONNECTION.to_owned()),
    };
    WorldError::new(what, cause, remedy)
}

#[cfg(test)]
mod tests;
