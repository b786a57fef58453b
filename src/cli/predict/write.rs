//! Rows that are gone on with.

use serde_json::Value as Json;

use super::Refusal;
use super::label::Unsaid;
use crate::exec::generate::{Ears, Prompt};
use crate::exec::observe::Silent;
use crate::exec::predict::{Unfit, Writer};
use crate::library::data::DataError;
use crate::library::rows::{Added, Record};

/// The column with what was made.
pub(super) const GENERATED: &str = "generated";

/// Columns of prompts that are looked for beside those of the training.
pub(super) const PROMPTS: [&str; 3] = ["prompt", "messages", "text"];

/// The conversation of a row, where its column holds a list of messages.
fn conversation<'a>(record: &'a Record, columns: &[String]) -> Option<&'a [Json]> {
    let [column] = columns else { return None };
    let list = record.fields.get(column)?.as_array()?;
    let messages = list.iter().all(Json::is_object);
    messages.then_some(list.as_slice())
}

/// What is added to a row.
pub(super) fn columns() -> Vec<Added> {
    vec![Added {
        name: GENERATED.to_owned(),
        number: false,
    }]
}

/// A model that goes on with rows.
pub(super) struct Writing<'a> {
    pub(super) writer: Writer<'a>,
    /// Rows so far: what draws are keyed by.
    pub(super) rows: u64,
}

impl Writing<'_> {
    /// The values that are added to some rows.
    pub(super) fn values(
        &mut self,
        part: &[Record],
        (columns, name): (&[String], &str),
        unsaid: &mut Unsaid,
    ) -> Result<Vec<Vec<Json>>, Refusal> {
        let mut prompts = Vec::with_capacity(part.len());
        let mut has = Vec::with_capacity(part.len());
        for record in part {
            let wrong = |why: Unfit| DataError::new(name, format!("row {}: {why}", record.row));
            let ids = match conversation(record, columns) {
                Some(messages) => Some(self.writer.conversation(messages).map_err(wrong)?),
                None => {
                    let own = record.texts(columns, name)?;
                    unsaid.see(record.row, own.as_deref());
                    let own = own.map(|text| self.writer.prompt(&text.concat()));
                    own.transpose().map_err(wrong)?
                }
            };
            has.push(ids.is_some());
            let text = self.rows;
            prompts.extend(ids.map(|ids| Prompt { text, ids }));
            self.rows += 1;
        }
        let mut each = |_: usize, _: &str| true;
        let mut ears = Ears {
            each: &mut each,
            observer: &mut Silent,
        };
        let mut made = self.writer.write(&prompts, &mut ears)?.into_iter();
        let values = has.into_iter().map(|has| {
            let text = if has { made.next() } else { None };
            vec![text.map_or(Json::Null, |made| Json::String(made.text))]
        });
        Ok(values.collect())
    }
}
