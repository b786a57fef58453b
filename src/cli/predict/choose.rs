//! Rows with options, of which the likeliest is chosen.

use serde_json::{Value as Json, json};

use super::Refusal;
use super::label::Unsaid;
use crate::exec::observe::Silent;
use crate::exec::predict::{Choice, Chooser, Question};
use crate::library::data::DataError;
use crate::library::rows::{Added, Record};
use crate::library::task::Form;

/// What is added to a row whose options are compared by their likelihoods.
pub(super) fn columns() -> Vec<Added> {
    let named = |(name, number): (&str, bool)| Added {
        name: name.to_owned(),
        number,
    };
    [
        ("choice", true),
        ("choice_norm", true),
        ("loglikelihoods", false),
    ]
    .map(named)
    .to_vec()
}

/// A model that chooses among the options of rows.
pub(in crate::cli) struct Choosing<'a> {
    pub(super) chooser: Chooser<'a>,
    /// The columns of the options.
    pub(super) options: &'a [String],
    /// How values are written.
    pub(super) form: Form,
}

impl Choosing<'_> {
    /// The values that are added to some rows.
    pub(super) fn values(
        &mut self,
        part: &[Record],
        (columns, name): (&[String], &str),
        unsaid: &mut Unsaid,
    ) -> Result<Vec<Vec<Json>>, Refusal> {
        let mut questions = Vec::with_capacity(part.len());
        let mut has = Vec::with_capacity(part.len());
        for record in part {
            let own = record.texts(columns, name)?;
            unsaid.see(record.row, own.as_deref());
            has.push(own.is_some());
            if let Some(own) = own {
                questions.push(Question {
                    prompt: own.concat(),
                    options: self.options_of(record, name)?,
                });
            }
        }
        let made = self.chooser.choose(&questions, self.form, &mut Silent)?;
        let mut made = made.into_iter();
        let values = has.into_iter().map(|has| {
            let (best, sums) = match if has { made.next() } else { None } {
                Some(Choice::Likeliest { best, sums }) => (best, sums),
                Some(Choice::Scored(values)) => return values,
                None => return vec![Json::Null; 3],
            };
            let place = |i: usize| json!(best.get(i));
            let sums = json!(sums);
            let sums = if self.form.nested {
                sums
            } else {
                Json::String(sums.to_string())
            };
            vec![place(0), place(1), sums]
        });
        Ok(values.collect())
    }

    /// The options of a row.
    fn options_of(&self, record: &Record, name: &str) -> Result<Vec<String>, DataError> {
        let wrong = |why: String| DataError::new(name, format!("row {}: {why}", record.row));
        let text = |column: &str, value: &Json| match value {
            Json::String(text) if !text.is_empty() => Ok(text.clone()),
            Json::Number(number) => Ok(number.to_string()),
            _ => Err(wrong(format!(
                "`{column}` holds an option that is no text, or an empty one"
            ))),
        };
        let mut all = Vec::new();
        for column in self.options {
            match record.fields.get(column) {
                Some(Json::Array(list)) => {
                    for value in list {
                        all.push(text(column, value)?);
                    }
                }
                Some(value) => all.push(text(column, value)?),
                None => {
                    return Err(wrong(format!(
                        "there is no `{column}`, which `--choices` names"
                    )));
                }
            }
        }
        match all.len() {
            0 | 1 => Err(wrong("there are fewer than two options".to_owned())),
            _ => Ok(all),
        }
    }
}
