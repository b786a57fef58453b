//! Rows that are gone on with.

use serde_json::Value as Json;

use super::Refusal;
use super::label::Unsaid;
use crate::cli::templating::Given;
use crate::exec::generate::{Ears, Prompt};
use crate::exec::observe::Silent;
use crate::exec::predict::{Unfit, Writer};
use crate::library::chat::{messages, tools};
use crate::library::data::DataError;
use crate::library::rows::{Added, Record};

/// The column with what was made.
pub(super) const GENERATED: &str = "generated";

/// Columns of prompts that are looked for beside those of the training.
pub(in crate::cli) const PROMPTS: [&str; 3] = ["prompt", MESSAGES, "text"];

/// The column of conversations, whose texts are JSON where files hold nothing else.
const MESSAGES: &str = "messages";

/// The column of the functions that the assistant of a conversation may call.
const TOOLS: &str = "tools";

/// The conversation of a row, where its column holds one, and its tools.
fn conversation(record: &Record, columns: &[String]) -> Option<Result<(Vec<Json>, Json), String>> {
    let [column] = columns else { return None };
    let value = record.fields.get(column)?;
    let is = value.is_array() || column == MESSAGES && value.is_string();
    let own = || {
        let named = |why: String| format!("`{TOOLS}`: {why}");
        let tools = record.fields.get(TOOLS).cloned().map(tools);
        let tools = tools.transpose().map_err(named)?.unwrap_or(Json::Null);
        Ok((messages(value.clone())?, tools))
    };
    is.then(own)
}

/// What is added to a row.
pub(in crate::cli) fn columns() -> Vec<Added> {
    vec![Added {
        name: GENERATED.to_owned(),
        number: false,
    }]
}

/// A model that goes on with rows.
pub(in crate::cli) struct Writing {
    pub(in crate::cli) writer: Writer,
    /// What its template is given beside the messages.
    pub(in crate::cli) given: Given,
    /// Rows so far: what draws are keyed by.
    pub(in crate::cli) rows: u64,
}

impl Writing {
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
                Some(messages) => {
                    let (messages, tools) = messages.map_err(|why| wrong(why.into()))?;
                    let tools = Some(&tools).filter(|tools| !tools.is_null());
                    if tools.is_some() && self.writer.converses() && !self.writer.reads(TOOLS) {
                        let why = "it has `tools`, which the model's chat template does not read";
                        return Err(wrong(why.to_owned().into()).into());
                    }
                    let rendering = self.given.rendering(tools);
                    let ids = self.writer.conversation(&messages, rendering);
                    Some(ids.map_err(wrong)?)
                }
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
