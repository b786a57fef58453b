//! Examples out of files: texts, labels, classes.
//!
//! **Invariant:** which class a label is depends on the specification and on all rows of the
//! files, never on `take`, on the shuffle or on the order of rows.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Cell, DataError, FORMATS, Format, Input, RowRec, format_named, format_of};
use crate::base::rng::Stream;
use crate::base::suggest;
use crate::base::world::World;
use key::{Found, Key};

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
    /// Which row of the files it is, from 0, counted on from file to file; a header is none.
    pub row: u32,
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

/// Reads a whole data set into memory.
///
/// # Errors
/// When a file cannot be read, or rows of it are wrong: the first ten of them.
pub fn load(spec: &DataSpec, world: &dyn World) -> Result<DataSet, Vec<DataError>> {
    let reading = Reading::open(spec, world)?;
    let mut examples = Vec::new();
    reading.walk(&mut |place, example| {
        examples.push((place, example));
        true
    })?;
    examples.sort_unstable_by_key(|(place, _)| *place);
    Ok(DataSet {
        examples: examples.into_iter().map(|(_, example)| example).collect(),
        classes: reading.key.classes,
    })
}

/// A data set that is read a row at a time, as often as wanted.
#[derive(Debug)]
pub struct Reading<'a> {
    spec: &'a DataSpec,
    files: Vec<(Bytes, String, &'static Format)>,
    columns: Vec<String>,
    key: Key,
    /// Where a row is in the shuffled set; [`LEFT_OUT`] where `take` leaves it out.
    places: Option<Vec<u32>>,
}

/// The place of a row that is not in the set.
const LEFT_OUT: u32 = u32::MAX;

impl<'a> Reading<'a> {
    /// Opens the files and, where classes are to be found or rows to be shuffled, goes through them once.
    ///
    /// # Errors
    /// When a file cannot be read, or labels of it are wrong: the first ten of them.
    pub fn open(spec: &'a DataSpec, world: &dyn World) -> Result<Self, Vec<DataError>> {
        let label = match (&spec.labels, &spec.label) {
            (Labels::None, _) => None,
            (_, Some(label)) => Some(label),
            (_, None) => {
                let error = DataError::new(first(spec), "no label column is named")
                    .help("name it: `label = COLUMN`");
                return Err(vec![error]);
            }
        };
        let (files, mut errors) = files(spec, world);
        let mut own: Option<Vec<String>> = None;
        for (bytes, file, format) in &files {
            let bytes = bytes.clone();
            let names = label.and_then(|l| (format.class_names)(&Input { bytes, file }, l));
            match (&own, names) {
                (Some(known), Some(names)) if *known != names => {
                    let message = "the file names other classes than the ones before it";
                    return Err(vec![DataError::new(file.as_str(), message)]);
                }
                (Some(_), _) => {}
                (None, names) => own = names,
            }
        }
        let columns: Vec<String> = spec.text.iter().chain(label).cloned().collect();
        let mut reading = Self {
            spec,
            files,
            columns,
            key: Key::new(&spec.labels, own),
            places: None,
        };
        if spec.labels == Labels::Derive || spec.shuffle.is_some() {
            reading.survey(label, &mut errors);
        }
        errors.truncate(ENOUGH);
        if errors.is_empty() {
            Ok(reading)
        } else {
            Err(errors)
        }
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(b, _, _)| b.len() as u64).sum()
    }

    /// The names of its classes; none without classes.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.key.classes
    }

    /// Goes through the labels, or the first text where there are none.
    fn survey(&mut self, label: Option<&String>, errors: &mut Vec<DataError>) {
        let columns: Vec<String> = label
            .or(self.spec.text.first())
            .into_iter()
            .cloned()
            .collect();
        let mut found = Found::default();
        let (mut wrong, mut rows) = (Vec::new(), 0_usize);
        for (bytes, file, format) in &self.files {
            let bytes = bytes.clone();
            let read = (format.read)(&Input { bytes, file }, &columns, &mut |row| {
                rows += 1;
                if self.spec.labels == Labels::Derive
                    && let Some(cell) = row.cells.last()
                    && let Err(error) = found.see(cell)
                {
                    let file = file.clone();
                    wrong.push(DataError { file, ..error }.at(row.line));
                }
                wrong.len() < ENOUGH
            });
            errors.extend(read.err());
            if wrong.len() >= ENOUGH || errors.len() >= ENOUGH {
                break;
            }
        }
        if errors.is_empty() {
            *errors = wrong;
        }
        if self.spec.labels == Labels::Derive {
            self.key.derive(found);
        }
        self.places = self.spec.shuffle.map(|seed| {
            let order = Stream::new(seed, "data").permutation(rows);
            let most = self.spec.take.unwrap_or(u64::MAX);
            let mut places = vec![LEFT_OUT; rows];
            for (place, row) in (0..most).zip(order) {
                if let Some(own) = places.get_mut(row as usize) {
                    *own = place as u32;
                }
            }
            places
        });
    }

    /// Hands on each example with its place in the set, in the order of the files, until `each` returns
    /// `false`.
    ///
    /// # Errors
    /// When rows are wrong: the first ten of them; or when there are no examples.
    pub fn walk(&self, each: &mut dyn FnMut(u32, Example) -> bool) -> Result<(), Vec<DataError>> {
        let texts = &self.spec.text;
        let most = self.spec.take.unwrap_or(u64::MAX);
        let mut errors = Vec::new();
        let (mut rows, mut kept, mut stopped) = (0_u32, 0_u64, false);
        for (bytes, file, format) in &self.files {
            let bytes = bytes.clone();
            let read = (format.read)(&Input { bytes, file }, &self.columns, &mut |row| {
                let place = match &self.places {
                    Some(places) => places.get(rows as usize).copied().unwrap_or(LEFT_OUT),
                    None if u64::from(rows) < most => rows,
                    None => LEFT_OUT,
                };
                let number = rows;
                rows += 1;
                match self.example(row, number, texts) {
                    Ok(example) if errors.is_empty() && place != LEFT_OUT => {
                        kept += 1;
                        stopped = !each(place, example);
                    }
                    Ok(_) => {}
                    Err(list) => errors.extend(list.into_iter().map(|error| {
                        let file = file.clone();
                        DataError { file, ..error }
                    })),
                }
                if rows == LEFT_OUT {
                    errors.push(
                        DataError::new(file.as_str(), format!("more than {rows} rows"))
                            .help("split the data; one set holds no more"),
                    );
                    return false;
                }
                !stopped && errors.len() < ENOUGH
            });
            errors.extend(read.err());
            if stopped || errors.len() >= ENOUGH {
                break;
            }
        }
        errors.truncate(ENOUGH);
        if !errors.is_empty() {
            return Err(errors);
        }
        if kept == 0 {
            let error = DataError::new(first(self.spec), "there are no examples");
            return Err(vec![
                error.help("a header alone is no data; `take` is at least 1"),
            ]);
        }
        Ok(())
    }

    fn example(
        &self,
        row: RowRec,
        number: u32,
        texts: &[String],
    ) -> Result<Example, Vec<DataError>> {
        let mut cells = row.cells.into_iter();
        let words = cells
            .by_ref()
            .take(texts.len())
            .zip(texts)
            .map(|(cell, column)| words(cell, column));
        let texts: Result<Vec<String>, DataError> = words.collect();
        let label = cells.next().map(|cell| self.key.label(&cell)).transpose();
        match (texts, label) {
            (Ok(texts), Ok(label)) => Ok(Example {
                texts,
                label,
                row: number,
            }),
            (texts, label) => {
                let wrong = texts.err().into_iter().chain(label.err());
                Err(wrong.map(|error| error.at(row.line)).collect())
            }
        }
    }
}

fn first(spec: &DataSpec) -> String {
    spec.files
        .first()
        .map_or_else(|| "data".to_owned(), |path| path.display().to_string())
}

/// The files that can be opened, and what is wrong with the others.
fn files(
    spec: &DataSpec,
    world: &dyn World,
) -> (Vec<(Bytes, String, &'static Format)>, Vec<DataError>) {
    let mut files = Vec::with_capacity(spec.files.len());
    let mut errors = Vec::new();
    for path in &spec.files {
        let file = path.display().to_string();
        match format(spec, path).and_then(|format| Ok((world.map(path)?, file, format))) {
            Ok(open) => files.push(open),
            Err(error) => errors.push(error),
        }
        if errors.len() >= ENOUGH {
            break;
        }
    }
    (files, errors)
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
