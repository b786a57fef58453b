//! Which files a split is: `reviews.train` to `reviews/train.tsv`, or to the shards on the hub.
//!
//! **Invariant:** a split is never a part of itself: two candidates, or a missing shard, are errors.

use std::path::PathBuf;

use std::path::Path;

use super::{About, DataError, FORMATS, unpacked_name};
use crate::base::suggest;
use crate::base::world::{HubFile, RepoKind, World, WorldError};

/// Where splits are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitSource {
    /// A directory, or files named one by one or by patterns.
    Local {
        /// What names are relative to.
        base: PathBuf,
        /// The names.
        named: Vec<String>,
    },
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

/// Names that say of a file which split it is, wherever it lies.
const KNOWN: &[&str] = &["train", "test", "validation", "dev", "val", "valid"];

/// Whether a name is a pattern.
fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// The files of names and patterns, relative to `base`; each file once, a pattern's files sorted.
///
/// # Errors
/// When a pattern matches nothing.
pub fn expand(base: &Path, named: &[String], world: &dyn World) -> Result<Vec<PathBuf>, DataError> {
    let mut files: Vec<PathBuf> = Vec::new();
    for name in named {
        let path = base.join(name);
        let found = if is_pattern(name) && !world.exists(&path) {
            let found = world.matching(base, name)?;
            if found.is_empty() {
                let error =
                    DataError::new(path.display().to_string(), "no file matches the pattern");
                return Err(error.help(
                    "it is relative to the recipe; `*` matches within one folder, `**` any folders",
                ));
            }
            found
        } else {
            vec![path]
        };
        for file in found {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// The names and patterns among the files of a repository.
///
/// # Errors
/// When a pattern is malformed or matches nothing.
pub fn expand_in(
    files: &[String],
    named: &[String],
    place: &str,
) -> Result<Vec<String>, DataError> {
    let mut list: Vec<String> = Vec::new();
    for name in named {
        let found: Vec<&String> = if is_pattern(name) && !files.contains(name) {
            let pattern = glob::Pattern::new(name).map_err(|error| {
                DataError::new(
                    place,
                    format!("the pattern `{name}` is malformed: {}", error.msg),
                )
            })?;
            files.iter().filter(|file| pattern.matches(file)).collect()
        } else {
            vec![name]
        };
        if found.is_empty() {
            let error = DataError::new(place, format!("no file matches the pattern `{name}`"));
            return Err(error.help("it is relative to the repository"));
        }
        for file in found {
            if !list.contains(file) {
                list.push(file.clone());
            }
        }
    }
    Ok(list)
}

/// The files of a split among files that were named: those whose names say so, where all names do; else all are `train`.
fn among(files: Vec<PathBuf>, split: &str, place: &str) -> Result<Vec<PathBuf>, DataError> {
    let name = |file: &PathBuf| file.file_name()?.to_str().map(str::to_owned);
    let of = |file: &PathBuf| {
        let name = name(file)?;
        let own = part(&name)?.split.to_lowercase();
        KNOWN.contains(&own.as_str()).then_some(own)
    };
    let known: Option<Vec<String>> = files.iter().map(of).collect();
    let Some(known) = known else {
        if split == "train" {
            return Ok(files);
        }
        let error =
            DataError::new(place, format!("there is no split `{split}`")).about(About::Name);
        let meant = ["train", "dev", "validation", "test"];
        let near = suggest::nearest(split, meant).first().copied();
        let share = if near.is_some_and(|near| ALIASES.contains(&near)) {
            "dev"
        } else {
            "test"
        };
        let help = format!(
            "all of it is the split `train`; carve one out of it: `split = {{ {share} = 10% }}`"
        );
        return Err(error.help_near(split, meant, &help));
    };
    let same = |own: &str| own == split || ALIASES.contains(&own) && ALIASES.contains(&split);
    let found: Vec<PathBuf> = files
        .iter()
        .zip(&known)
        .filter(|(_, own)| same(own))
        .map(|(file, _)| file.clone())
        .collect();
    if found.is_empty() {
        let mut there: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        there.sort_unstable();
        there.dedup();
        let error =
            DataError::new(place, format!("there is no split `{split}`")).about(About::Name);
        let names = known.iter().map(String::as_str);
        let help = format!(
            "by their names, the files are {}; a split of other files is named: `{split} = [\"FILE\"]`",
            there.join(", ")
        );
        return Err(error.help_near(split, names, &help));
    }
    Ok(found)
}

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
        SplitSource::Local { base, named } => {
            let (folder, place) = match named.as_slice() {
                [one] => (Some(base.join(one)), base.join(one).display().to_string()),
                _ => (None, base.display().to_string()),
            };
            let listed = match (&folder, named.as_slice()) {
                (Some(dir), [one]) if !is_pattern(one) || world.exists(dir) => world.list(dir),
                _ => return among(expand(base, named, world)?, split, &place),
            };
            let (Some(dir), Ok(files)) = (&folder, &listed) else {
                // It is no directory, so it is a file, or nothing.
                let files = expand(base, named, world)?;
                if files.iter().all(|file| world.exists(file)) {
                    return among(files, split, &place);
                }
                return Err(listed.err().map_or_else(
                    || DataError::new(place.as_str(), "there is no such directory"),
                    |error: WorldError| error.into(),
                ));
            };
            let found = pick(files, &[""], split, &place)?;
            Ok(found
                .ok_or_else(|| absent(split, files, &[""], &place))?
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

/// Reads `train.tsv`, `train.jsonl.gz`, `train-00000-of-00002.parquet`.
fn part(name: &str) -> Option<Part<'_>> {
    let (stem, extension) = unpacked_name(name).rsplit_once('.')?;
    let extension = extension.to_lowercase();
    if stem.is_empty()
        || !FORMATS
            .iter()
            .any(|format| format.extensions.contains(&extension.as_str()))
    {
        return None;
    }
    // Of other formats, `train-1.csv` may be a name of its own.
    let whole = |part: &Part<'_>| {
        extension == "parquet" || part.shard.is_some_and(|(_, count)| count.is_some())
    };
    let shard = shard(stem).filter(whole);
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

/// Whether one of some splits has that name, or another of it.
fn holds(splits: &[&str], name: &str) -> bool {
    let same = |own: &&str| *own == name || ALIASES.contains(own) && ALIASES.contains(&name);
    splits.iter().any(same)
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
    let error = DataError::new(place, format!("there is no split `{split}`")).about(About::Name);
    if !splits.is_empty() {
        let known = splits
            .iter()
            .chain(KNOWN.iter().filter(|k| holds(&splits, k)));
        let help = format!("there are {}", quoted(splits.clone()));
        return error.help_near(split, known.copied(), &help);
    }
    let configs: Vec<&str> = files
        .iter()
        .filter_map(|file| file.split_once('/'))
        .filter(|(_, name)| part(name).is_some())
        .map(|(config, _)| config)
        .collect();
    if configs.is_empty() {
        let mut endings: Vec<String> = FORMATS
            .iter()
            .flat_map(|format| format.extensions)
            .map(|extension| format!(".{extension}"))
            .collect();
        endings.extend(["also packed: .gz, .zst".to_owned()]);
        let there = if files.is_empty() {
            "it is empty".to_owned()
        } else {
            format!(
                "what is there: {}",
                quoted(files.iter().map(String::as_str).collect())
            )
        };
        return error.help(format!(
            "no data file is there; splits are files such as {split}.tsv ({}); {there}",
            endings.join(", ")
        ));
    }
    error.help(format!("there are the configurations {}", quoted(configs)))
}

#[cfg(test)]
mod tests;
