//! Examples out of files: texts, labels, classes.
//!
//! **Invariant:** which class a label is depends on the specification and on all rows of the
//! files, never on `take`, on the shuffle or on the order of rows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Cell, DataError, FORMATS, Format, Table, format_named, format_of};
use crate::base::rng::Stream;
use crate::base::suggest;
use crate::base::world::World;

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
            let error = DataError::new(first(spec), "no label column is named").help("name it: `label = COLUMN`");
            return Err(vec![error]);
        };
        columns.push(label.clone());
    }
    let tables = tables(spec, &columns, world)?;
    let key = if spec.labels == Labels::None {
        Key { classes: Vec::new(), own: None, known: Known::Nothing }
    } else {
        Key::new(&spec.labels, &tables)?
    };
    let mut examples = Vec::new();
    let mut errors = Vec::new();
    for (file, table) in tables {
        for row in table.rows {
            let mut cells = row.cells.into_iter();
            let texts = cells.by_ref().take(spec.text.len()).zip(&spec.text).map(|(cell, column)| words(cell, column));
            let texts: Result<Vec<String>, DataError> = texts.collect();
            let label = cells.next().map(|cell| key.label(&cell)).transpose();
            match (texts, label) {
                (Ok(texts), Ok(label)) => examples.push(Example { texts, label }),
                (texts, label) => errors.extend(
                    texts.err().into_iter().chain(label.err()).map(|error| DataError { file: file.clone(), ..error }.at(row.line)),
                ),
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
        examples = order.iter().filter_map(|&place| slots.get_mut(place as usize).and_then(Option::take)).collect();
    }
    if let Some(take) = spec.take {
        examples.truncate(usize::try_from(take).unwrap_or(usize::MAX));
    }
    if examples.is_empty() {
        return Err(vec![DataError::new(first(spec), "there are no examples").help("a header alone is no data; `take` is at least 1")]);
    }
    Ok(DataSet { examples, classes: key.classes })
}

fn first(spec: &DataSpec) -> String {
    spec.files.first().map_or_else(|| "data".to_owned(), |path| path.display().to_string())
}

/// The tables of all files.
fn tables(spec: &DataSpec, columns: &[String], world: &dyn World) -> Result<Vec<(String, Table)>, Vec<DataError>> {
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
    if errors.is_empty() { Ok(tables) } else { Err(errors) }
}

fn format(spec: &DataSpec, path: &Path) -> Result<&'static Format, DataError> {
    let names = FORMATS.iter().map(|format| format.name);
    match &spec.format {
        Some(name) => format_named(name).ok_or_else(|| {
            let error = DataError::new(path.display().to_string(), format!("there is no data format `{name}`"));
            error.help(suggest::did_you_mean(name, names).unwrap_or_default())
        }),
        None => format_of(path).ok_or_else(|| {
            let names = names.collect::<Vec<_>>().join(", ");
            DataError::new(path.display().to_string(), "the extension names no data format")
                .help(format!("name it: `format = …`, one of {names}"))
        }),
    }
}

fn words(cell: Cell, column: &str) -> Result<String, DataError> {
    match cell {
        Cell::Text(text) => Ok(text),
        Cell::Int(whole) => Ok(whole.to_string()),
        Cell::Float(number) => Ok(number.to_string()),
        Cell::Missing => Err(DataError::new("", format!("the text `{column}` is missing"))),
    }
}

/// The whole number a cell holds, written the plain way.
fn whole(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(whole) => Some(*whole),
        Cell::Text(text) => text.trim().parse().ok().filter(|whole: &i64| whole.to_string() == text.trim()),
        Cell::Float(_) | Cell::Missing => None,
    }
}

/// What a label looks like in messages.
fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => {
            let short: String = text.trim().chars().take(40).collect();
            format!("`{short}`")
        }
        Cell::Int(whole) => format!("`{whole}`"),
        Cell::Float(number) => format!("`{number}`"),
        Cell::Missing => "nothing".to_owned(),
    }
}

/// From label cells to labels.
struct Key {
    classes: Vec<String>,
    /// The class names the files themselves give.
    own: Option<Vec<String>>,
    known: Known,
}

enum Known {
    Nothing,
    Scores,
    Whole(BTreeMap<i64, u32>),
    Names(BTreeMap<String, u32>),
    /// Names, or places in the list.
    Either(BTreeMap<String, u32>),
}

fn indexed<K: Ord>(keys: impl IntoIterator<Item = K>) -> BTreeMap<K, u32> {
    keys.into_iter().zip(0u32..).collect()
}

impl Key {
    fn new(labels: &Labels, tables: &[(String, Table)]) -> Result<Self, Vec<DataError>> {
        let mut own: Option<&Vec<String>> = None;
        for (file, table) in tables {
            match (own, &table.class_names) {
                (Some(known), Some(names)) if known != names => {
                    return Err(vec![DataError::new(file.as_str(), "the file names other classes than the ones before it")]);
                }
                (_, names) => own = own.or(names.as_ref()),
            }
        }
        let own = own.cloned();
        Ok(match labels {
            Labels::None => Self { classes: Vec::new(), own, known: Known::Nothing },
            Labels::Regression => Self { classes: Vec::new(), own, known: Known::Scores },
            Labels::Given(names) => {
                Self { classes: names.clone(), known: Known::Either(indexed(names.iter().cloned())), own }
            }
            Labels::Derive => Self::derive(own, tables)?,
        })
    }

    fn derive(own: Option<Vec<String>>, tables: &[(String, Table)]) -> Result<Self, Vec<DataError>> {
        let mut errors = Vec::new();
        let (mut numbers, mut names, mut all_whole) = (BTreeSet::new(), BTreeSet::new(), true);
        for (file, table) in tables {
            for row in &table.rows {
                let Some(cell) = row.cells.last() else { continue };
                if let Some(whole) = whole(cell) {
                    numbers.insert(whole);
                    names.insert(whole.to_string());
                    continue;
                }
                match cell {
                    Cell::Text(text) if text.trim().is_empty() => errors.push(unlabelled().at(row.line)),
                    Cell::Missing => errors.push(unlabelled().at(row.line)),
                    Cell::Text(text) if !fraction(text) => {
                        all_whole = false;
                        if !names.contains(text.trim()) {
                            names.insert(text.trim().to_owned());
                        }
                    }
                    _ => errors.push(
                        DataError::new("", format!("{} is a score, not a class", shown(cell)))
                            .at(row.line)
                            .help("for scores train with `task = regression`; for classes list them: `labels = […]`"),
                    ),
                }
                if let Some(error) = errors.last_mut()
                    && error.file.is_empty()
                {
                    error.file.clone_from(file);
                }
                if errors.len() >= ENOUGH {
                    return Err(errors);
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(match own {
            Some(classes) if all_whole => {
                let known = Known::Either(indexed(classes.iter().cloned()));
                Self { classes, own: None, known }
            }
            own if all_whole => Self {
                classes: numbers.iter().map(i64::to_string).collect(),
                own,
                known: Known::Whole(indexed(numbers)),
            },
            own => Self { classes: names.iter().cloned().collect(), own, known: Known::Names(indexed(names)) },
        })
    }

    fn label(&self, cell: &Cell) -> Result<Label, DataError> {
        let empty = matches!(cell, Cell::Text(text) if text.trim().is_empty());
        if empty || *cell == Cell::Missing {
            return Err(unlabelled());
        }
        let name = match cell {
            Cell::Text(text) => text.trim().to_owned(),
            Cell::Int(whole) => whole.to_string(),
            Cell::Float(number) => number.to_string(),
            Cell::Missing => String::new(),
        };
        let class = match &self.known {
            Known::Nothing => None,
            Known::Scores => return score(cell),
            Known::Whole(known) => whole(cell).and_then(|whole| known.get(&whole)).copied(),
            Known::Names(known) => known.get(&name).copied(),
            Known::Either(known) => known.get(&name).copied().or_else(|| self.place(whole(cell)?, known)),
        };
        class.map(Label::Class).ok_or_else(|| self.unknown(cell))
    }

    /// The class of a whole number. When the file names its classes and the given ones are the
    /// same in another order, the name decides.
    fn place(&self, whole: i64, known: &BTreeMap<String, u32>) -> Option<u32> {
        let place = u32::try_from(whole).ok().filter(|&place| (place as usize) < self.classes.len())?;
        match &self.own {
            Some(own) if own.len() == known.len() && own.iter().all(|name| known.contains_key(name)) => {
                own.get(place as usize).and_then(|name| known.get(name)).copied()
            }
            _ => Some(place),
        }
    }

    fn unknown(&self, cell: &Cell) -> DataError {
        let error = DataError::new("", format!("{} is none of the classes", shown(cell)));
        if whole(cell) == Some(-1) {
            return error.help("-1 marks rows without a label, as in a test split; use another split");
        }
        let names = self.classes.iter().map(String::as_str);
        let near = match cell {
            Cell::Text(text) => suggest::did_you_mean(text.trim(), names),
            _ => Some(format!("whole numbers from 0 to {} are", self.classes.len().saturating_sub(1))),
        };
        near.into_iter().fold(error, DataError::help)
    }
}

/// Whether text is a number with a fraction.
fn fraction(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit()) && text.contains('.') && text.trim().parse::<f64>().is_ok()
}

fn unlabelled() -> DataError {
    DataError::new("", "the label is missing").help("a split to train or score on has a label in every row")
}

fn score(cell: &Cell) -> Result<Label, DataError> {
    let number = match cell {
        Cell::Int(whole) => Some(*whole as f32),
        Cell::Float(number) => Some(*number as f32),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::Missing => None,
    };
    match number {
        Some(number) if number.is_finite() => Ok(Label::Score(number)),
        _ => Err(DataError::new("", format!("{} is no finite number", shown(cell)))
            .help("regression learns numbers; for classes train with `task = classification`")),
    }
}
