//! A finished stage's model in memory, for rows that a program holds.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Error;
use crate::cli::predict::label::{Answers, Source, Unsaid};
use crate::cli::predict::write::{self, PROMPTS, Writing};
use crate::cli::predict::{Refusal, USUAL, WORDS, place};
use crate::cli::templating::Given;
use crate::exec::backend::{Device, Open};
use crate::exec::predict::Predictor;
use crate::library::generate::Settings;
use crate::library::rows::Record;
use crate::library::task::Form;
use crate::program::op::Machine;
use crate::resolve::methods_from_text;

/// A row by its columns.
pub type Row = Map<String, Json>;

/// Examples that go through the model at once.
const BATCH: u64 = 32;

/// What messages call the rows.
const ROWS: &str = "the rows";

/// A finished stage's model in memory: it labels rows, or goes on with them.
///
/// ```no_run
/// let mut model = peftc::Model::open(".peftc/runs/quickstart/learn")?;
/// let row = serde_json::json!({ "sentence": "a warm and funny film" });
/// let answers = model.predict(&[row.as_object().cloned().unwrap_or_default()])?;
/// assert!(answers[0].contains_key("prediction"));
/// # Ok::<(), peftc::Error>(())
/// ```
pub struct Model {
    predictor: Arc<Predictor>,
    columns: Option<Vec<String>>,
    source: Source<'static>,
    pool: rayon::ThreadPool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Wrong(why) => Self::Wrong(why),
            Refusal::Failed(why) => Self::Failed(why),
            Refusal::Input(why) => {
                let help = why.help.as_ref().map(|help| format!("; {help}"));
                Self::Wrong(format!("{why}{}", help.unwrap_or_default()))
            }
            Refusal::Output(why) => Self::Wrong(why.to_string()),
        }
    }
}

impl Model {
    /// Brings a model into memory, on the processor with all its threads. The path is that of an output folder of a run with one
    /// model, of a stage's folder in it, of an entry of the store, or of a Hugging Face folder with a trained head.
    ///
    /// # Errors
    /// There is no model, or it is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::opened(path.as_ref(), None, false)
    }

    /// The same with so many threads, and with the probability of every class among the answers if `all` says so.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn open_with(path: impl AsRef<Path>, threads: usize, all: bool) -> Result<Self, Error> {
        Self::opened(path.as_ref(), Some(threads), all)
    }

    fn opened(path: &Path, threads: Option<usize>, all: bool) -> Result<Self, Error> {
        let machine = Machine::detect(threads);
        let pool = crate::cli::options::pool_of(machine.threads).map_err(Error::Wrong)?;
        let common = super::Job::new(path).common();
        let found = place::find(&place::Asked {
            path,
            stage: None,
            best: None,
            store: None,
            ranks: 1,
            common: &common,
        })?;
        let predictor = Arc::new(Predictor::open(&found.artifact, &methods_from_text)?);
        let device: Arc<dyn Open> = Arc::new(Device::Cpu);
        let source = pool.install(|| -> Result<Source<'static>, Error> {
            if predictor.task.generates() {
                let writer = predictor.writer(Settings::default(), BATCH, (machine, device))?;
                return Ok(Source::Writes(Box::new(Writing {
                    writer,
                    given: Given::default(),
                    rows: 0,
                })));
            }
            let session = predictor.session((BATCH, 1), (machine, device))?;
            let answers = Answers {
                predictor: predictor.clone(),
                form: Form { all, nested: true },
            };
            answers.columns()?;
            Ok(Source::Labels(Box::new(session), answers))
        })?;
        Ok(Self {
            predictor,
            columns: None,
            source,
            pool,
        })
    }

    /// Reads these columns of a row: one, or two for pairs. Without this it reads those of the training.
    #[must_use]
    pub fn reading<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// The names of the classes, in the order of their numbers; none for a model that has none.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.predictor.description.classes
    }

    /// The columns that are read of such rows.
    fn read(&self, rows: &[Row]) -> Result<Vec<String>, Error> {
        if let Some(columns) = &self.columns {
            return Ok(columns.clone());
        }
        let own = self.predictor.description.text.as_slice();
        let there = |column: &str| rows.iter().any(|row| row.contains_key(column));
        let usual: Vec<&str> = match &self.source {
            Source::Writes(_) => {
                let own = own.iter().map(String::as_str);
                let (first, others) = PROMPTS.split_at(1);
                first
                    .iter()
                    .copied()
                    .chain(own)
                    .chain(others.iter().copied())
                    .collect()
            }
            _ if !own.is_empty() => return Ok(own.to_vec()),
            _ if self.predictor.task.words().is_some() => vec![WORDS],
            _ => USUAL.to_vec(),
        };
        match usual.iter().find(|column| there(column)) {
            Some(column) => Ok(vec![(*column).to_owned()]),
            None if rows.is_empty() => Ok(Vec::new()),
            None => Err(Error::Wrong(format!(
                "the model does not say which column it reads, and no row has one of `{}`; name it with `Model::reading`",
                usual.join("`, `")
            ))),
        }
    }

    /// The rows with what is said of each: of classes `prediction` and `probability`, of texts `generated`. A row without a text gets nulls.
    ///
    /// # Errors
    /// A column is missing or holds no text; the model gives no finite numbers.
    pub fn predict(&mut self, rows: &[Row]) -> Result<Vec<Row>, Error> {
        let columns = self.read(rows)?;
        if let (Some(row), Some(column)) = (
            rows.iter()
                .position(|row| !columns.iter().all(|c| has(row, c))),
            columns.first(),
        ) {
            let wanted = columns.join("`, `");
            let keys: Vec<&str> = rows
                .iter()
                .skip(row)
                .take(1)
                .flat_map(Map::keys)
                .map(String::as_str)
                .collect();
            let nearest = crate::base::suggest::nearest(column, keys.iter().copied());
            let near = nearest
                .first()
                .map(|near| format!("; did you mean `{near}`?"));
            return Err(Error::Wrong(format!(
                "row {} has no `{wanted}`{}",
                row + 1,
                near.unwrap_or_default()
            )));
        }
        let added = match &self.source {
            Source::Labels(_, answers) => answers.columns()?,
            _ => write::columns(),
        };
        let records: Vec<Record> = rows
            .iter()
            .zip(1..)
            .map(|(row, number)| Record {
                row: number,
                fields: row.clone(),
                raw: None,
            })
            .collect();
        let (source, mut unsaid) = (&mut self.source, Unsaid::default());
        let made = self
            .pool
            .install(|| source.values(&records, (&columns, ROWS), &mut unsaid))?;
        let whole = rows.iter().zip(made).map(|(row, values)| {
            let mut row = row.clone();
            row.extend(added.iter().map(|a| a.name.clone()).zip(values));
            row
        });
        Ok(whole.collect())
    }
}

/// Whether a row has a column; a dot leads into an object.
fn has(row: &Row, column: &str) -> bool {
    crate::library::rows::at(row, column).is_some()
}

/// Labels rows, or goes on with them, by the model at a path; see [`Model`], which does so many times.
///
/// # Errors
/// As of [`Model::open`] and [`Model::predict`].
pub fn predict(path: impl AsRef<Path>, rows: &[Row]) -> Result<Vec<Row>, Error> {
    Model::open(path)?.predict(rows)
}
