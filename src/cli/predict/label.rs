//! What is added to rows: labels, or texts.

use serde_json::Value as Json;

use super::Refusal;
use super::choose::Choosing;
use super::write::Writing;
use crate::base::units::Count;
use crate::exec::observe::Silent;
use crate::exec::predict::Session;
use crate::library::rows::{Added, Record};
use crate::library::task::{Form, Task};

/// Rows without a text, or with an empty one.
#[derive(Default)]
pub(super) struct Unsaid {
    nulls: u64,
    empty: u64,
    first: Option<u64>,
}

impl Unsaid {
    /// Counts a row's texts.
    pub(super) fn see(&mut self, row: u64, texts: Option<&[String]>) {
        let empty = texts.is_some_and(|t| t.iter().all(String::is_empty));
        self.nulls += u64::from(texts.is_none());
        self.empty += u64::from(empty);
        if texts.is_none() || empty {
            self.first.get_or_insert(row);
        }
    }

    pub(super) fn note(&self) -> Option<String> {
        let first = self.first?;
        let rows = |n: u64| format!("{} row{}", Count(n), if n == 1 { " has" } else { "s have" });
        let nulls = (self.nulls > 0).then(|| {
            format!(
                "{} no text, so that their prediction is empty",
                rows(self.nulls)
            )
        });
        let empty = (self.empty > 0).then(|| {
            format!(
                "{} an empty text, which is labelled as it stands",
                rows(self.empty)
            )
        });
        let said: Vec<String> = nulls.into_iter().chain(empty).collect();
        Some(format!("{} (the first is row {first})", said.join("; ")))
    }
}

/// Names of columns.
pub(super) fn strs(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// What makes the values that are added to rows.
pub(super) enum Source<'a> {
    /// It labels them.
    Labels(Box<Session<'a>>, Answers<'a>),
    /// It goes on with them.
    Writes(Box<Writing<'a>>),
    /// It chooses among their options.
    Chooses(Box<Choosing<'a>>),
}

impl Source<'_> {
    /// The values that are added to some rows.
    pub(super) fn values(
        &mut self,
        part: &[Record],
        (columns, name): (&[String], &str),
        unsaid: &mut Unsaid,
    ) -> Result<Vec<Vec<Json>>, Refusal> {
        match self {
            Self::Chooses(choosing) => choosing.values(part, (columns, name), unsaid),
            Self::Writes(writing) => writing.values(part, (columns, name), unsaid),
            Self::Labels(session, answers) => {
                let width = answers.columns()?.len();
                label(part, columns, session, (answers, width), unsaid, name)
            }
        }
    }
}

/// The values that are added to some rows.
#[expect(
    clippy::too_many_arguments,
    reason = "rows, the session that labels them, and what is noted on the way"
)]
fn label(
    part: &[Record],
    columns: &[String],
    session: &mut Session<'_>,
    (answers, width): (&Answers<'_>, usize),
    unsaid: &mut Unsaid,
    name: &str,
) -> Result<Vec<Vec<Json>>, Refusal> {
    if answers.task.words().is_some() {
        return label_words(part, columns, session, (answers, width), unsaid, name);
    }
    let mut texts = Vec::new();
    let mut has = Vec::with_capacity(part.len());
    for record in part {
        let own = record.texts(columns, name)?;
        unsaid.see(record.row, own.as_deref());
        has.push(own.is_some());
        texts.extend(own);
    }
    let predictions = if texts.is_empty() {
        None
    } else {
        Some(session.score(&texts, &mut Silent)?)
    };
    let scores = predictions
        .iter()
        .flat_map(|p| p.scores.chunks(p.width.max(1)));
    let rows = placed(has, scores);
    Ok(rows.map(|row| answers.values(row, width)).collect())
}

/// What was made of the rows that have something, at their places; `None` at those of the others.
fn placed<T>(has: Vec<bool>, made: impl IntoIterator<Item = T>) -> impl Iterator<Item = Option<T>> {
    let mut made = made.into_iter();
    has.into_iter()
        .map(move |has| if has { made.next() } else { None })
}

/// The same of rows of words.
#[expect(
    clippy::too_many_arguments,
    reason = "rows, the session that labels them, and what is noted on the way"
)]
fn label_words(
    part: &[Record],
    columns: &[String],
    session: &mut Session<'_>,
    (answers, width): (&Answers<'_>, usize),
    unsaid: &mut Unsaid,
    name: &str,
) -> Result<Vec<Vec<Json>>, Refusal> {
    let column = columns.first().map_or("tokens", String::as_str);
    let mut rows = Vec::new();
    let mut has = Vec::with_capacity(part.len());
    for record in part {
        let own = record
            .words(column, name)?
            .filter(|words| !words.is_empty());
        unsaid.see(record.row, own.as_deref());
        has.push(own.is_some());
        rows.extend(own);
    }
    let made = match rows.is_empty() {
        true => Vec::new(),
        false => session.label_words(&rows, answers.form, &mut Silent)?,
    };
    let empty = || vec![Json::Null; width];
    let rows = placed(has, made);
    Ok(rows.map(|own| own.unwrap_or_else(empty)).collect())
}

/// What is said of each row.
pub(super) struct Answers<'a> {
    pub(super) task: &'a dyn Task,
    pub(super) classes: &'a [String],
    pub(super) form: Form,
}

impl Answers<'_> {
    /// The names of what is added.
    pub(super) fn columns(&self) -> Result<Vec<Added>, Refusal> {
        let list = self.task.answers(self.classes, self.form);
        list.map_err(Refusal::Wrong)
    }

    /// What is added to a row with these scores; nulls where it has none.
    fn values(&self, scores: Option<&[f32]>, columns: usize) -> Vec<Json> {
        match scores {
            Some(scores) => self.task.values(self.classes, self.form, scores),
            None => vec![Json::Null; columns],
        }
    }
}
