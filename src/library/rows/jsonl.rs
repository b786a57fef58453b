//! JSON lines: an object a line, handed on as it is written.

use std::io::{BufRead, Write};

use serde_json::{Map, Value as Json};

use super::delimited::Lines;
use super::{Added, Record, Rows, Sink, Unwritten, taken};
use crate::library::data::DataError;

/// Reads objects.
pub(super) struct Reader {
    lines: Lines,
    row: u64,
}

impl Reader {
    pub(super) fn open(input: Box<dyn BufRead>, file: &str) -> Self {
        Self {
            lines: Lines::new(input, file),
            row: 0,
        }
    }

    fn record(&mut self, line: String) -> Result<Record, DataError> {
        self.row += 1;
        let parsed: Result<Map<String, Json>, _> = serde_json::from_str(&line);
        let fields = parsed.map_err(|error| {
            DataError::new(
                self.lines.file(),
                format!("this is no JSON object: {error}"),
            )
            .at(self.lines.line())
            .help("JSON lines hold one object a line, such as {\"text\": \"…\"}")
        })?;
        Ok(Record {
            row: self.row,
            fields,
            raw: Some(line.trim().to_owned()),
        })
    }
}

impl Rows for Reader {
    fn columns(&self) -> Option<&[String]> {
        None
    }

    fn next(&mut self) -> Option<Result<Record, DataError>> {
        loop {
            match self.lines.next()? {
                // A blank line holds no object, and is no row.
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Some(self.record(line)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Writes objects.
pub(super) struct Out<'a> {
    out: Box<dyn Write + Send + 'a>,
    added: Vec<Added>,
    file: String,
}

impl<'a> Out<'a> {
    pub(super) fn new(out: Box<dyn Write + Send + 'a>, added: Vec<Added>, file: &str) -> Self {
        Self {
            out,
            added,
            file: file.to_owned(),
        }
    }
}

impl Sink for Out<'_> {
    fn write(&mut self, records: &[Record], added: Vec<Vec<Json>>) -> Result<(), Unwritten> {
        for (record, values) in records.iter().zip(added) {
            if let Some(own) = self
                .added
                .iter()
                .find(|a| record.fields.contains_key(&a.name))
            {
                taken(std::slice::from_ref(&own.name), &self.added, &self.file)?;
            }
            // The bytes of the row stay: numbers keep their digits.
            let mut line = match &record.raw {
                Some(raw) => raw.strip_suffix('}').unwrap_or(raw).trim_end().to_owned(),
                None => {
                    let text = Json::Object(record.fields.clone()).to_string();
                    text.strip_suffix('}').unwrap_or(&text).to_owned()
                }
            };
            let mut first = record.fields.is_empty();
            for (own, value) in self.added.iter().zip(values) {
                let name = Json::String(own.name.clone());
                line.push_str(if first { "" } else { "," });
                line.push_str(&format!("{name}:{value}"));
                first = false;
            }
            line.push_str("}\n");
            self.out.write_all(line.as_bytes())?;
        }
        // What is read from a pipe line by line is answered as it comes.
        self.out.flush()?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Unwritten> {
        Ok(self.out.flush()?)
    }
}
