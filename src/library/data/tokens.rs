//! Tokenized splits: where each example is, and its tokens, in memory or in a file.
//!
//! ```text
//! "peftc tokens 5\n\0"                              16 bytes
//! for each example  ids u32 …, segments u8 …        in any order; the segment of a learned token plus 128
//! for each example  at u64, length u32, mask u32, label kind u32, label bits u32, BLAKE3 of its tokens u32,
//!                   row of the data files u32, tokens that are learned u32, task u32
//! lists of classes: length u32, classes u32 …         where rows have several; a label's bits are its list's place
//! hashes of the rows' texts u64 …                   ascending; none where the rows were not surveyed
//! names of the classes, what was seen of the rows   JSON
//! bytes before the examples' places u64, examples u64, numbers of lists u64, hashes u64, BLAKE3 of all between tokens and this
//! ```
//!
//! All numbers are little-endian. The file is a cache: whatever is wrong with it, it is made again.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::form::Supervision;
use super::positioned::read_at;
use super::report::{Findings, Survey};
use crate::base::world::{Keep, Kept};
use crate::library::counts::to_u32;

mod example;
mod joined;
mod row;

use row::{Label, PLACE, Row};

pub use example::{
    EncodedExample, Marking, marked, own_id, plain, unmarked, virtual_number, virtual_ones,
};

/// What a token file begins with.
const MAGIC: &[u8; 16] = b"peftc tokens 5\n\0";

/// Bytes of what a token file ends with.
const TRAILER: usize = 32 + blake3::OUT_LEN;

/// Bytes of a token: its id and its segment.
const TOKEN: u64 = 5;

/// What is to be predicted, or is predicted.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Nothing is known.
    None,
    /// A class.
    Class(u32),
    /// Several classes, ascending, each once; or none of them.
    Classes(Arc<Vec<u32>>),
    /// A class of each place that is read, in their order; [`CONTINUES`] marks those within a word.
    Each(Arc<Vec<u32>>),
    /// A number.
    Score(f32),
}

/// The bit of a label's class that is that of a piece within a word, whose first piece has a label, too.
pub const CONTINUES: u32 = 1 << 31;

#[derive(Debug)]
enum Backing {
    Memory(Vec<u8>),
    File(Kept),
}

/// A tokenized split, its examples in the order of the data.
#[derive(Debug)]
pub struct EncodedSet {
    rows: Vec<Row>,
    lists: Vec<u32>,
    backing: Backing,
}

/// Tokens that cannot be read back.
#[derive(Debug)]
pub struct Unread {
    /// Their file.
    pub path: PathBuf,
    /// What the file system says.
    pub cause: io::Error,
}

/// What a token file says of its split beside the tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// What was seen of the rows; `None` where they were not surveyed.
    pub survey: Option<Survey>,
    /// What the rows are known again by.
    pub rows_hash: Option<String>,
    /// Bytes that it took to make tokens of the texts, beside the tokens.
    pub making: u64,
    /// What of it a language model learns.
    pub supervision: Option<Supervision>,
}

/// The part of the notes that is written as JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    classes: Vec<String>,
    findings: Option<Findings>,
    #[serde(default)]
    rows_hash: Option<String>,
    #[serde(default)]
    making: u64,
    #[serde(default)]
    supervision: Option<Supervision>,
}

impl FromIterator<EncodedExample> for EncodedSet {
    fn from_iter<I: IntoIterator<Item = EncodedExample>>(examples: I) -> Self {
        let mut made = Maker::in_memory();
        for (place, example) in (0_u32..).zip(examples) {
            made.add(u64::from(place), place, &example);
        }
        made.finish_in_memory()
    }
}

impl EncodedSet {
    /// How many examples there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Tokens of each example.
    #[must_use]
    pub fn lengths(&self) -> Vec<u32> {
        self.rows.iter().map(|r| r.length).collect()
    }

    /// Tokens of one example.
    #[must_use]
    pub fn length(&self, example: u32) -> Option<u32> {
        self.rows.get(example as usize).map(|r| r.length)
    }

    /// How many tokens of each example a language model learns.
    #[must_use]
    pub fn learned(&self) -> Vec<u32> {
        self.rows.iter().map(|r| r.learned).collect()
    }

    /// How many tokens of an example a language model learns.
    #[must_use]
    pub fn learned_of(&self, example: u32) -> Option<u32> {
        self.rows.get(example as usize).map(|r| r.learned)
    }

    /// The place of an example's mask; of an option, its bytes.
    #[must_use]
    pub fn mask(&self, example: u32) -> Option<u32> {
        self.rows.get(example as usize).map(|r| r.mask)
    }

    /// Which row of the data files an example is, from 0.
    #[must_use]
    pub fn row(&self, example: u32) -> Option<u32> {
        self.rows.get(example as usize).map(|r| r.row)
    }

    /// What is to be predicted of an example.
    #[must_use]
    pub fn label(&self, example: u32) -> Option<Target> {
        self.rows
            .get(example as usize)
            .map(|r| self.target(r.label))
    }

    fn target(&self, label: Label) -> Target {
        match label {
            Label::None => Target::None,
            Label::Class(class) => Target::Class(class),
            Label::Score(score) => Target::Score(score),
            Label::List(at) => Target::Classes(Arc::new(self.list(at))),
            Label::Each(at) => Target::Each(Arc::new(self.list(at))),
        }
    }

    /// The list of classes at a place.
    fn list(&self, at: u32) -> Vec<u32> {
        let list = self.lists.get(at as usize..).unwrap_or_default();
        let (length, rest) = list.split_first().unwrap_or((&0, &[]));
        rest.get(..*length as usize).unwrap_or_default().to_vec()
    }

    /// The largest number of a task, from 0.
    #[must_use]
    pub fn last_task(&self) -> u32 {
        self.rows.iter().map(|r| r.task).max().unwrap_or(0)
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn heap_bytes(&self) -> u64 {
        let tokens = match &self.backing {
            Backing::Memory(bytes) => bytes.len() as u64,
            Backing::File(_) => 0,
        };
        let lists = self.lists.len() * size_of::<u32>();
        tokens + (self.rows.len() * size_of::<Row>() + lists) as u64
    }

    /// One example.
    ///
    /// # Errors
    /// Its file cannot be read, or there is no such example.
    pub fn get(&self, example: u32) -> Result<EncodedExample, Unread> {
        let unread = |cause: io::Error| Unread {
            path: match &self.backing {
                Backing::File(kept) => kept.path.clone(),
                Backing::Memory(_) => PathBuf::new(),
            },
            cause,
        };
        let row = self.rows.get(example as usize).copied();
        let row = row.ok_or_else(|| unread(io::ErrorKind::NotFound.into()))?;
        let n = row.length as usize;
        let bytes = match &self.backing {
            Backing::Memory(all) => {
                let own = all.get(row.at as usize..row.at as usize + TOKEN as usize * n);
                own.ok_or_else(|| unread(io::ErrorKind::UnexpectedEof.into()))?
                    .to_vec()
            }
            Backing::File(kept) => {
                let mut bytes = vec![0; TOKEN as usize * n];
                read_at(&kept.file, &mut bytes, row.at).map_err(unread)?;
                if check(&bytes) != row.check {
                    let damaged = io::Error::new(io::ErrorKind::InvalidData, "they are damaged");
                    return Err(unread(damaged));
                }
                bytes
            }
        };
        let (ids, segments) = bytes.split_at(4 * n);
        let ids = ids.as_chunks::<4>().0;
        Ok(EncodedExample {
            ids: ids.iter().map(|&id| u32::from_le_bytes(id)).collect(),
            learned: example::ranges(segments),
            segments: segments.iter().map(|s| s % example::LEARNED).collect(),
            mask: row.mask,
            label: self.target(row.label),
            task: row.task,
        })
    }

    /// The set in a file that [`Maker::finish`] left, and what it says beside; `None` if the file is not
    /// whole.
    #[must_use]
    pub fn open(kept: Kept) -> Option<(Self, Notes)> {
        let size = usize::try_from(kept.file.metadata().ok()?.len()).ok()?;
        let behind = size.checked_sub(TRAILER)?;
        let piece = |from: usize, to: usize| -> Option<Vec<u8>> {
            let mut bytes = vec![0; to.checked_sub(from)?];
            read_at(&kept.file, &mut bytes, from as u64).ok()?;
            Some(bytes)
        };
        let (magic, trailer) = (piece(0, MAGIC.len())?, piece(behind, size)?);
        let (numbers, hash) = trailer.split_first_chunk::<32>()?;
        let [begin, count, lists, texts] = *numbers.as_chunks::<8>().0 else {
            return None;
        };
        let begin = usize::try_from(u64::from_le_bytes(begin)).ok()?;
        let count = usize::try_from(u64::from_le_bytes(count)).ok()?;
        let lists = usize::try_from(u64::from_le_bytes(lists)).ok()?;
        let texts = usize::try_from(u64::from_le_bytes(texts)).ok()?;
        let lists_at = begin.checked_add(count.checked_mul(PLACE)?)?;
        let texts_at = lists_at.checked_add(lists.checked_mul(4)?)?;
        let names_at = texts_at.checked_add(texts.checked_mul(8)?)?;
        if magic != MAGIC || names_at > behind {
            return None;
        }
        let tail = piece(begin, behind)?;
        if blake3::hash(&tail).as_bytes() != hash {
            return None;
        }
        let (places, rest) = tail.split_at_checked(lists_at - begin)?;
        let (lists, rest) = rest.split_at_checked(texts_at - lists_at)?;
        let (texts, names) = rest.split_at_checked(names_at - texts_at)?;
        let rows: Option<Vec<Row>> = places
            .as_chunks::<PLACE>()
            .0
            .iter()
            .map(|bytes| {
                Row::read(bytes).filter(|r| r.at + TOKEN * u64::from(r.length) <= begin as u64)
            })
            .collect();
        let set = Self {
            rows: rows?,
            lists: lists
                .as_chunks::<4>()
                .0
                .iter()
                .map(|n| u32::from_le_bytes(*n))
                .collect(),
            backing: Backing::File(kept),
        };
        let written: Written = serde_json::from_slice(names).ok()?;
        let texts = texts.as_chunks::<8>().0.iter();
        let texts = texts.map(|hash| u64::from_le_bytes(*hash)).collect();
        let notes = Notes {
            classes: written.classes,
            making: written.making,
            supervision: written.supervision,
            survey: written.findings.map(|findings| Survey { findings, texts }),
            rows_hash: written.rows_hash,
        };
        Some((set, notes))
    }
}

/// What tokens are known again by.
fn check(tokens: &[u8]) -> u32 {
    let hash = blake3::hash(tokens);
    hash.as_bytes()
        .first_chunk()
        .map_or(0, |four| u32::from_le_bytes(*four))
}

/// Makes a set out of examples that come in any order.
pub struct Maker {
    rows: Vec<(u64, Row)>,
    lists: Vec<u32>,
    at: u64,
    bytes: Vec<u8>,
    file: Option<Box<dyn Keep>>,
}

impl Maker {
    /// A set whose tokens stay in memory.
    #[must_use]
    pub const fn in_memory() -> Self {
        Self {
            rows: Vec::new(),
            lists: Vec::new(),
            at: 0,
            bytes: Vec::new(),
            file: None,
        }
    }

    /// A set whose tokens go into a file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn in_file(mut file: Box<dyn Keep>) -> io::Result<Self> {
        file.write_all(MAGIC)?;
        Ok(Self {
            at: MAGIC.len() as u64,
            file: Some(file),
            ..Self::in_memory()
        })
    }

    /// Adds the example that is the `place`th of the set and that `row` of the data files.
    pub fn add(&mut self, place: u64, row: u32, example: &EncodedExample) {
        let begin = self.bytes.len();
        self.bytes
            .extend(example.ids.iter().flat_map(|id| id.to_le_bytes()));
        self.bytes.extend(example.marked_segments());
        let label = match &example.label {
            Target::None => Label::None,
            Target::Class(class) => Label::Class(*class),
            Target::Score(score) => Label::Score(*score),
            Target::Classes(list) => Label::List(self.keep(list)),
            Target::Each(list) => Label::Each(self.keep(list)),
        };
        let row = Row {
            at: self.at,
            length: to_u32(example.ids.len()),
            mask: example.mask,
            label,
            check: check(self.bytes.get(begin..).unwrap_or_default()),
            row,
            learned: example.learned_tokens(),
            task: example.task,
        };
        self.rows.push((place, row));
        self.at += TOKEN * example.ids.len() as u64;
    }

    /// Keeps a list of classes, and gives its place.
    fn keep(&mut self, list: &[u32]) -> u32 {
        let at = to_u32(self.lists.len());
        self.lists.push(to_u32(list.len()));
        self.lists.extend_from_slice(list);
        at
    }

    /// Writes what was added, where the tokens go into a file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    fn ordered(&mut self) -> Vec<Row> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_unstable_by_key(|(place, _)| *place);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn finish_in_memory(mut self) -> EncodedSet {
        EncodedSet {
            rows: self.ordered(),
            lists: self.lists,
            backing: Backing::Memory(self.bytes),
        }
    }

    /// The set; its file, if it goes into one, has the notes, too.
    ///
    /// # Errors
    /// What the file system says.
    pub fn finish(mut self, notes: &Notes) -> io::Result<EncodedSet> {
        self.flush()?;
        let begin = self.at;
        let Some(mut file) = self.file.take() else {
            return Ok(self.finish_in_memory());
        };
        let rows = self.ordered();
        let mut tail: Vec<u8> = rows.iter().flat_map(|r| r.write()).collect();
        tail.extend(self.lists.iter().flat_map(|n| n.to_le_bytes()));
        let survey = notes.survey.as_ref();
        let texts = survey.map_or(&[][..], |s| s.texts.as_slice());
        tail.extend(texts.iter().flat_map(|hash| hash.to_le_bytes()));
        tail.extend(serde_json::to_vec(&Written {
            classes: notes.classes.clone(),
            findings: survey.map(|s| s.findings.clone()),
            rows_hash: notes.rows_hash.clone(),
            making: notes.making,
            supervision: notes.supervision,
        })?);
        file.write_all(&tail)?;
        file.write_all(&begin.to_le_bytes())?;
        file.write_all(&(rows.len() as u64).to_le_bytes())?;
        file.write_all(&(self.lists.len() as u64).to_le_bytes())?;
        file.write_all(&(texts.len() as u64).to_le_bytes())?;
        file.write_all(blake3::hash(&tail).as_bytes())?;
        Ok(EncodedSet {
            rows,
            lists: self.lists,
            backing: Backing::File(file.done()?),
        })
    }
}

#[cfg(test)]
mod tests;
