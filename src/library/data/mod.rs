//! Data files: the registry of formats, and what a reader hands on.
//!
//! **Invariant:** a reader gives every row or an error with its place, whatever the bytes are, and holds one row
//! at a time.

pub mod batch;
pub mod column;
pub mod conll;
pub mod csv;
pub mod form;
pub mod json;
pub mod names;
mod pages;
pub mod parquet;
pub mod positioned;
pub mod report;
pub mod rows_hash;
pub mod set;
pub mod source;
pub mod split;
pub mod squad;
pub mod tokens;
pub mod tsv;

use std::fmt;
use std::path::Path;

use crate::base::suggest;
use crate::base::world::WorldError;

pub use set::{DataSet, DataSpec, Example, Label, Labels, load};
pub use source::Input;
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
    /// The names of a file's columns; of JSON, the keys of its first object.
    pub columns: fn(input: &Input) -> Result<Vec<String>, DataError>,
    /// The class names a file itself gives for a column.
    pub class_names: fn(input: &Input, column: &str) -> Option<Vec<String>>,
}

/// A reader: the file, the asked columns, and what takes the rows until it returns `false`.
pub type Reader = fn(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError>;

/// Every format, in the order in which they are looked for.
pub static FORMATS: &[&Format] = &[
    &tsv::TSV,
    &csv::CSV,
    &json::JSONL,
    &json::JSON,
    &parquet::PARQUET,
    &conll::CONLL,
    &squad::SQUAD,
];

/// The format of that name.
#[must_use]
pub fn format_named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|format| format.name == name)
}

/// The format a file's extension stands for; of a packed file, that of what is packed: `train.jsonl.gz`.
#[must_use]
pub fn format_of(path: &Path) -> Option<&'static Format> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let (_, extension) = unpacked_name(&name).rsplit_once('.')?;
    FORMATS
        .iter()
        .copied()
        .find(|format| format.extensions.contains(&extension))
}

/// A file's name without the ending of its packing.
fn unpacked_name(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((inner, packed)) if source::PACKED.contains(&packed.to_lowercase().as_str()) => inner,
        _ => name,
    }
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
    /// True or false.
    Bool(bool),
    /// A list.
    List(List),
    /// Nothing.
    Missing,
}

/// A list in a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Its length.
    pub length: usize,
    /// Its elements; `None` where one of them is a list or an object itself.
    pub cells: Option<Vec<Cell>>,
    /// What it is, where its elements are no cells.
    pub nested: Option<serde_json::Value>,
}

impl Cell {
    /// The cell as text; `None` where nothing stands, or a list.
    #[must_use]
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Int(whole) => Some(whole.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Bool(truth) => Some(truth.to_string()),
            Self::List(_) | Self::Missing => None,
        }
    }
}

/// What of a data set is to blame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum About {
    /// Its files.
    #[default]
    Files,
    /// The columns of texts.
    Text,
    /// The column of labels.
    Label,
    /// The names of the classes.
    Labels,
    /// How it is divided into splits.
    Split,
    /// The name of the split that is read.
    Name,
}

/// How help begins that has a nearest name. A split's name stands alone there: who knows the data set puts its name before.
pub const MEANT: &str = "did you mean `";

/// Something is wrong with a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataError {
    /// What is to blame.
    pub about: About,
    /// Errors of the same kind in several rows are one; empty where each stands for itself.
    pub kind: &'static str,
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
            about: About::Files,
            kind: "",
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

    /// The same, and what is to blame.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        self.about = about;
        self
    }

    /// The same, one of a kind that several rows may have.
    #[must_use]
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// The same, with help behind the one of some names that is nearest to a wrong one.
    #[must_use]
    pub fn help_near<'a>(
        self,
        wrong: &str,
        names: impl IntoIterator<Item = &'a str>,
        help: &str,
    ) -> Self {
        let near = suggest::nearest(wrong, names);
        match near.first().filter(|near| **near != wrong) {
            Some(near) => self.help(format!("{MEANT}{near}`? {help}")),
            None => self.help(help),
        }
    }

    /// The same, with help if it has none.
    #[must_use]
    pub fn help_else(mut self, help: impl FnOnce() -> String) -> Self {
        self.help.get_or_insert_with(help);
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
            about: About::Files,
            kind: "",
            file: error.what,
            line: None,
            message: error.cause,
            help: Some(error.remedy),
        }
    }
}

/// Where the asked columns are in a header.
fn locate(header: &[String], columns: &[String], file: &str) -> Result<Vec<usize>, DataError> {
    let mut places = Vec::with_capacity(columns.len());
    for column in columns {
        let mut found = header
            .iter()
            .enumerate()
            .filter(|(_, name)| *name == column)
            .map(|(place, _)| place);
        let Some(place) = found.next() else {
            let error = missing(column, header.iter().map(String::as_str), file).at(1);
            let help = error.help.clone().map(|h| format!("{h}; "));
            return Err(error.help(format!(
                "{}the first line of the file names its columns",
                help.unwrap_or_default()
            )));
        };
        if found.next().is_some() {
            return Err(DataError::new(file, format!("two columns are named `{column}`")).at(1));
        }
        places.push(place);
    }
    Ok(places)
}

/// The kind of errors about a column, which their message names.
const OF_COLUMN: &str = "column";

/// The error of a column that is not there.
fn missing<'a>(
    column: &str,
    there: impl IntoIterator<Item = &'a str> + Clone,
    file: &str,
) -> DataError {
    let error = DataError::new(file, format!("there is no column `{column}`")).kind(OF_COLUMN);
    match suggest::did_you_mean(column, there) {
        Some(help) => error.help(help),
        None => error,
    }
}

#[cfg(test)]
mod tests;
