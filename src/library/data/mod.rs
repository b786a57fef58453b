//! Data files: the registry of formats, and what a reader hands on.
//!
//! **Invariant:** a reader gives rows or an error with its place, whatever the bytes are, and holds one row
//! at a time.

pub mod batch;
pub mod csv;
pub mod jsonl;
pub mod parquet;
pub mod positioned;
pub mod report;
pub mod set;
pub mod split;
pub mod tokens;
pub mod tsv;

use std::fmt;
use std::path::Path;

use bytes::Bytes;

use crate::base::suggest;
use crate::base::world::WorldError;

pub use set::{DataSet, DataSpec, Example, Label, Labels, load};
pub use split::{SplitSource, find_split};

/// A file format.
#[derive(Debug)]
pub struct Format {
    /// The name written in recipes.
    pub name: &'static str,
    /// The file name extensions it is recognised by.
    pub extensions: &'static [&'static str],
    /// Reads the asked columns out of a file.
    pub read: Reader,
    /// The class names a file itself gives for a column.
    pub class_names: fn(input: &Input<'_>, column: &str) -> Option<Vec<String>>,
}

/// A reader: the file, the asked columns, and what takes the rows until it returns `false`.
pub type Reader = fn(
    input: &Input<'_>,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError>;

/// A file to be read.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Its content.
    pub bytes: Bytes,
    /// Its name in errors.
    pub file: &'a str,
}

/// Every format, in the order in which they are looked for.
pub static FORMATS: &[&Format] = &[&tsv::TSV, &csv::CSV, &jsonl::JSONL, &parquet::PARQUET];

/// The format of that name.
#[must_use]
pub fn format_named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|format| format.name == name)
}

/// The format a file's extension stands for.
#[must_use]
pub fn format_of(path: &Path) -> Option<&'static Format> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    FORMATS
        .iter()
        .copied()
        .find(|format| format.extensions.contains(&extension.as_str()))
}

/// A row; its cells are in the order in which the columns were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct RowRec {
    /// The line it begins on; in Parquet, its number; both from 1.
    pub line: u64,
    /// The asked cells.
    pub cells: Vec<Cell>,
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text; in TSV and CSV everything is.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Nothing.
    Missing,
}

/// Something is wrong with a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError {
    /// The file.
    pub file: String,
    /// The line, or row, from 1.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl DataError {
    /// An error about a file as a whole.
    #[must_use]
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            message: message.into(),
            help: None,
        }
    }

    /// The same, at a line.
    #[must_use]
    pub fn at(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// The same, with help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn empty(file: &str) -> Self {
        Self::new(file, "the file is empty")
            .at(1)
            .help("a data file has a row of examples, or several")
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for DataError {}

impl From<WorldError> for DataError {
    fn from(error: WorldError) -> Self {
        Self {
            file: error.what,
            line: None,
            message: error.cause,
            help: Some(error.remedy),
        }
    }
}

/// Where the asked columns are in a header.
fn locate(header: &[&str], columns: &[String], file: &str) -> Result<Vec<usize>, DataError> {
    let mut places = Vec::with_capacity(columns.len());
    for column in columns {
        let mut found = header
            .iter()
            .enumerate()
            .filter(|(_, name)| *name == column)
            .map(|(place, _)| place);
        let Some(place) = found.next() else {
            return Err(missing(column, header.iter().copied(), file).at(1));
        };
        if found.next().is_some() {
            return Err(DataError::new(file, format!("two columns are named `{column}`")).at(1));
        }
        places.push(place);
    }
    Ok(places)
}

/// The error of a column that is not there.
fn missing<'a>(
    column: &str,
    there: impl IntoIterator<Item = &'a str> + Clone,
    file: &str,
) -> DataError {
    let error = DataError::new(file, format!("there is no column `{column}`"));
    match suggest::did_you_mean(column, there) {
        Some(help) => error.help(help),
        None => error,
    }
}

/// Text without its byte order mark.
fn text<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, DataError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        DataError::new(file, "this is not UTF-8 text")
            .at(line)
            .help("save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests;
