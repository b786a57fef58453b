//! Kept results of a model's frozen part: files of rows in the store, filled once in the order of the
//! data, read by every batch.
//!
//! ```text
//! STORE/features/<set>/<value>.f32     the rows of one value: examples one after another (`.bf16`, `.f16`: so held, or rounded)
//! STORE/features/<set>/<value>.json    how many examples are whole (`.bf16.json`)
//! STORE/features/<set>/used            touched by each run that reads them
//! ```
//!
//! A set is named by the hash of the weights and of the tokens, a value by the expression that makes it,
//! so stages, sweep points and recipes that need the same rows share them.
//!
//! **Invariant:** rows counted in the `.json` are on the disk; what is behind them is written again.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use half::bf16;
use rayon::prelude::*;
use serde_json::{Value as Json, json};

use super::machine::{Outputs, Runner};
use super::observe::{Event, Observer};
use super::store;
use crate::files::RunError;
use crate::files::durable;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::library::data::batch::{Packed, pack};
use crate::library::data::positioned::{read_at, write_at};
use crate::library::data::tokens::EncodedSet;
use crate::library::masking::Draw;
use crate::library::stage::job::Features;
use crate::plan::features::chunks;
use crate::program::op::Tensor;
use crate::program::{DType, Feed, Program, Rows};

/// Name of their directory in the store.
pub const DIR: &str = "features";

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

/// A file of rows.
#[derive(Debug)]
struct Rowed {
    file: File,
    path: PathBuf,
    feed: Feed,
    width: u64,
    of: Rows,
    stored: DType,
}

impl Rowed {
    /// Where an example's rows are: the first, and how many.
    fn rows(&self, tokens: &[u64], example: u64) -> (u64, u64) {
        let at = |i: u64| tokens.get(i as usize).copied().unwrap_or(0);
        match self.of {
            Rows::Tokens => (at(example), at(example + 1).saturating_sub(at(example))),
            Rows::Sequences => (example, 1),
        }
    }

    fn offset(&self, row: u64) -> u64 {
        row * self.width * self.stored.size()
    }

    /// Writes rows from one on, in the numbers that are stored.
    fn write(&self, row: u64, rows: &Tensor) -> Result<(), RunError> {
        let failed = |e| durable::failed(&self.path, "write", &e);
        if self.stored == rows.dtype() {
            return write_at(&self.file, bytes_of(rows), self.offset(row)).map_err(failed);
        }
        let rows = rows.slice::<f32>().unwrap_or_default();
        let mut halves = [0_u16; 1 << 13];
        let mut at = self.offset(row);
        for piece in rows.chunks(halves.len()) {
            for (half, x) in halves.iter_mut().zip(piece) {
                *half = bf16::from_f32(*x).to_bits();
            }
            let own = halves.get(..piece.len()).unwrap_or_default();
            write_at(&self.file, bytemuck::cast_slice(own), at).map_err(failed)?;
            at += 2 * piece.len() as u64;
        }
        Ok(())
    }

    /// Reads rows from one on, as many as `rows` takes, into numbers of the type that is stored.
    fn read_as_stored(&self, row: u64, rows: &mut [u8]) -> Result<(), RunError> {
        read_at(&self.file, rows, self.offset(row))
            .map_err(|e| durable::failed(&self.path, "read", &e))
    }

    /// Reads rows from one on, as many as `rows` takes, widened.
    fn read(&self, row: u64, rows: &mut [f32]) -> Result<(), RunError> {
        if self.stored == DType::F32 {
            return self.read_as_stored(row, bytemuck::cast_slice_mut(rows));
        }
        // They are read into the second half of their place and widened from the front: a number is
        // never written over one that is still to be read.
        let n = rows.len();
        let halves: &mut [u16] = bytemuck::cast_slice_mut(rows);
        let behind = halves.get_mut(n..).unwrap_or_default();
        self.read_as_stored(row, bytemuck::cast_slice_mut(behind))?;
        for i in 0..n {
            let bits = halves.get(n + i).copied().unwrap_or_default();
            let wide: [u16; 2] = bytemuck::cast(bf16::from_bits(bits).to_f32());
            if let Some(own) = halves.get_mut(2 * i..2 * i + 2) {
                own.copy_from_slice(&wide);
            }
        }
        Ok(())
    }

    /// What writing and reading makes of numbers.
    fn round(&self, rows: &mut [f32]) {
        if self.stored == DType::BF16 {
            for x in rows {
                *x = bf16::from_f32(*x).to_f32();
            }
        }
    }
}

/// What a filling works on.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The store's directory of features.
    pub root: &'a Path,
    /// What the rows are made with, beside the tokens.
    pub identity: &'a str,
    /// Position id of the first token.
    pub first_position: u64,
    /// Most bytes of all sets together.
    pub bound: u64,
}

/// Opens the kept rows of a split after filling what is missing of them; `weights` brings the prefix'
/// residents, if they are needed.
///
/// # Errors
/// What the file system says (a full disk: what is whole stays), or an interruption.
pub fn open(
    runner: &mut Runner,
    features: &Features,
    (set, examples): (&EncodedSet, u64),
    place: Place<'_>,
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
    let _lock = wait_for(&dir, observer)?;
    let mut reader = Reader {
        files: open_files(&dir, features)?,
        tokens,
        kept: examples,
    };
    let used = dir.join("used");
    File::create(&used).map_err(|e| durable::failed(&used, "create", &e))?;
    let whole = reader
        .files
        .iter()
        .map(|f| count(&state_path(&f.path)))
        .min();
    let whole = whole.unwrap_or(0);
    if whole < examples {
        let rows = |n: u64| -> u64 {
            let each = reader
                .files
                .iter()
                .map(|f| f.offset(f.rows(&reader.tokens, n).0));
            each.sum()
        };
        let need = rows(examples) - rows(whole);
        make_room(place.root, &dir, place.bound.saturating_sub(rows(examples)))?;
        weights(runner)?;
        fill(runner, features, &mut reader, (set, whole), place, observer).map_err(|e| match e {
            RunError::File { path, what } => RunError::File {
                what: format!("{what}; the kept features take {} MiB more there: free the space, or write a smaller `features = …` in the stage (`0B` keeps none)", need >> 20),
                path,
            },
            other => other,
        })?;
    }
    Ok(reader)
}

/// The set's name: the hash of the weights and of the tokens.
fn key(set: &EncodedSet, place: Place<'_>) -> Result<String, RunError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(place.identity.as_bytes());
    hasher.update(&place.first_position.to_le_bytes());
    for i in 0..set.len() as u32 {
        let example = set.get(i)?;
        hasher.update(&(example.ids.len() as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(&example.ids));
        hasher.update(&example.segments);
        hasher.update(&example.mask.to_le_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Takes a set's lock, waiting for another process that fills it.
fn wait_for(dir: &Path, observer: &mut dyn Observer) -> Result<File, RunError> {
    let mut said = false;
    loop {
        match store::try_lock(dir)? {
            Ok(lock) => return Ok(lock),
            Err(who) if !said => {
                observer.event(Event::Note(&format!(
                    "waiting: {who} is filling the same features"
                )));
                said = true;
            }
            Err(_) => {}
        }
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::Interrupted { signal });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
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
        files.push(Rowed {
            file,
            path,
            feed: kept.feed,
            width: u64::from(width),
            of,
            stored,
        });
    }
    Ok(files)
}

fn state_path(path: &Path) -> PathBuf {
    match path.extension().and_then(|e| e.to_str()) {
        Some("f32") | None => path.with_extension("json"),
        Some(stored) => path.with_extension(format!("{stored}.json")),
    }
}

/// Examples that are whole, by a file's note; a damaged or missing one means none.
fn count(path: &Path) -> u64 {
    let json: Option<Json> = fs::read(path)
        .ok()
        .and_then(|t| serde_json::from_slice(&t).ok());
    json.and_then(|j| j.get("examples")?.as_u64()).unwrap_or(0)
}

fn fill(
    runner: &mut Runner,
    features: &Features,
    reader: &mut Reader,
    (set, from): (&EncodedSet, u64),
    place: Place<'_>,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    let want: Vec<Feed> = features.prefix.program().feeds().map(|(f, _)| f).collect();
    let mut noted = Instant::now();
    for range in chunks(&set.lengths(), reader.kept) {
        if range.end as u64 <= from {
            continue;
        }
        if let Some(signal) = observer.interrupted() {
            reader.note(range.start as u64)?;
            return Err(RunError::Interrupted { signal });
        }
        let indices: Vec<u32> = range.clone().map(|i| i as u32).collect();
        let packed = pack(set, &indices, place.first_position, None, &want)?;
        let outputs = runner.run(&features.prefix, packed.feeds, &packed.sizes)?;
        for (i, file) in reader.files.iter().enumerate() {
            let (row, _) = file.rows(&reader.tokens, range.start as u64);
            let made = outputs.get(&format!("feature.{i}"));
            let made = made.ok_or_else(|| RunError::bug("the prefix made no such value"))?;
            file.write(row, made)?;
        }
        if noted.elapsed() >= NOTE_EVERY {
            reader.note(range.end as u64)?;
            noted = Instant::now();
        }
        observer.event(Event::Kept {
            done: range.end as u64,
            total: reader.kept,
        });
    }
    reader.note(reader.kept)
}

impl Reader {
    /// Says how many examples are whole, once they are on the disk.
    fn note(&self, examples: u64) -> Result<(), RunError> {
        for file in &self.files {
            file.file
                .sync_data()
                .map_err(|e| durable::failed(&file.path, "sync", &e))?;
            let text = json!({ "examples": examples }).to_string();
            durable::write_bytes(&state_path(&file.path), false, text.as_bytes())?;
        }
        Ok(())
    }

    /// The kept values of a batch: rows from the disk, and for examples that are not kept from the
    /// prefix, run now.
    fn feeds(
        &self,
        runner: &mut Runner,
        features: &Features,
        set: &EncodedSet,
        indices: &[u32],
        first_position: u64,
    ) -> Result<Vec<(Feed, Tensor)>, RunError> {
        let missing: Vec<u32> = indices
            .iter()
            .copied()
            .filter(|&i| u64::from(i) >= self.kept)
            .collect();
        let mut made = Outputs::default();
        let mut held = 0;
        if !missing.is_empty() {
            let want: Vec<Feed> = features.prefix.program().feeds().map(|(f, _)| f).collect();
            let packed = pack(set, &missing, first_position, None, &want)?;
            made = runner.run(&features.prefix, packed.feeds, &packed.sizes)?;
            held = made.bytes();
            runner.meter.alloc(held);
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
                let dims = [rows as usize, file.width as usize];
                let made = made.get(&format!("feature.{i}"));
                let mut tensor = Tensor::zeros(file.feed.ty().stored, &dims);
                // Where the file holds what the program wants, bytes are copied; else rows in f32 are read, and
                // those made now rounded as if they had been kept.
                let as_stored = tensor.dtype() == file.stored;
                let size = file.width * tensor.dtype().size();
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
        if held > 0 {
            runner
                .meter
                .scratch(tensors.iter().map(|(_, t)| t.bytes()).sum());
            runner.meter.free(held);
        }
        Ok(tensors)
    }
}

/// Kept values that the programs of a split read, if any.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The examples.
    pub set: &'a EncodedSet,
    /// Position id of the first token.
    pub first_position: u64,
    /// Its kept rows.
    pub kept: Option<(&'a Features, &'a Reader)>,
}

impl Source<'_> {
    /// The inputs of one run of a program on these examples, masked where there are masks; scalars are
    /// the caller's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn batch(
        &self,
        runner: &mut Runner,
        program: &Program,
        indices: &[u32],
        masks: Option<Draw<'_>>,
    ) -> Result<Packed, RunError> {
        let want: Vec<Feed> = program.feeds().map(|(f, _)| f).collect();
        let mut packed = pack(self.set, indices, self.first_position, masks, &want)?;
        if let Some((features, reader)) = self.kept {
            if masks.is_some() {
                return Err(RunError::bug(
                    "features are kept of texts that are masked anew",
                ));
            }
            let feeds = reader.feeds(runner, features, self.set, indices, self.first_position)?;
            packed
                .feeds
                .extend(feeds.into_iter().filter(|(f, _)| want.contains(f)));
        }
        Ok(packed)
    }
}

/// Removes the sets that were used longest ago until the others are within a bound. A set that is being
/// filled stays.
fn make_room(root: &Path, own: &Path, bound: u64) -> Result<(), RunError> {
    let list = fs::read_dir(root).map_err(|e| durable::failed(root, "list", &e))?;
    let mut sets: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for item in list.flatten() {
        let path = item.path();
        if path == own || !path.is_dir() {
            continue;
        }
        let size = fs::read_dir(&path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|f| f.metadata().ok())
            .map(|m| m.len())
            .sum();
        let used = fs::metadata(path.join("used")).and_then(|m| m.modified());
        sets.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path, size));
    }
    sets.sort();
    let mut total: u64 = sets.iter().map(|(_, _, n)| n).sum();
    for (_, path, size) in sets {
        if total <= bound {
            break;
        }
        if let Ok(_lock) = store::try_lock(&path)? {
            durable::remove_dir(&path)?;
            total -= size;
        }
    }
    Ok(())
}
