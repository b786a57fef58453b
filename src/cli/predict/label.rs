//! What is added to rows: labels, or texts.

use std::sync::Arc;

use serde_json::Value as Json;

use super::Refusal;
use super::choose::Choosing;
use super::write::Writing;
use crate::base::units::Count;
use crate::exec::observe::Silent;
use crate::exec::predict::{Predictor, Session};
use crate::library::rows::{Added, Record};
use crate::library::task::Form;

/// Rows without a text, or with an empty one.
#[derive(Default)]
pub(in crate::cli) struct Unsaid {
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
pub(in crate::cli) enum Source<'a> {
    /// It labels them.
    Labels(Box<Session>, Answers),
    /// It goes on with them.
    Writes(Box<Writing>),
    /// It chooses among their options.
    Chooses(Box<Choosing<'a>>),
}

impl Source<'_> {
    /// The values that are added to some rows.
    pub(in crate::cli) fn values(
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
                let words = answers.predictor.task.words().is_some();
                let (has, rows) = gathered(part, (columns, name), words, unsaid)?;
                let made = match rows.is_empty() {
                    true => Vec::new(),
                    false => session.label(&session.prepare(&rows)?, answers.form, &mut Silent)?,
                };
                Ok(placed(has, made, width))
            }
        }
    }
}

/// What is read of some rows: texts of each, or its words, where it has any; the places of those that have.
pub(in crate::cli) fn gathered(
    part: &[Record],
    (columns, name): (&[String], &str),
    words: bool,
    unsaid: &mut Unsaid,
) -> Result<(Vec<bool>, Vec<Vec<String>>), Refusal> {
    let column = columns.first().map_or("tokens", String::as_str);
    let (mut rows, mut has) = (Vec::new(), Vec::with_capacity(part.len()));
    for record in part {
        let own = if words {
            record.words(column, name)?.filter(|own| !own.is_empty())
        } else {
            record.texts(columns, name)?
        };
        unsaid.see(record.row, own.as_deref());
        has.push(own.is_some());
        rows.extend(own);
    }
    Ok((has, rows))
}

/// What was made of the rows that have something, at their places; nulls at those of the others.
pub(in crate::cli) fn placed(
    has: Vec<bool>,
    made: impl IntoIterator<Item = Vec<Json>>,
    width: usize,
) -> Vec<Vec<Json>> {
    let mut made = made.into_iter();
    let each = has.into_iter().map(|has| match has {
        true => made.next(),
        false => None,
    });
    each.map(|own| own.unwrap_or_else(|| vec![Json::Null; width]))
        .collect()
}

/// What is said of each row.
pub(in crate::cli) struct Answers {
    pub(in crate::cli) predictor: Arc<Predictor>,
    pub(in crate::cli) form: Form,
}

impl Answers {
    /// The names of what is added.
    pub(in crate::cli) fn columns(&self) -> Result<Vec<Added>, Refusal> {
        let classes = &self.predictor.description.classes;
        let list = self.predictor.task.answers(classes, self.form);
        list.map_err(Refusal::Wrong)
    }
}
