//! Kept results of a model's frozen part: files of rows in the store, filled once in the order of the
//! data, read by every batch.
//!
//! ```text
//! STORE/features/<set>/<value>.f32     the rows of one value: examples one after another (`.bf16`, `.f16`: so held, or rounded)
//! STORE/features/<set>/<value>.json    which chunks of examples are whole, and their checksums (`.bf16.json`)
//! STORE/features/<set>/used            touched by each run that reads them
//! ```
//!
//! A set is named by the hash of the weights and of the tokens, a value by the expression that makes it,
//! so stages, sweep points and recipes that need the same rows share them.
//!
//! **Invariant:** rows are read only out of chunks whose checksum was compared since the file last changed; all
//! others are made again.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;

use self::rows::{Layout, Rowed};
use crate::exec::interpreter::{Outputs, Runner};
use crate::exec::observe::{Event, Observer, wait};
use crate::exec::store;
use crate::exec::store::features::{Chunk, Notes};
use crate::files::RunError;
use crate::files::durable;
use crate::files::sums;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::library::counts::to_u32;
use crate::library::data::batch::{Packed, pack};
use crate::library::data::tokens::EncodedSet;
use crate::library::model::Positions;
use crate::library::stage::job::Features;
use crate::library::task::{ReadDraw, Reads};
use crate::program::op::Tensor;
use crate::program::{Feed, Program};

mod made;
mod rows;
mod taught;

pub use made::Made;
pub use taught::Taught;

/// Time between notes of how far a filling is.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// The kept rows of a split, open for reading.
#[derive(Debug)]
pub struct Reader {
    files: Vec<Rowed>,
    /// Tokens before each example.
    tokens: Vec<u64>,
    kept: u64,
}

/// What a filling works on.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    /// The store's directory of features.
    pub root: &'a Path,
    /// What the rows are made with, beside the tokens.
    pub identity: &'a str,
    /// Position id of the first token.
    pub positions: Positions,
    /// Most bytes of all sets together.
    pub bound: u64,
    /// Which places of the texts are read, where the rows depend on them.
    pub reads: Option<&'a Reads>,
}

/// Opens the kept rows of a split after filling what is missing of them; `weights` brings the prefix'
/// residents, if they are needed.
///
/// # Errors
/// What the file system says (a full disk: what is whole stays), or an interruption.
#[expect(
    clippy::too_many_arguments,
    reason = "a pass: what runs, on what, and who watches"
)]
pub fn open(
    runner: &mut Runner,
    features: &Features,
    (set, examples): (&EncodedSet, u64),
    place: Cache<'_>,
    weights: &mut dyn FnMut(&mut Runner) -> Result<(), RunError>,
    observer: &mut dyn Observer,
) -> Result<Reader, RunError> {
    let lengths = set.lengths();
    let mut tokens = Vec::with_capacity(lengths.len() + 1);
    tokens.push(0_u64);
    for &n in &lengths {
        tokens.push(tokens.last().copied().unwrap_or(0) + u64::from(n));
    }
    let dir = place.root.join(key(set, place)?);
    durable::create_dirs(&dir)?;
    let _lock = wait(observer, "filling the same features", &mut || {
        store::try_lock(&dir)
    })?;
    let mut reader = Reader {
        files: open_files(&dir, features)?,
        tokens,
        kept: examples,
    };
    let used = dir.join("used");
    File::create(&used).map_err(|e| durable::failed(&used, "create", &e))?;
    for file in &mut reader.files {
        for damaged in file.notes.trust(&file.path, &file.file)? {
            observer.event(Event::Note(&format!("{damaged}; it is made again")));
        }
        file.notes.retain(|chunk| {
            let (from, to) = (
                file.rows.of(&reader.tokens, chunk.from),
                file.rows.of(&reader.tokens, chunk.to),
            );
            let each = file.rows.bytes();
            (chunk.at, chunk.bytes) == (from * each, to.saturating_sub(from) * each)
        });
    }
    let missing: Vec<Range<usize>> = Features::chunks(&lengths, examples, features.together)
        .filter(|range| !reader.files.iter().all(|f| f.notes.hold(range)))
        .collect();
    if !missing.is_empty() {
        let bytes = |range: &Range<usize>| -> u64 {
            let each = reader.files.iter().map(|f| {
                let (from, to) = f.rows.span(&reader.tokens, range);
                to - from
            });
            each.sum()
        };
        let need: u64 = missing.iter().map(bytes).sum();
        let all = bytes(&(0..examples as usize));
        free_space(place.root, &dir, place.bound.saturating_sub(all))?;
        weights(runner)?;
        fill(runner, features, &mut reader, (set, &missing), place, observer).map_err(|e| match e {
            RunError::File { path, what } => RunError::File {
                what: format!("{what}; the kept features take {} MiB more there: free the space, or write a smaller `features = …` in the stage (`0B` keeps none)", need >> 20),
                path,
            },
            other => other,
        })?;
    }
    reader.note()?;
    Ok(reader)
}

/// The set's name: the hash of the weights and of the tokens.
fn key(set: &EncodedSet, place: Cache<'_>) -> Result<String, RunError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(place.identity.as_bytes());
    hasher.update(format!("{:?}", place.positions).as_bytes());
    for i in 0..to_u32(set.len()) {
        let example = set.get(i)?;
        hasher.update(&(example.ids.len() as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(&example.ids));
        hasher.update(&example.segments);
        hasher.update(&example.mask.to_le_bytes());
        if place.reads.is_some() {
            hasher.update(format!("{:?}", example.learned).as_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn open_files(dir: &Path, features: &Features) -> Result<Vec<Rowed>, RunError> {
    let mut files = Vec::with_capacity(features.kept.len());
    for kept in &features.kept {
        let Feed::Feature { width, of, .. } = kept.feed else {
            return Err(RunError::bug("a kept value has no row type"));
        };
        let stored = features.stored_of(kept.feed);
        let path = dir.join(format!("{}.{stored}", kept.id));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| durable::failed(&path, "open", &e))?;
        let notes = Notes::read(&path);
        files.push(Rowed {
            file,
            path,
            feed: kept.feed,
            rows: Layout {
                width: u64::from(width),
                of,
                stored,
            },
            stored,
            notes,
        });
    }
    Ok(files)
}

#[expect(
    clippy::too_many_arguments,
    reason = "a pass: what runs, on what, and who watches"
)]
fn fill(
    runner: &mut Runner,
    features: &Features,
    reader: &mut Reader,
    (set, missing): (&EncodedSet, &[Range<usize>]),
    place: Cache<'_>,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let want: Vec<Feed> = features.prefix.program().feeds().map(|(f, _)| f).collect();
    let mut noted = Instant::now();
    let all: usize = missing.iter().map(Range::len).sum();
    let mut done = reader.kept - all as u64;
    for range in missing {
        if let Some(signal) = observer.interrupted() {
            reader.note()?;
            return Err(RunError::interrupted(signal));
        }
        let indices: Vec<u32> = range.clone().map(to_u32).collect();
        let reads = place.reads.map(Reads::evaluation);
        let mut packed = pack(set, &indices, place.positions, reads, &want)?;
        if want.contains(&Feed::LossScale) {
            let one = Tensor::new(vec![1.0_f32], &[1]);
            packed.feeds.push((Feed::LossScale, one));
        }
        let outputs = runner.run(&features.prefix, packed.feeds, &packed.sizes)?;
        for (i, file) in reader.files.iter_mut().enumerate() {
            let made = outputs.get(&format!("feature.{i}"));
            let made = made.ok_or_else(|| RunError::bug("the prefix made no such value"))?;
            let (at, end) = file.rows.span(&reader.tokens, range);
            let blake3 = file.write(at, made)?;
            file.notes.put(Chunk {
                from: range.start as u64,
                to: range.end as u64,
                at,
                bytes: end - at,
                blake3,
            });
        }
        done += range.len() as u64;
        if noted.elapsed() >= NOTE_EVERY {
            reader.note()?;
            noted = Instant::now();
        }
        observer.event(Event::Kept {
            done,
            total: reader.kept,
        });
    }
    Ok(())
}

impl Reader {
    /// Says which chunks are whole, once they are on the disk.
    fn note(&mut self) -> Result<(), RunError> {
        for file in &mut self.files {
            file.notes.write(&file.path, &file.file)?;
        }
        Ok(())
    }

    /// The kept values of a batch: rows from the disk, and for examples that are not kept from the
    /// prefix, run now.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass: what runs, on what, and who watches"
    )]
    fn feeds(
        &self,
        runner: &mut Runner,
        features: &Features,
        set: &EncodedSet,
        indices: &[u32],
        positions: Positions,
    ) -> Result<Vec<(Feed, Tensor)>, RunError> {
        let missing: Vec<u32> = indices
            .iter()
            .copied()
            .filter(|&i| u64::from(i) >= self.kept)
            .collect();
        let mut made = Outputs::default();
        let mut reserved = 0;
        if !missing.is_empty() {
            let want: Vec<Feed> = features.prefix.program().feeds().map(|(f, _)| f).collect();
            let packed = pack(set, &missing, positions, None, &want)?;
            made = runner.run(&features.prefix, packed.feeds, &packed.sizes)?;
            reserved = made.bytes();
            runner.meter.alloc(reserved);
        }
        let made = &made;
        let tensors: Vec<Result<(Feed, Tensor), RunError>> = self
            .files
            .par_iter()
            .enumerate()
            .map(|(i, file)| {
                let rows: u64 = indices
                    .iter()
                    .map(|&e| file.rows(&self.tokens, e.into()).1)
                    .sum();
                let dims = [rows as usize, file.rows.width as usize];
                let made = made.get(&format!("feature.{i}"));
                let mut tensor = Tensor::zeros(file.feed.ty().stored, &dims);
                // Where the file holds what the program wants, bytes are copied; else rows in f32 are read, and
                // those made now rounded as if they had been kept.
                let as_stored = tensor.dtype() == file.stored;
                let size = file.rows.width * tensor.dtype().size();
                let mut rest = bytes_of_mut(&mut tensor);
                let mut fresh = made.map(bytes_of).unwrap_or_default();
                for &example in indices {
                    let (row, n) = file.rows(&self.tokens, example.into());
                    let (own, after) = rest.split_at_mut((n * size) as usize);
                    rest = after;
                    if u64::from(example) >= self.kept {
                        let (taken, after) =
                            fresh.split_at_checked(own.len()).ok_or_else(|| {
                                RunError::bug("the prefix made fewer rows than wanted")
                            })?;
                        own.copy_from_slice(taken);
                        fresh = after;
                        if !as_stored {
                            file.round(bytemuck::cast_slice_mut(own));
                        }
                    } else if as_stored {
                        file.read_as_stored(row, own)?;
                    } else {
                        file.read(row, bytemuck::cast_slice_mut(own))?;
                    }
                }
                Ok((file.feed, tensor))
            })
            .collect();
        let tensors: Vec<(Feed, Tensor)> = tensors.into_iter().collect::<Result<_, _>>()?;
        if reserved > 0 {
            runner
                .meter
                .scratch(tensors.iter().map(|(_, t)| t.bytes()).sum());
            runner.meter.free(reserved);
        }
        Ok(tensors)
    }
}

/// Kept values that the programs of a split read, if any.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// The examples.
    pub set: &'a EncodedSet,
    /// Position id of the first token.
    pub positions: Positions,
    /// Its kept rows.
    pub kept: Option<(&'a Features, &'a Reader)>,
    /// What was computed of each of them beforehand.
    pub reference: Option<(&'a Features, &'a Reader)>,
    /// Kept values that were just made, of these examples among others.
    pub made: Option<Made<'a>>,
    /// The scores of teachers.
    pub taught: Option<&'a Taught>,
}

impl Examples<'_> {
    /// The inputs of one run of a program on these examples, with the places that are read; scalars are
    /// the caller's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn batch(
        &self,
        runner: &mut Runner,
        program: &Program,
        indices: &[u32],
        reads: Option<ReadDraw<'_>>,
    ) -> Result<Packed, RunError> {
        let want: Vec<Feed> = program.feeds().map(|(f, _)| f).collect();
        let mut packed = pack(self.set, indices, self.positions, reads, &want)?;
        if let Some((features, reader)) = self.kept {
            // What is learned of a text changes nothing of its tokens; what is masked of it does.
            if matches!(reads, Some(ReadDraw::Masked(_))) {
                return Err(RunError::bug(
                    "features are kept of texts that are masked anew",
                ));
            }
            let feeds = reader.feeds(runner, features, self.set, indices, self.positions)?;
            packed
                .feeds
                .extend(feeds.into_iter().filter(|(f, _)| want.contains(f)));
        }
        if let Some(made) = self.made {
            packed.feeds.extend(made.feeds(self.set, indices)?);
        }
        if let Some((features, reader)) = self.reference {
            let feeds = reader.feeds(runner, features, self.set, indices, self.positions)?;
            packed
                .feeds
                .extend(feeds.into_iter().filter(|(f, _)| want.contains(f)));
        }
        if let Some(taught) = self.taught {
            let feed = taught.feed(indices)?;
            packed
                .feeds
                .extend(Some(feed).filter(|(f, _)| want.contains(f)));
        }
        Ok(packed)
    }
}

/// Removes the sets that were used longest ago until the others are within a bound. A set that is being
/// filled stays.
fn free_space(root: &Path, own: &Path, bound: u64) -> Result<(), RunError> {
    let list = fs::read_dir(root).map_err(|e| durable::failed(root, "list", &e))?;
    let mut sets: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for item in list.flatten() {
        let path = item.path();
        if path == own || !path.is_dir() {
            continue;
        }
        let size = sums::size(&path);
        sets.push((store::care::used(&path), path, size));
    }
    sets.sort();
    let mut total: u64 = sets.iter().map(|(_, _, n)| n).sum();
    for (_, path, size) in sets {
        if total <= bound {
            break;
        }
        if store::care::remove_set(&path, true)? {
            total -= size;
        }
    }
    Ok(())
}
