//! The world outside the process: files and the hub, behind one trait.
//!
//! **Invariant:** compiling reaches files only through [`World`], so a test can hand in a world of
//! its own and nothing below `cli` opens a file or a connection.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Local(PathBuf),
    /// A hub repository.
    Hub {
        /// `org/name`
        repo: String,
        /// Branch, tag or commit as written.
        revision: Option<String>,
    },
}

/// What the compiler may ask of the outside.
pub trait World: Send + Sync + fmt::Debug {
    /// The content of a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(&self, path: &Path) -> Result<Vec<u8>, WorldError>;

    /// A file to be read at its places, and its size.
    ///
    /// # Errors
    /// When it cannot be opened, or is no file: a directory, a pipe, a device.
    fn open(&self, path: &Path) -> Result<(File, u64), WorldError>;

    /// What an earlier run made and kept under that name.
    fn kept(&self, name: &str) -> Option<Kept>;

    /// A file to be kept under that name; `None` where nothing is kept.
    ///
    /// # Errors
    /// When the file cannot be made.
    fn keep(&self, name: &str) -> io::Result<Option<Box<dyn Keep>>>;

    /// Whether there is a file or a directory at `path`.
    fn exists(&self, path: &Path) -> bool;

    /// The names of the files (not the directories) in `dir`, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self, dir: &Path) -> Result<Vec<String>, WorldError>;

    /// The files below `base` that a pattern matches, sorted: `*` and `?` within a name, `**` for any folders.
    ///
    /// # Errors
    /// When the pattern is malformed or matches too many files.
    fn matching(&self, base: &Path, pattern: &str) -> Result<Vec<PathBuf>, WorldError>;

    /// The BLAKE3 hash of a file's content, in hexadecimal.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn fingerprint(&self, path: &Path) -> Result<String, WorldError>;

    /// A file of the hub: from the cache, or downloaded into it.
    ///
    /// # Errors
    /// When the file is neither cached nor to be had.
    fn hub(&self, file: &HubFile) -> Result<HubPath, WorldError>;

    /// The paths of all files of a hub repository, sorted. Offline, those in the cache.
    ///
    /// # Errors
    /// When the repository is not to be had.
    fn hub_list(
        &self,
        repo: &str,
        kind: RepoKind,
        revision: Option<&str>,
    ) -> Result<Vec<String>, WorldError>;

    /// Whether the network is out of bounds.
    fn offline(&self) -> bool;
}

/// A file that can be made again, kept because that takes long.
#[derive(Debug)]
pub struct Kept {
    /// Open for reading.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
}

/// A file on its way to be [`Kept`]; dropped before that, it leaves nothing.
pub trait Keep: Write {
    /// Keeps what was written.
    ///
    /// # Errors
    /// What the file system says.
    fn done(self: Box<Self>) -> io::Result<Kept>;
}

/// The kind of a hub repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepoKind {
    /// Weights, a configuration, a tokenizer.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// How the name of a cache directory begins.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

impl fmt::Display for RepoKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        })
    }
}

/// A file of a hub repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubFile {
    /// `organisation/name`, or a bare name.
    pub repo: String,
    /// What the repository holds.
    pub kind: RepoKind,
    /// A branch, a tag or a commit; the main branch when absent.
    pub revision: Option<String>,
    /// The file's path inside the repository.
    pub file: String,
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hub:{}", self.repo)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        write!(f, "/{}", self.file)
    }
}

/// Where a file of the hub lies on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubPath {
    /// The file in the cache.
    pub path: PathBuf,
    /// The commit it belongs to, when known.
    pub commit: Option<String>,
}

/// What to do about a path that is not there, in a recipe.
const IN_A_RECIPE: &str = "check the path; in a recipe it is relative to the recipe's folder";

/// What to do about a path that is not there, on the command line.
const FROM_HERE: &str = "check the path; it is relative to the folder that you are in";

/// Something outside could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {cause} ({remedy})")]
pub struct WorldError {
    /// The path or address.
    pub what: String,
    /// What went wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl WorldError {
    /// An error about `what`.
    #[must_use]
    pub fn new(
        what: impl fmt::Display,
        cause: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            what: what.to_string(),
            cause: cause.to_string(),
            remedy: remedy.into(),
        }
    }

    /// The error of a failed file operation.
    #[must_use]
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (cause, remedy) = match error.kind() {
            ErrorKind::NotFound => ("there is no such file or directory".to_owned(), IN_A_RECIPE),
            ErrorKind::PermissionDenied => {
                ("permission denied".to_owned(), "check who may read it")
            }
            ErrorKind::IsADirectory => ("this is a directory".to_owned(), "name a file inside it"),
            _ => (error.to_string(), "check the path and the disk"),
        };
        Self::new(path.display(), cause, remedy)
    }

    /// The same about a path that the command line names.
    #[must_use]
    pub fn on_the_command_line(self) -> Self {
        let remedy = match self.remedy.as_str() {
            IN_A_RECIPE => FROM_HERE.to_owned(),
            _ => self.remedy,
        };
        Self { remedy, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = WorldError::io(
            Path::new("a/b.tsv"),
            &std::io::Error::from(std::io::ErrorKind::NotFound),
        );
        assert_eq!(
            error.to_string(),
            "a/b.tsv: there is no such file or directory (check the path; in a recipe it is relative to the recipe's folder)"
        );
    }

    #[test]
    fn a_hub_file_prints_as_written() {
        let mut file = HubFile {
            repo: "org/name".into(),
            kind: RepoKind::Model,
            revision: None,
            file: "config.json".into(),
        };
        assert_eq!(file.to_string(), "hub:org/name/config.json");
        file.revision = Some("v1".into());
        assert_eq!(file.to_string(), "hub:org/name@v1/config.json");
    }
}
