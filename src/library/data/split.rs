//! Which files a split is: `reviews.train` to `reviews/train.tsv`, or to the shards on the hub.
//!
//! **Invariant:** a split is never a part of itself: two candidates, or a missing shard, are errors.

use std::path::PathBuf;

use super::{DataError, FORMATS};
use crate::base::world::{HubFile, RepoKind, World};

/// Where splits are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitSource {
    /// A directory.
    Local(PathBuf),
    /// A data set of the hub.
    Hub {
        /// `organisation/name`.
        repo: String,
        /// A branch, a tag or a commit.
        revision: Option<String>,
        /// The configuration: a folder of the repository.
        config: Option<String>,
    },
}

/// Names of one and the same split.
const ALIASES: &[&str] = &["validation", "dev", "val", "valid"];

/// The files of a split, sorted; those of the hub are fetched.
///
/// # Errors
/// When there is no such split (the error names those there are), or it is ambiguous, incomplete
/// or not to be had.
pub fn find_split(
    source: &SplitSource,
    split: &str,
    world: &dyn World,
) -> Result<Vec<PathBuf>, DataError> {
    match source {
        SplitSource::Local(dir) => {
            let files = world.list(dir)?;
            let place = dir.display().to_string();
            let found = pick(&files, &[""], split, &place)?;
            Ok(found
                .ok_or_else(|| absent(split, &files, &[""], &place))?
                .iter()
                .map(|file| dir.join(file))
                .collect())
        }
        SplitSource::Hub {
            repo,
            revision,
            config,
        } => {
            let files = world.hub_list(repo, RepoKind::Dataset, revision.as_deref())?;
            let own = config.as_ref().map(|config| format!("{config}/"));
            let folders: &[&str] = match &own {
                Some(own) => &[own],
                None => &["data/", "", "default/", "plain_text/"],
            };
            let place = own
                .as_ref()
                .map_or_else(|| format!("hub:{repo}"), |own| format!("hub:{repo}/{own}"));
            let found = pick(&files, folders, split, &place)?
                .ok_or_else(|| absent(split, &files, folders, &place))?;
            let fetch = |file: &&str| {
                let file = HubFile {
                    repo: repo.clone(),
                    kind: RepoKind::Dataset,
                    revision: revision.clone(),
                    file: (*file).to_owned(),
                };
                Ok(world.hub(&file)?.path)
            };
            found.iter().map(fetch).collect()
        }
    }
}

/// A file name's split and, of a shard, its place and their number.
struct Part<'a> {
    split: &'a str,
    shard: Option<(u64, Option<u64>)>,
}

/// Reads `train.tsv`, `train-00000-of-00002.parquet`.
fn part(name: &str) -> Option<Part<'_>> {
    let (stem, extension) = name.rsplit_once('.')?;
    let extension = extension.to_lowercase();
    if stem.is_empty()
        || !FORMATS
            .iter()
            .any(|format| format.extensions.contains(&extension.as_str()))
    {
        return None;
    }
    let shard = (extension == "parquet").then(|| shard(stem)).flatten();
    Some(shard.unwrap_or(Part {
        split: stem,
        shard: None,
    }))
}

fn shard(stem: &str) -> Option<Part<'_>> {
    let digits = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    // The hub may append a hash: train-00000-of-00002-0f1e….parquet
    let (split, rest) = stem.match_indices('-').find_map(|(at, _)| {
        let (split, rest) = (stem.get(..at)?, stem.get(at + 1..)?);
        let mut words = rest.split('-');
        digits(words.next()?)?;
        matches!(words.next(), None | Some("of")).then_some((split, rest))
    })?;
    let mut words = rest.split('-');
    let index = digits(words.next()?)?;
    let count = match words.nth(1) {
        Some(count) => Some(digits(count)?),
        None => None,
    };
    (!split.is_empty()).then_some(Part {
        split,
        shard: Some((index, count)),
    })
}

/// The files of a split, in the first folder that has it.
fn pick<'a>(
    files: &'a [String],
    folders: &[&str],
    split: &str,
    place: &str,
) -> Result<Option<Vec<&'a str>>, DataError> {
    let others = ALIASES
        .iter()
        .copied()
        .filter(|name| ALIASES.contains(&split) && *name != split);
    for name in std::iter::once(split).chain(others) {
        for folder in folders {
            let mut found: Vec<(u64, Option<u64>, &str)> = Vec::new();
            let mut single: Vec<&str> = Vec::new();
            for file in files {
                let Some(inner) = file
                    .strip_prefix(folder)
                    .filter(|inner| !inner.contains('/'))
                else {
                    continue;
                };
                match part(inner) {
                    Some(Part {
                        split,
                        shard: Some((index, count)),
                    }) if split == name => found.push((index, count, file)),
                    Some(Part { split, shard: None }) if split == name => single.push(file),
                    _ => {}
                }
            }
            found.sort_unstable();
            let error = |message: String| DataError::new(place, message);
            match (single.as_slice(), found.first()) {
                ([], None) => {}
                ([one], None) => return Ok(Some(vec![one])),
                ([], Some((_, count, _))) => {
                    let same = found.iter().all(|(_, other, _)| other == count);
                    let whole = count.is_none_or(|count| {
                        found.len() as u64 == count
                            && found
                                .iter()
                                .zip(0u64..)
                                .all(|((index, ..), place)| *index == place)
                    });
                    if !(same && whole) {
                        let there = found.len();
                        let of = count.map_or_else(String::new, |count| format!(" of {count}"));
                        return Err(error(format!(
                            "split `{split}` has {there}{of} shards, not every one once"
                        ))
                        .help("fetch all of them; offline, only cached files are seen"));
                    }
                    return Ok(Some(found.into_iter().map(|(.., file)| file).collect()));
                }
                (several, _) => {
                    let all = several
                        .iter()
                        .copied()
                        .chain(found.iter().map(|(.., file)| *file));
                    let names: Vec<String> = all.take(4).map(|name| format!("`{name}`")).collect();
                    return Err(error(format!(
                        "split `{split}` could be any of {}",
                        names.join(", ")
                    ))
                    .help("keep one of them, or name the files"));
                }
            }
        }
    }
    Ok(None)
}

/// The error of a split that is not there.
fn absent(split: &str, files: &[String], folders: &[&str], place: &str) -> DataError {
    let quoted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.dedup();
        names
            .iter()
            .take(12)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let inner = |file: &'_ String| -> Option<(usize, usize)> {
        let folder = folders
            .iter()
            .filter(|folder| file.starts_with(**folder))
            .map(|folder| folder.len())
            .max()?;
        Some((folder, file.len()))
    };
    let splits: Vec<&str> = files
        .iter()
        .filter_map(|file| inner(file).and_then(|(start, end)| file.get(start..end)))
        .filter(|name| !name.contains('/'))
        .filter_map(|name| part(name).map(|part| part.split))
        .collect();
    let error = DataError::new(place, format!("there is no split `{split}`"));
    if !splits.is_empty() {
        return error.help(format!("there are {}", quoted(splits)));
    }
    let configs: Vec<&str> = files
        .iter()
        .filter_map(|file| file.split_once('/'))
        .filter(|(_, name)| part(name).is_some())
        .map(|(config, _)| config)
        .collect();
    if configs.is_empty() {
        let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
        return error.help(format!(
            "no data file is there; splits are files such as {split}.tsv ({})",
            names.join(", ")
        ));
    }
    error.help(format!("there are the configurations {}", quoted(configs)))
}

#[cfg(test)]
mod tests;
