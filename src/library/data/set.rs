//! Examples out of files: texts, labels, classes.
//!
//! **Invariant:** which class a label is depends on the specification and on all rows of the
//! files, never on `take`, on the shuffle or on the order of rows.

use std::path::{Path, PathBuf};

use super::{Cell, DataError, FORMATS, Format, Table, format_named, format_of};
use crate::base::rng::Stream;
use crate::base::suggest;
use crate::base::world::World;
use key::Key;

mod key;

/// Row errors after which reading stops.
const ENOUGH: usize = 10;

/// Where examples come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// The files, read in this order.
    pub files: Vec<PathBuf>,
    /// Their format; by extension when absent.
    pub format: Option<String>,
    /// The columns of texts, one or two.
    pub text: Vec<String>,
    /// The column of labels.
    pub label: Option<String>,
    /// How many examples to keep, after the shuffle.
    pub take: Option<u64>,
    /// The seed of a shuffle; the files' order when absent.
    pub shuffle: Option<u64>,
    /// What labels are.
    pub labels: Labels,
}

/// What labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// There are none; a label column is not read.
    None,
    /// Scores.
    Regression,
    /// Classes, found in the data: whole numbers in order, else names in order.
    Derive,
    /// These classes: the data holds their names, or their places in this list.
    Given(Vec<String>),
}

/// An example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its texts, in the order of the specification.
    pub texts: Vec<String>,
    /// Its label.
    pub label: Option<Label>,
}

/// The label of an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// A class, as an index into [`DataSet::classes`].
    Class(u32),
    /// A score.
    Score(f32),
}

/// Examples and what their classes are called.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct DataSet {
    /// The examples.
    pub examples: Vec<Example>,
    /// The class names; empty without classes.
    pub classes: Vec<String>,
}

/// Reads a data set.
///
/// # Errors
/// When a file cannot be read, or rows of it are wrong: the first ten of them.
pub fn load(spec: &DataSpec, world: &dyn World) -> Result<DataSet, Vec<DataError>> {
    let mut columns = spec.text.clone();
    if spec.labels != Labels::None {
        let Some(label) = &spec.label else {
            let error = DataError::new(first(spec), "no label column is named")
                .help("name it: `label = COLUMN`");
            return Err(vec![error]);
        };
        columns.push(label.clone());
    }
    let tables = tables(spec, &columns, world)?;
    let key = Key::new(&spec.labels, &tables)?;
    let mut examples = Vec::new();
    let mut errors = Vec::new();
    for (file, table) in tables {
        for row in table.rows {
            let mut cells = row.cells.into_iter();
            let texts = cells
                .by_ref()
                .take(spec.text.len())
                .zip(&spec.text)
                .map(|(cell, column)| words(cell, column));
            let texts: Result<Vec<String>, DataError> = texts.collect();
            let label = cells.next().map(|cell| key.label(&cell)).transpose();
            match (texts, label) {
                (Ok(texts), Ok(label)) => examples.push(Example { texts, label }),
                (texts, label) => {
                    let wrong = texts.err().into_iter().chain(label.err());
                    errors.extend(wrong.map(|error| {
                        DataError {
                            file: file.clone(),
                            ..error
                        }
                        .at(row.line)
                    }));
                }
            }
            if errors.len() >= ENOUGH {
                errors.truncate(ENOUGH);
                return Err(errors);
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if let Some(seed) = spec.shuffle {
        let order = Stream::new(seed, "data").permutation(examples.len());
        let mut slots: Vec<Option<Example>> = examples.into_iter().map(Some).collect();
        examples = order
            .iter()
            .filter_map(|&place| slots.get_mut(place as usize).and_then(Option::take))
            .collect();
    }
    if let Some(take) = spec.take {
        examples.truncate(usize::try_from(take).unwrap_or(usize::MAX));
    }
    if examples.is_empty() {
        let error = DataError::new(first(spec), "there are no examples");
        return Err(vec![
            error.help("a header alone is no data; `take` is at least 1"),
        ]);
    }
    Ok(DataSet {
        examples,
        classes: key.classes,
    })
}

fn first(spec: &DataSpec) -> String {
    spec.files
        .first()
        .map_or_else(|| "data".to_owned(), |path| path.display().to_string())
}

/// The tables of all files.
fn tables(
    spec: &DataSpec,
    columns: &[String],
    world: &dyn World,
) -> Result<Vec<(String, Table)>, Vec<DataError>> {
    let mut tables = Vec::with_capacity(spec.files.len());
    let mut errors = Vec::new();
    for path in &spec.files {
        let file = path.display().to_string();
        let table = format(spec, path)
            .and_then(|format| Ok((format, world.read(path)?)))
            .and_then(|(format, bytes)| (format.read)(&bytes, &file, columns));
        match table {
            Ok(table) => tables.push((file, table)),
            Err(error) => errors.push(error),
        }
        if errors.len() >= ENOUGH {
            break;
        }
    }
    if errors.is_empty() {
        Ok(tables)
    } else {
        Err(errors)
    }
}

fn format(spec: &DataSpec, path: &Path) -> Result<&'static Format, DataError> {
    let names = FORMATS.iter().map(|format| format.name);
    match &spec.format {
        Some(name) => format_named(name).ok_or_else(|| {
            let error = DataError::new(
                path.display().to_string(),
                format!("there is no data format `{name}`"),
            );
            error.help(suggest::did_you_mean(name, names).unwrap_or_default())
        }),
        None => format_of(path).ok_or_else(|| {
            let names = names.collect::<Vec<_>>().join(", ");
            DataError::new(
                path.display().to_string(),
                "the extension names no data format",
            )
            .help(format!("name it: `format = …`, one of {names}"))
        }),
    }
}

fn words(cell: Cell, column: &str) -> Result<String, DataError> {
    match cell {
        Cell::Text(text) => Ok(text),
        Cell::Int(whole) => Ok(whole.to_string()),
        Cell::Float(number) => Ok(number.to_string()),
        Cell::Missing => Err(DataError::new(
            "",
            format!("the text `{column}` is missing"),
        )),
    }
}

#[cfg(test)]
mod tests;
