//! A data file as bytes: plain, gzip or Zstandard, read from a file or from memory as often as wanted.
//!
//! **Invariant:** a file is read at its places and never mapped, so one that shrinks is an error; what unpacking may
//! give and what a row may take are bounded.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::DataError;
use super::positioned::read_some_at;
use crate::base::world::World;

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 17;

/// What a packed file may always unpack to.
const ALWAYS: u64 = 64 << 20;

/// How many times its own size a packed file may unpack to beyond that.
const MOST_TIMES: u64 = 256;

/// The largest row that is read.
pub(super) const MOST_ROW: usize = 16 << 20;

/// The most columns a row has.
pub(super) const MOST_COLUMNS: usize = 1 << 16;

/// Endings of packed files.
pub const PACKED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];

/// A file to be read.
#[derive(Clone, Debug)]
pub struct Input {
    contents: Contents,
    size: u64,
    /// Whether it was unpacked to its end, within the bound.
    unpacks: Arc<OnceLock<()>>,
    /// Its name in errors.
    pub file: String,
}

#[derive(Clone, Debug)]
enum Contents {
    Memory(Bytes),
    File(Arc<File>),
}

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// The most that so many bytes may unpack to.
pub(super) const fn most_unpacked(size: u64) -> u64 {
    let most = size.saturating_mul(MOST_TIMES);
    if most > ALWAYS { most } else { ALWAYS }
}

impl Input {
    /// Opens a file.
    ///
    /// # Errors
    /// When there is none, or it is no file but a directory, a pipe or a device.
    pub fn open(path: &Path, world: &dyn World) -> Result<Self, DataError> {
        let (file, size) = world.open(path)?;
        Ok(Self {
            contents: Contents::File(Arc::new(file)),
            size,
            unpacks: Arc::default(),
            file: path.display().to_string(),
        })
    }

    /// Bytes in memory, with a name for errors.
    #[must_use]
    pub fn memory(bytes: impl Into<Bytes>, file: impl Into<String>) -> Self {
        let bytes = bytes.into();
        Self {
            size: bytes.len() as u64,
            contents: Contents::Memory(bytes),
            unpacks: Arc::default(),
            file: file.into(),
        }
    }

    /// Bytes it has, packed as it is.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Its bytes from a place on, as they are stored.
    #[must_use]
    pub fn stored(&self, at: u64) -> Stored {
        Stored {
            contents: self.contents.clone(),
            at,
            end: self.size,
        }
    }

    /// Some of its bytes, as they are stored.
    ///
    /// # Errors
    /// When they cannot be read: the file may have become shorter.
    pub fn part(&self, at: u64, length: usize) -> io::Result<Bytes> {
        match &self.contents {
            Contents::Memory(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let to = from.checked_add(length).filter(|&to| to <= bytes.len());
                to.map(|to| bytes.slice(from..to))
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Contents::File(_) => {
                let mut part = Vec::new();
                self.stored(at).take(length as u64).read_to_end(&mut part)?;
                if part.len() == length {
                    Ok(part.into())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
            }
        }
    }

    /// Its text from the beginning, unpacked and without a byte order mark. A packed file is unpacked to its end once before a
    /// row is read: one that is damaged or unpacks to too much is refused at once, whatever its rows are.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self) -> Result<Box<dyn BufRead>, DataError> {
        let wrong = |error: io::Error| self.unread(&error);
        let mut head = [0; 4];
        let n = read_up_to(&mut self.stored(0), &mut head).map_err(wrong)?;
        let packing = match head.get(..n).unwrap_or_default() {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
            _ => Packing::Plain,
        };
        if packing != Packing::Plain && self.unpacks.get().is_none() {
            let mut whole = self.unpacked(packing).map_err(wrong)?;
            io::copy(&mut whole, &mut io::sink()).map_err(wrong)?;
            self.unpacks.get_or_init(|| ());
        }
        let mut text = self.unpacked(packing).map_err(wrong)?;
        if text.fill_buf().map_err(wrong)?.starts_with(b"\xEF\xBB\xBF") {
            text.consume(3);
        }
        Ok(text)
    }

    /// Its bytes from the beginning, unpacked up to the bound.
    fn unpacked(&self, packing: Packing) -> io::Result<Box<dyn BufRead>> {
        let stored = BufReader::with_capacity(BLOCK, self.stored(0));
        let from: Box<dyn Read> = match packing {
            Packing::Plain => return Ok(Box::new(stored)),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stored)?),
        };
        let bounded = Bounded::new(from, most_unpacked(self.size));
        Ok(Box::new(BufReader::with_capacity(BLOCK, bounded)))
    }

    /// The error of bytes that could not be read.
    #[must_use]
    pub fn unread(&self, error: &io::Error) -> DataError {
        let wrong = DataError::new(self.file.as_str(), format!("it cannot be read: {error}"));
        match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong.help(
                "the file is cut short, or became shorter while it was read; write it again and leave it alone meanwhile",
            ),
            io::ErrorKind::FileTooLarge => {
                wrong.help("unpack it yourself, if it is what you meant")
            }
            _ => wrong.help("the file may be damaged; check it and the disk"),
        }
    }
}

/// The bytes of a file from a place on.
#[derive(Debug)]
pub struct Stored {
    contents: Contents,
    at: u64,
    end: u64,
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else {
            return Ok(0);
        };
        let n = match &self.contents {
            Contents::Memory(bytes) => {
                let rest = usize::try_from(self.at).ok().and_then(|at| bytes.get(at..));
                let mut rest = rest.unwrap_or_default();
                rest.read(into)?
            }
            Contents::File(file) => read_some_at(file, into, self.at)?,
        };
        // The file had more when it was opened.
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// What is unpacked, up to a bound.
struct Bounded<R> {
    from: R,
    given: u64,
    most: u64,
}

impl<R> Bounded<R> {
    const fn new(from: R, most: u64) -> Self {
        Self {
            from,
            given: 0,
            most,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        self.given += n as u64;
        if self.given > self.most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!(
                    "it unpacks to more than {} MiB, over {MOST_TIMES} times its own size",
                    self.most >> 20
                ),
            ));
        }
        Ok(n)
    }
}

/// Reads until `into` is full or the end is reached.
fn read_up_to(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = into.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// The lines of a text, with their numbers from 1.
pub struct Lines<'a> {
    input: &'a Input,
    from: Box<dyn BufRead>,
    line: Vec<u8>,
    /// The number of the line that was read last.
    pub number: u64,
}

impl<'a> Lines<'a> {
    /// The lines of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(input: &'a Input) -> Result<Self, DataError> {
        Ok(Self {
            input,
            from: input.text()?,
            line: Vec::new(),
            number: 0,
        })
    }

    /// The next line without its end, and whether it had one; `None` behind the last.
    ///
    /// # Errors
    /// When it cannot be read, is too long, or is not UTF-8.
    pub fn read(&mut self) -> Result<Option<(&str, bool)>, DataError> {
        self.line.clear();
        self.number += 1;
        let most = MOST_ROW as u64 + 1;
        let read = (&mut self.from)
            .take(most)
            .read_until(b'\n', &mut self.line)
            .map_err(|error| self.input.unread(&error))?;
        if read as u64 == most && self.line.last() != Some(&b'\n') {
            return Err(too_long(&self.input.file, self.number));
        }
        if read == 0 {
            return Ok(None);
        }
        let mut line = self.line.as_slice();
        let ended = line.last() == Some(&b'\n');
        if ended {
            line = line.strip_suffix(b"\n").unwrap_or(line);
            line = line.strip_suffix(b"\r").unwrap_or(line);
        }
        match std::str::from_utf8(line) {
            Ok(line) => Ok(Some((line, ended))),
            Err(_) => Err(no_text(&self.input.file, self.number)),
        }
    }
}

/// The error of a row beyond the bound.
pub(super) fn too_long(file: &str, line: u64) -> DataError {
    DataError::new(
        file,
        format!("the row is longer than {} MiB", MOST_ROW >> 20),
    )
    .at(line)
    .help(
        "no model reads so much; check the line ends and the format of the file, or split the text",
    )
}

/// The error of a row with too many columns.
pub(super) fn too_wide(file: &str, line: u64) -> DataError {
    DataError::new(file, format!("the row has more than {MOST_COLUMNS} cells"))
        .at(line)
        .help("check the line ends and the format of the file")
}

/// The error of bytes that are no text.
pub(super) fn no_text(file: &str, line: u64) -> DataError {
    DataError::new(file, "this is not UTF-8 text")
        .at(line)
        .help("save the file as UTF-8")
}
