//! What rows are written to, with values added to each.

use std::fs::File;
use std::io::Write;

use serde_json::Value as Json;

use super::{DataError, Format, Record, delimited, jsonl, parquet, wrong};

/// Why rows could not be written.
#[derive(Debug)]
pub enum Unwritten {
    /// The output failed.
    Output(std::io::Error),
    /// A row cannot be said in the format.
    Row(DataError),
}

impl From<std::io::Error> for Unwritten {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<DataError> for Unwritten {
    fn from(error: DataError) -> Self {
        Self::Row(error)
    }
}

/// What takes rows, with values added to each.
pub trait Sink {
    /// Writes some rows; `added` holds as many lists of values.
    ///
    /// # Errors
    /// The output fails, or a row cannot be said.
    fn write(&mut self, records: &[Record], added: Vec<Vec<Json>>) -> Result<(), Unwritten>;

    /// Writes what is left.
    ///
    /// # Errors
    /// The output fails.
    fn finish(self: Box<Self>) -> Result<(), Unwritten>;
}

/// What is added to each row.
#[derive(Clone, Debug)]
pub struct Added {
    /// The column.
    pub name: String,
    /// Whether its values are numbers; else texts.
    pub number: bool,
}

/// What writes rows of `columns`, which are those of the first rows if they are not known, and what is added to them;
/// `source` is a Parquet file whose columns are taken over as they are.
///
/// # Errors
/// The columns cannot be said in the format, or one is there already.
#[expect(
    clippy::too_many_arguments,
    reason = "a file: its format, its place, its columns"
)]
pub fn sink<'a>(
    format: Format,
    out: Box<dyn Write + Send + 'a>,
    columns: Option<&[String]>,
    added: Vec<Added>,
    source: Option<File>,
    file: &str,
) -> Result<Box<dyn Sink + 'a>, Unwritten> {
    if let Some(columns) = columns {
        taken(columns, &added, file)?;
    }
    let columns = columns.map(<[String]>::to_vec);
    Ok(match (format, source) {
        (Format::Csv, _) => Box::new(delimited::Out::csv(out, columns, added, file)?),
        (Format::Tsv, _) => Box::new(delimited::Out::tsv(out, columns, added, file)?),
        (Format::Jsonl | Format::Conll, _) => Box::new(jsonl::Out::new(out, added, file)),
        (Format::Parquet, Some(source)) => Box::new(parquet::Copy::new(out, source, added, file)?),
        (Format::Parquet, None) => Box::new(parquet::Out::new(out, columns, added, file)),
    })
}

/// Complains about a column that is there already and would be added.
pub(super) fn taken(columns: &[String], added: &[Added], file: &str) -> Result<(), DataError> {
    match added.iter().find(|a| columns.contains(&a.name)) {
        None => Ok(()),
        Some(a) => Err(DataError::new(
            file,
            format!(
                "there is a column `{}` already, which is to be added",
                a.name
            ),
        )
        .help("rename it, or leave it away")),
    }
}

/// The columns of some rows, in the order in which they come up.
pub(super) fn columns_of(records: &[Record]) -> Vec<String> {
    let mut columns: indexmap::IndexSet<&String> = indexmap::IndexSet::new();
    columns.extend(records.iter().flat_map(|record| record.fields.keys()));
    columns.into_iter().cloned().collect()
}

/// Complains about a row with a column that the rows before it, which named the columns, have not.
pub(super) fn only(record: &Record, columns: &[String], file: &str) -> Result<(), DataError> {
    match record.fields.keys().find(|key| !columns.contains(key)) {
        None => Ok(()),
        Some(key) => Err(wrong(
            file,
            record.row,
            format!("it has `{key}`, which no row at the beginning has"),
        )
        .help("`--format jsonl` writes each row as it is")),
    }
}
