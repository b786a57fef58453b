//! Examples out of files: texts, labels, classes.
//!
//! **Invariant:** which class a label is depends on the specification and on all rows of the
//! files, never on `take`, on the shuffle or on the order of rows.

use std::path::Path;

use super::column::listed;
use super::form::Form;
use super::source::Input;
use super::{About, Cell, DataError, FORMATS, Format, OF_COLUMN, RowRec, format_named, format_of};
use crate::base::rng::Stream;
use crate::base::suggest;
use crate::base::world::World;
use crate::library::counts::to_u32;
use cells::{answered, conversation, said, task_of, words};
use found::Found;
use key::{Key, Numbers};
use wrongs::Wrongs;

mod carve;
mod cells;
mod found;
mod key;
mod labelled;
mod options;
mod own;
mod questions;
mod several;
mod spec;
mod spelling;
mod wrongs;

pub use key::{generic, same_label};
pub use spec::{Carve, DataSpec, Given, Labels, Naming};

/// An example.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its texts, in the order of the specification.
    pub texts: Vec<String>,
    /// Whether its texts are lists of messages, as JSON, that go on with each other.
    pub spoken: bool,
    /// Its label.
    pub label: Option<Label>,
    /// Its task, from 0.
    pub task: u32,
    /// Which row of the files it is, from 0, counted on from file to file; a header is none.
    pub row: u32,
}

/// The label of an example.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// A class, as an index into [`DataSet::classes`].
    Class(u32),
    /// Several classes, ascending, each once; or none.
    Classes(Vec<u32>),
    /// A class of each word, in their order.
    Each(Vec<u32>),
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
    files: Vec<(Input, &'static Format)>,
    /// The columns that are read: those of the texts, that of the labels, that of the tasks.
    columns: Vec<String>,
    /// Whether labels are read.
    labelled: bool,
    key: Key,
    /// Where a row is in the set; [`LEFT_OUT`] where it is not in it.
    places: Option<Vec<u32>>,
}

/// The place of a row that is not in the set.
const LEFT_OUT: u32 = u32::MAX;

impl<'a> Reading<'a> {
    /// Opens the files and, where classes are to be found or rows to be put in order, goes through them once.
    ///
    /// # Errors
    /// When a file cannot be read, or labels of it are wrong.
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
        let (files, mut wrongs) = files(spec, world);
        let mut own = spec.beside.clone();
        for (input, format) in &files {
            let names = label.and_then(|label| (format.class_names)(input, label));
            match (&own, names) {
                (Some(known), Some(names)) if *known != names => {
                    let message =
                        "the file names other classes than what stands before it or beside it";
                    return Err(vec![DataError::new(input.file.as_str(), message).about(About::Label)
                        .help("the files of a split have the same classes; keep those that belong together")]);
                }
                (Some(_), _) => {}
                (None, names) => own = names,
            }
        }
        let key = Key::new(&spec.labels, own, spec.separator.clone()).map_err(|error| {
            let file = first(spec);
            vec![DataError { file, ..error }]
        })?;
        let columns = spec.text.iter().chain(label).chain(&spec.task);
        let columns: Vec<String> = columns.cloned().collect();
        let mut reading = Self {
            spec,
            files,
            columns,
            labelled: label.is_some(),
            key,
            places: None,
        };
        let open = reading.key.is_open(&spec.labels);
        if open || spec.shuffle.is_some() || spec.carve.is_some() {
            reading.survey(label.filter(|_| open), &mut wrongs);
        }
        match wrongs.into_list() {
            list if list.is_empty() => Ok(reading),
            list => Err(list),
        }
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(input, _)| input.size()).sum()
    }

    /// The names of its classes; none without classes.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.key.classes
    }

    /// Goes through the rows once: for the classes, where `label` names the column that they are found in, and for the
    /// places of rows.
    fn survey(&mut self, label: Option<&String>, wrongs: &mut Wrongs) {
        let strata = self.spec.carve.as_ref().and_then(|c| c.stratify.as_ref());
        let column = label
            .or(strata)
            .or(self
                .spec
                .label
                .as_ref()
                .filter(|_| self.spec.labels != Labels::None))
            .or(self.spec.text.first());
        // Two columns at most: the label, and what is spread evenly.
        let other = strata.filter(|strata| Some(*strata) != column);
        let columns: Vec<String> = column.into_iter().chain(other).cloned().collect();
        let mut found = Found::default();
        let mut groups = carve::Groups::default();
        let mut rows = 0_usize;
        for (input, format) in &self.files {
            let read = (format.read)(input, &columns, &mut |row| {
                rows += 1;
                if let Err(error) = self.only_the_label_is_a_list(&row, &columns, &input.file) {
                    wrongs.add(self.blamed(error), &input.file);
                    return false;
                }
                if label.is_some()
                    && let Some(cell) = row.cells.first()
                {
                    let elements = self.key.elements(cell);
                    let seen = elements.and_then(|list| {
                        list.iter()
                            .try_for_each(|cell| found.see(cell, &input.file, row.line))
                    });
                    if let Err(error) = seen {
                        wrongs.add(error.at(row.line), &input.file);
                    }
                }
                if strata.is_some()
                    && let Some(cell) = row.cells.last()
                {
                    groups.see(cell);
                }
                rows < LEFT_OUT as usize && !wrongs.is_enough()
            });
            if let Err(error) = read {
                wrongs.add(self.blamed(error), &input.file);
            }
        }
        if label.is_some()
            && wrongs.is_empty()
            && let Some(naming) = self.spec.labels.naming()
            && let Err(error) = self.key.derive(found, naming)
        {
            wrongs.add(error, &first(self.spec));
        }
        self.places = self.order(rows, &groups);
    }

    /// Where each row is in the set, if not where it is in the files.
    fn order(&self, rows: usize, groups: &carve::Groups) -> Option<Vec<u32>> {
        if self.spec.carve.is_none() && self.spec.shuffle.is_none() {
            return None;
        }
        let own: Vec<u32> = match &self.spec.carve {
            Some(carve) => carve.rows(rows, groups),
            None => (0..to_u32(rows)).collect(),
        };
        let order: Vec<u32> = match self.spec.shuffle {
            Some(seed) => {
                let order = Stream::new(seed, "data").permutation(own.len());
                let row = |at: u32| own.get(at as usize).copied();
                order.into_iter().filter_map(row).collect()
            }
            None => own,
        };
        let most = self.spec.take.unwrap_or(u64::MAX);
        let mut places = vec![LEFT_OUT; rows];
        for (place, row) in (0..most).zip(order) {
            if let Some(own) = places.get_mut(row as usize) {
                *own = to_u32(place);
            }
        }
        Some(places)
    }

    /// Hands on each example with its place in the set, in the order of the files, until `each` returns
    /// `false`.
    ///
    /// # Errors
    /// When rows are wrong; or when there are no examples.
    pub fn walk(&self, each: &mut dyn FnMut(u32, Example) -> bool) -> Result<(), Vec<DataError>> {
        let texts = &self.spec.text;
        let most = self.spec.take.unwrap_or(u64::MAX);
        let mut wrongs = Wrongs::default();
        let mut numbers = Numbers::default();
        let (mut rows, mut kept, mut stopped) = (0_u32, 0_u64, false);
        for (input, format) in &self.files {
            let read = (format.read)(input, &self.columns, &mut |row| {
                let place = match &self.places {
                    Some(places) => places.get(rows as usize).copied().unwrap_or(LEFT_OUT),
                    None if u64::from(rows) < most => rows,
                    None => LEFT_OUT,
                };
                let number = rows;
                rows += 1;
                if let Err(error) = self.only_the_label_is_a_list(&row, &self.columns, &input.file)
                {
                    wrongs.add(self.blamed(error), &input.file);
                    return false;
                }
                if self.labelled
                    && let Some(cell) = row.cells.get(texts.len())
                {
                    // What is wrong with a list is said of its row.
                    let elements = self.key.elements(cell).unwrap_or_default();
                    elements.iter().for_each(|cell| numbers.see(cell));
                }
                match self.example(row, number, texts) {
                    Ok(example) if wrongs.is_empty() && place != LEFT_OUT => {
                        kept += 1;
                        stopped = !each(place, example);
                    }
                    Ok(_) => {}
                    Err(list) => {
                        for error in list {
                            wrongs.add(error, &input.file);
                        }
                    }
                }
                if rows == LEFT_OUT {
                    let error =
                        DataError::new(input.file.as_str(), format!("more than {rows} rows"));
                    wrongs.add(
                        error.help("split the data; one set holds no more"),
                        &input.file,
                    );
                    return false;
                }
                !stopped && !wrongs.is_enough()
            });
            if let Err(error) = read {
                wrongs.add(self.blamed(error), &input.file);
            }
            if stopped {
                break;
            }
        }
        // That numbers begin elsewhere is the cause of what is wrong with single rows.
        if let Some(error) = self.key.check_numbers(numbers) {
            let file = first(self.spec);
            return Err(vec![DataError { file, ..error }]);
        }
        if !wrongs.is_empty() {
            return Err(wrongs.into_list());
        }
        if kept == 0 {
            return Err(vec![self.nothing(rows)]);
        }
        Ok(())
    }

    /// An error about a column with the key that names it.
    fn blamed(&self, error: DataError) -> DataError {
        let named = |column: &String| error.message.contains(&format!("`{column}`"));
        let about = if error.kind != OF_COLUMN {
            error.about
        } else if self.spec.text.iter().any(named) {
            About::Text
        } else if self.spec.label.iter().any(named) {
            About::Label
        } else {
            error.about
        };
        error.about(about)
    }

    /// Complains about a list in another column than that of several labels.
    fn only_the_label_is_a_list(
        &self,
        row: &RowRec,
        columns: &[String],
        file: &str,
    ) -> Result<(), DataError> {
        if self.spec.form != Form::Text {
            return Ok(());
        }
        let several = matches!(self.spec.labels, Labels::Several(_));
        let own = self.spec.label.as_ref().filter(|_| several);
        for (column, cell) in columns.iter().zip(&row.cells) {
            if let Cell::List(list) = cell
                && Some(column) != own
            {
                return Err(listed(list, column, file).at(row.line));
            }
        }
        Ok(())
    }

    /// The error of a set without examples.
    fn nothing(&self, rows: u32) -> DataError {
        let error = DataError::new(first(self.spec), "there are no examples");
        match &self.spec.carve {
            Some(carve) if rows > 0 => {
                let message = match carve.own {
                    Some(_) => format!("`split` gives this part none of {rows} rows"),
                    None => format!("`split` leaves none of {rows} rows for training"),
                };
                DataError { message, ..error }
                    .about(About::Split)
                    .help("change the shares, or take more data")
            }
            _ => error.help("a header alone is no data; `take` is at least 1"),
        }
    }

    fn example(
        &self,
        row: RowRec,
        number: u32,
        texts: &[String],
    ) -> Result<Example, Vec<DataError>> {
        let task = match &self.spec.task {
            Some(column) => task_of(row.cells.last(), column),
            None => Ok(0),
        };
        if let Form::Choices | Form::Question = self.spec.form {
            return self.of_parts(row, number, task);
        }
        if self.spec.form == Form::Words {
            return self.of_words(row, number, task);
        }
        let spoken = self.spec.form.may_be_spoken()
            && row
                .cells
                .iter()
                .take(texts.len())
                .any(|cell| matches!(cell, Cell::List(_)));
        let mut cells = row.cells.into_iter();
        let words = cells.by_ref().take(texts.len()).zip(texts).enumerate().map(
            |(place, (cell, column))| match self.spec.form {
                Form::Text => words(cell, column),
                Form::Completion | Form::Preference if spoken => said(cell, column),
                Form::Completion => answered(cell, column, place),
                // Without a prompt both are answers.
                Form::Preference => answered(cell, column, place + 3 - texts.len()),
                Form::Choices | Form::Words | Form::Question | Form::Anchor => words(cell, column),
                Form::Messages => conversation(cell, column, place),
            },
        );
        let texts: Result<Vec<String>, DataError> = words.collect();
        let label = cells.next().filter(|_| self.labelled);
        let label = label.map(|cell| self.key.label(&cell)).transpose();
        match (texts, label, task) {
            (Ok(texts), Ok(label), Ok(task)) => Ok(Example {
                texts,
                spoken,
                label,
                task,
                row: number,
            }),
            (texts, label, task) => {
                let wrong = texts.err().into_iter().chain(label.err()).chain(task.err());
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
fn files(spec: &DataSpec, world: &dyn World) -> (Vec<(Input, &'static Format)>, Wrongs) {
    let mut files = Vec::with_capacity(spec.files.len());
    let mut wrongs = Wrongs::default();
    for path in &spec.files {
        let open = format(spec, path).and_then(|format| Ok((Input::open(path, world)?, format)));
        match open {
            Ok(open) => files.push(open),
            Err(error) => wrongs.add(error, &path.display().to_string()),
        }
        if wrongs.is_enough() {
            break;
        }
    }
    (files, wrongs)
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

#[cfg(test)]
mod tests;
