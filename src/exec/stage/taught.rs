//! The scores that a training learns: read from what its teachers left, and their mean taken.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};

use super::evaluate::PREDICTIONS;
use super::{Options, Work, entry_name};
use crate::exec::features::Taught;
use crate::exec::store::Store;
use crate::files::RunError;
use crate::library::counts::to_u32;
use crate::library::data::tokens::EncodedSet;
use crate::plan::{Plan, Stage};

impl Work<'_> {
    /// The mean of the teachers' scores for each text of a split, by their weights; `None` where none are learned.
    ///
    /// # Errors
    /// A table of scores that cannot be read, or is not of these texts; weights of which none is above 0.
    pub(in crate::exec) fn taught(&self, set: &EncodedSet) -> Result<Option<Taught>, RunError> {
        let start = &self.stage.start;
        if start.teachers.is_empty() || start.drawing.is_some() {
            return Ok(None);
        }
        let lesson = Lesson {
            plan: self.plan,
            stage: self.stage,
            store: self.store,
            options: self.options,
        };
        let mean = lesson.mean(set)?.into_iter().map(|x| x as f32).collect();
        Ok(Some(Taught::new(mean, start.classes.len())))
    }
}

/// A stage, and where its teachers' scores are.
pub(in crate::exec) struct Lesson<'a> {
    pub(in crate::exec) plan: &'a Plan,
    pub(in crate::exec) stage: &'a Stage,
    pub(in crate::exec) store: &'a Store,
    pub(in crate::exec) options: &'a Options,
}

impl Lesson<'_> {
    /// The mean of the teachers' scores for each text of a split, by their weights: a row of one a class.
    ///
    /// # Errors
    /// A table of scores that cannot be read, or is not of these texts; weights of which none is above 0.
    pub(super) fn mean(&self, set: &EncodedSet) -> Result<Vec<f64>, RunError> {
        let start = &self.stage.start;
        let classes = start.classes.as_slice();
        let mut sum = vec![0.0_f64; set.len() * classes.len()];
        let mut weights = 0.0;
        for teacher in &start.teachers {
            let weight = self.weight(teacher.judge.as_deref())?;
            weights += weight;
            let path = self
                .store
                .path(&self.entry(&teacher.stage)?)
                .join(PREDICTIONS);
            add(&mut sum, &path, (set, classes), weight)?;
        }
        if weights <= 0.0 {
            let judge = start.teachers.iter().find_map(|own| own.judge.clone());
            let what = format!(
                "no teacher predicts any text rightly there, so that all of them weigh nothing; write other texts into `{}`, or \
                 remove `teacher_weights`",
                judge.unwrap_or_default()
            );
            return Err(RunError::file(&self.options.recipe, what));
        }
        Ok(sum.into_iter().map(|x| x / weights).collect())
    }

    /// The store's name for a stage's result.
    fn entry(&self, name: &str) -> Result<String, RunError> {
        let stage = self.plan.stage(name);
        let stage = stage.ok_or_else(|| RunError::bug(format!("no stage `{name}`")))?;
        Ok(entry_name(stage))
    }

    /// How much the scores of a teacher weigh that this stage weighs.
    fn weight(&self, judge: Option<&str>) -> Result<f64, RunError> {
        let Some(judge) = judge else {
            return Ok(1.0);
        };
        let manifest = self.store.finished(&self.entry(judge)?);
        let accuracy = manifest.and_then(|own| own.result["metrics"]["accuracy"].as_f64());
        accuracy.ok_or_else(|| {
            let what = format!("the accuracy of `{judge}` cannot be read; run it again");
            RunError::file(self.store.dir(), what)
        })
    }
}

/// Adds the scores of a table, times a weight.
fn add(
    sum: &mut [f64],
    path: &Path,
    (set, classes): (&EncodedSet, &[String]),
    weight: f64,
) -> Result<(), RunError> {
    let wrong = |what: String| {
        let again = "run the stage that left it again";
        RunError::file(path, format!("{what}; {again}"))
    };
    let unread = |e: csv::Error| wrong(format!("it cannot be read: {e}"));
    let reader = ReaderBuilder::new().delimiter(b'\t').from_path(path);
    let mut reader = reader.map_err(unread)?;
    let header = reader.headers().map_err(unread)?;
    let column = |name: &str| {
        let at = header.iter().position(|own| own == name);
        at.ok_or_else(|| wrong(format!("it has no column `{name}`")))
    };
    let index = column("index")?;
    let columns = classes
        .iter()
        .map(|class| column(&format!("score_{class}")));
    let columns: Vec<usize> = columns.collect::<Result<_, RunError>>()?;
    let mut record = StringRecord::new();
    for (example, row) in (0_u32..).zip(sum.chunks_mut(classes.len().max(1))) {
        let more = reader.read_record(&mut record).map_err(unread)?;
        let of = set.row(example).unwrap_or(example);
        if !more || record.get(index) != Some(of.to_string().as_str()) {
            return Err(wrong(format!("it has no scores of row {of} at its place")));
        }
        for (own, &column) in row.iter_mut().zip(&columns) {
            let score = record.get(column).and_then(|cell| cell.parse::<f32>().ok());
            let score = score.filter(|x| x.is_finite());
            let score = score.ok_or_else(|| wrong(format!("a score of row {of} is no number")))?;
            *own += weight * f64::from(score);
        }
    }
    if reader.read_record(&mut record).map_err(unread)? {
        return Err(wrong(format!(
            "it has scores of more than {} texts",
            to_u32(set.len())
        )));
    }
    Ok(())
}
