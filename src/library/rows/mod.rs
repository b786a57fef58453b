//! Whole rows of tables, read and written one after another: what `predict` goes over and adds to. Training reads the
//! columns it needs with [`super::data`].
//!
//! **Invariant:** as many rows are read as there are, in their order, or there is an error; a bounded number of them is
//! held at a time.

mod conll;
mod delimited;
mod jsonl;
mod parquet;
mod sink;

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::data::DataError;
use super::data::conll::CONLL;
use super::data::source::PACKED;
use crate::base::suggest;
use crate::base::world::WorldError;

pub use sink::{Added, Sink, Unwritten, sink};
use sink::{columns_of, only, taken};

/// Bytes of a row at most.
const LONGEST: u64 = 64 << 20;

/// Bytes that show a format.
const HEAD: usize = 1 << 16;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header, then rows; quoted cells may hold commas, quotes and line ends.
    Csv,
    /// A header, then rows; nothing is quoted.
    Tsv,
    /// An object a line.
    Jsonl,
    /// Columns in a binary file.
    Parquet,
    /// A word a line, and a blank line behind each sentence; it is read alone.
    Conll,
}

impl Format {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Jsonl => "JSONL",
            Self::Parquet => "Parquet",
            Self::Conll => "CoNLL",
        }
    }

    /// The format that a file's ending stands for.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let ending = |path: &Path| Some(path.extension()?.to_str()?.to_lowercase());
        let own = ending(path)?;
        // What is packed has the format's ending before that of the packing.
        let own = if PACKED.contains(&own.as_str()) {
            ending(Path::new(path.file_stem()?))?
        } else {
            own
        };
        match own.as_str() {
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            own if CONLL.extensions.contains(&own) => Some(Self::Conll),
            _ => None,
        }
    }

    /// The format that the first bytes of a file stand for; `None` where a header has one column alone, which is both
    /// CSV and TSV.
    #[must_use]
    fn guess(head: &[u8]) -> Option<Self> {
        let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
        if head.starts_with(b"PAR1") {
            return Some(Self::Parquet);
        }
        let first = head.iter().find(|b| !b.is_ascii_whitespace());
        if first == Some(&b'{') {
            return Some(Self::Jsonl);
        }
        let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
        if line.contains(&b'\t') {
            Some(Self::Tsv)
        } else if line.contains(&b',') || line.contains(&b'"') {
            Some(Self::Csv)
        } else {
            None
        }
    }
}

/// A row.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its number, from 1; a header is none.
    pub row: u64,
    /// What it holds, by column.
    pub fields: Map<String, Json>,
    /// The object as it is written, in JSONL.
    pub raw: Option<String>,
}

impl Record {
    /// The texts in some columns; `None` where one of them is null or not there.
    ///
    /// # Errors
    /// A list or an object stands there.
    pub fn texts(&self, columns: &[String], file: &str) -> Result<Option<Vec<String>>, DataError> {
        let mut texts = Vec::with_capacity(columns.len());
        for column in columns {
            match at(&self.fields, column) {
                None | Some(Json::Null) => return Ok(None),
                Some(Json::String(text)) => texts.push(text.clone()),
                Some(Json::Bool(value)) => texts.push(value.to_string()),
                Some(Json::Number(number)) => texts.push(number.to_string()),
                Some(Json::Array(_) | Json::Object(_)) => {
                    return Err(wrong(
                        file,
                        self.row,
                        format!("`{column}` is a list or an object, where a text belongs"),
                    ));
                }
            }
        }
        Ok(Some(texts))
    }

    /// The words in a column: a list of texts, or in a text a list in JSON; `None` where nothing is there.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn words(&self, column: &str, file: &str) -> Result<Option<Vec<String>>, DataError> {
        let refused = || {
            wrong(file, self.row, format!("`{column}` is no list of words"))
                .help("words are a list of texts: [\"a\", \"list\"]")
        };
        let parsed;
        let list = match at(&self.fields, column) {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::Array(list)) => list,
            Some(Json::String(text)) => {
                parsed = serde_json::from_str::<Vec<Json>>(text.trim()).map_err(|_| refused())?;
                &parsed
            }
            Some(_) => return Err(refused()),
        };
        let word = |value: &Json| match value {
            Json::String(text) => Some(text.clone()),
            Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let words: Option<Vec<String>> = list.iter().map(word).collect();
        words.map(Some).ok_or_else(refused)
    }

    /// Whether a column is there.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        at(&self.fields, column).is_some()
    }
}

/// A column, or a place within one: `data.text`.
#[must_use]
pub fn at<'a>(fields: &'a Map<String, Json>, column: &str) -> Option<&'a Json> {
    if let Some(value) = fields.get(column) {
        return Some(value);
    }
    let (outer, inner) = column.split_once('.')?;
    at(fields.get(outer)?.as_object()?, inner)
}

/// An error at a row.
fn wrong(file: &str, row: u64, message: impl AsRef<str>) -> DataError {
    DataError::new(file, format!("row {row}: {}", message.as_ref()))
}

/// Rows as they come.
pub trait Rows {
    /// The columns, where all rows have the same.
    fn columns(&self) -> Option<&[String]>;

    /// The next row.
    ///
    /// # Errors
    /// It cannot be read.
    fn next(&mut self) -> Option<Result<Record, DataError>>;
}

/// A file that rows are read from.
#[derive(Debug)]
pub struct Opened {
    /// How its rows are written.
    pub format: Format,
    /// Whether its content showed that.
    pub guessed: bool,
    input: Input,
}

/// Where bytes come from.
enum Input {
    /// One after another.
    Stream(Box<dyn BufRead>),
    /// From any place.
    File(File),
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("input")
    }
}

/// Opens standard input, packed or not.
///
/// # Errors
/// It cannot be read, or is Parquet, which is read from any place.
pub fn open_stream(
    input: Box<dyn BufRead>,
    asked: Option<Format>,
    unclear: Format,
    name: &str,
) -> Result<Opened, DataError> {
    let (head, input) = peeked(input, name)?;
    let whole = Cursor::new(head.clone()).chain(input);
    // Once: what is packed twice is no text.
    let (head, input): (Vec<u8>, Box<dyn BufRead>) = match head.as_slice() {
        [0x1f, 0x8b, ..] => {
            let unpacked = flate2::bufread::MultiGzDecoder::new(whole);
            peeked(Box::new(BufReader::new(unpacked)), name)?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let unpacked = zstd::stream::read::Decoder::with_buffer(whole);
            let unpacked = unpacked.map_err(|e| DataError::new(name, e.to_string()))?;
            peeked(Box::new(BufReader::new(unpacked)), name)?
        }
        _ => {
            let (_, input) = whole.into_inner();
            (head, input)
        }
    };
    in_format(head, input, asked, unclear, name)
}

/// The beginning of a stream, and what follows it.
fn peeked(
    mut input: Box<dyn BufRead>,
    name: &str,
) -> Result<(Vec<u8>, Box<dyn BufRead>), DataError> {
    let mut head = Vec::new();
    while head.len() < HEAD && !head.contains(&b'\n') {
        let more = input
            .fill_buf()
            .map_err(|e| DataError::new(name, e.to_string()))?;
        if more.is_empty() {
            break;
        }
        head.extend_from_slice(more);
        let taken = more.len();
        input.consume(taken);
    }
    Ok((head, input))
}

/// A stream, of which a beginning was read, in the format that is asked for or guessed from it.
fn in_format(
    head: Vec<u8>,
    input: Box<dyn BufRead>,
    asked: Option<Format>,
    unclear: Format,
    name: &str,
) -> Result<Opened, DataError> {
    if asked.is_none() && head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        return Err(DataError::new(
            name,
            "this is a JSON list, and rows are read one after another",
        )
        .help("write an object a line (JSONL), as `jq -c '.[]' FILE` does"));
    }
    let guess = Format::guess(&head);
    let format = asked.or(guess).unwrap_or(unclear);
    if format == Format::Parquet {
        return Err(DataError::new(
            name,
            "Parquet is read from its end, and a pipe has none yet",
        )
        .help("name the file with `--input FILE`"));
    }
    Ok(Opened {
        format,
        guessed: asked.is_none(),
        input: Input::Stream(Box::new(Cursor::new(head).chain(input))),
    })
}

/// Opens a file.
///
/// # Errors
/// It cannot be read.
pub fn open_file(path: &Path, asked: Option<Format>, unclear: Format) -> Result<Opened, DataError> {
    let name = path.display().to_string();
    let failed =
        |e: std::io::Error| DataError::from(WorldError::io(path, &e).on_the_command_line());
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(DataError::new(
            &name,
            "this is a directory; name one of its files",
        ));
    }
    if let Some(format) = asked.or_else(|| Format::of(path)) {
        if format == Format::Parquet {
            return Ok(Opened {
                format,
                guessed: false,
                input: Input::File(file),
            });
        }
        return open_stream(Box::new(BufReader::new(file)), Some(format), unclear, &name);
    }
    let mut head = Vec::new();
    (&mut file).take(4).read_to_end(&mut head).map_err(failed)?;
    if head == b"PAR1" {
        return Ok(Opened {
            format: Format::Parquet,
            guessed: true,
            input: Input::File(file),
        });
    }
    let rest = Cursor::new(head).chain(BufReader::new(file));
    open_stream(Box::new(rest), None, unclear, &name)
}

impl Opened {
    /// Its rows; of Parquet, where `only` says so, no more than those columns.
    ///
    /// # Errors
    /// It has no header, or one that cannot be.
    pub fn rows(self, name: &str, only: Option<&[String]>) -> Result<Box<dyn Rows>, DataError> {
        match (self.input, self.format) {
            (Input::File(file), _) => Ok(Box::new(parquet::Reader::open(file, name, only)?)),
            (Input::Stream(input), Format::Csv) => Ok(Box::new(delimited::Csv::open(input, name)?)),
            (Input::Stream(input), Format::Conll) => Ok(Box::new(conll::Reader::open(input, name))),
            (Input::Stream(input), Format::Tsv) => Ok(Box::new(delimited::Tsv::open(input, name)?)),
            (Input::Stream(input), _) => Ok(Box::new(jsonl::Reader::open(input, name))),
        }
    }

    /// Another handle of a Parquet file, to copy its columns from.
    #[must_use]
    pub fn again(&self) -> Option<File> {
        match &self.input {
            Input::File(file) => file.try_clone().ok(),
            Input::Stream(_) => None,
        }
    }
}

/// Complains about columns that are not among those there.
///
/// # Errors
/// The first that is missing.
pub fn require(columns: &[String], there: &[String], file: &str) -> Result<(), DataError> {
    let has = |column: &String| {
        let outer = column.split('.').next().unwrap_or(column);
        there.iter().any(|own| own == column || own == outer)
    };
    match columns.iter().find(|column| !has(column)) {
        None => Ok(()),
        Some(column) => {
            let error = DataError::new(file, format!("there is no column `{column}`"));
            let there = there.iter().map(String::as_str);
            let near = suggest::did_you_mean(column, there);
            let near = near.map(|n| format!("{n}; ")).unwrap_or_default();
            Err(error.help(format!(
                "{near}`--text COLUMN` names the column with the text"
            )))
        }
    }
}

#[cfg(test)]
mod tests;
