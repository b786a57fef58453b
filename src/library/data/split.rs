//! Finding a split's files: in a directory, or in a repository on the hub.

use std::path::PathBuf;

use super::{DataError, FORMATS};
use crate::base::world::{HubFile, RepoKind, World};

/// Where a data set's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitSource {
    /// A directory.
    Local(PathBuf),
    /// A hub repository.
    Hub {
        /// `org/name`
        repo: String,
        /// Branch, tag or commit.
        revision: Option<String>,
        /// Configuration (subset).
        config: Option<String>,
    },
}

/// Names under which a split is looked for; its own first.
fn aliases(split: &str) -> Vec<&str> {
    const DEV: [&str; 4] = ["dev", "validation", "val", "valid"];
    let mut names = vec![split];
    if DEV.contains(&split) {
        names.extend(DEV.iter().filter(|n| **n != split));
    }
    names
}

/// The split a file belongs to, if its name says so: `train.tsv`, `train-00000-of-00002.parquet`.
fn split_of(file: &str) -> Option<&str> {
    let (stem, extension) = file.rsplit_once('.')?;
    let known = FORMATS.iter().any(|f| f.extensions.contains(&extension));
    known.then(|| stem.split_once('-').map_or(stem, |(split, _)| split))
}

/// The files of a split, sorted.
///
/// # Errors
/// None is there: the message names those that are.
pub fn find_split(source: &SplitSource, split: &str, world: &dyn World) -> Result<Vec<PathBuf>, DataError> {
    match source {
        SplitSource::Local(dir) => {
            let at = dir.display().to_string();
            let files = world.list(dir).map_err(|e| DataError::new(&at, e.to_string()))?;
            let chosen = choose(&files, split, &at)?;
            Ok(chosen.into_iter().map(|f| dir.join(f)).collect())
        }
        SplitSource::Hub { repo, revision, config } => {
            let all = world
                .hub_list(repo, RepoKind::Dataset, revision.as_deref())
                .map_err(|e| DataError::new(repo, e.to_string()))?;
            let in_folder = |folder: &str| -> Vec<String> {
                let inside = |f: &&String| f.rsplit_once('/').map_or("", |(dir, _)| dir) == folder;
                all.iter().filter(inside).cloned().collect()
            };
            let folders: Vec<&str> = config.as_deref().into_iter().chain(["data", "default", ""]).collect();
            let candidates = folders.iter().map(|f| in_folder(f)).find(|files| choose(files, split, repo).is_ok());
            let chosen = choose(&candidates.unwrap_or(all), split, repo)?;
            chosen
                .into_iter()
                .map(|file| {
                    let file = HubFile { repo: repo.clone(), kind: RepoKind::Dataset, revision: revision.clone(), file };
                    world.hub(&file).map(|p| p.path).map_err(|e| DataError::new(repo, e.to_string()))
                })
                .collect()
        }
    }
}

fn choose(files: &[String], split: &str, at: &str) -> Result<Vec<String>, DataError> {
    let name = |file: &str| file.rsplit('/').next().and_then(split_of).map(str::to_owned);
    for alias in aliases(split) {
        let mut found: Vec<String> = files.iter().filter(|f| name(f).as_deref() == Some(alias)).cloned().collect();
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    let mut splits: Vec<String> = files.iter().filter_map(|f| name(f)).collect();
    splits.sort();
    splits.dedup();
    let there = if splits.is_empty() { "no data files are there".to_owned() } else { format!("there are `{}`", splits.join("`, `")) };
    Err(DataError::new(at, format!("there is no split `{split}`; {there}")))
}
