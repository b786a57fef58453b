//! Sentences of a CoNLL file, each a row of words and, where there are several columns, of tags.

use std::io::BufRead;

use serde_json::{Map, Value as Json};

use super::delimited::Lines;
use super::{Record, Rows};
use crate::library::data::DataError;
use crate::library::data::conll::{TAGS, WORDS, cells, ends};

/// Reads sentences.
pub(super) struct Reader {
    lines: Lines,
    row: u64,
    done: bool,
}

impl Reader {
    pub(super) fn open(input: Box<dyn BufRead>, file: &str) -> Self {
        Self {
            lines: Lines::new(input, file),
            row: 0,
            done: false,
        }
    }

    fn record(&mut self, words: Vec<Json>, tags: Vec<Json>) -> Record {
        self.row += 1;
        let mut fields = Map::new();
        fields.insert(WORDS.to_owned(), Json::Array(words));
        if !tags.is_empty() {
            fields.insert(TAGS.to_owned(), Json::Array(tags));
        }
        Record {
            row: self.row,
            fields,
            raw: None,
        }
    }
}

impl Rows for Reader {
    fn columns(&self) -> Option<&[String]> {
        None
    }

    fn next(&mut self) -> Option<Result<Record, DataError>> {
        let (mut words, mut tags) = (Vec::new(), Vec::new());
        while !self.done {
            let line = match self.lines.next() {
                None => {
                    self.done = true;
                    break;
                }
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(line)) => line,
            };
            let own = cells(&line);
            if ends(&own) {
                if words.is_empty() {
                    continue;
                }
                break;
            }
            if own.iter().any(|cell| cell.is_empty()) {
                let wrong = DataError::new(self.lines.file(), "a column of the word is empty");
                return Some(Err(wrong.at(self.lines.line())));
            }
            let cell = |cell: &&str| Json::String((*cell).to_owned());
            words.extend(own.first().map(cell));
            tags.extend(own.get(1..).and_then(<[&str]>::last).map(cell));
        }
        if words.is_empty() {
            return None;
        }
        if !tags.is_empty() && tags.len() != words.len() {
            let wrong = "some words of the sentence have a tag, and some have none";
            let wrong = DataError::new(self.lines.file(), wrong).at(self.lines.line());
            return Some(Err(wrong));
        }
        Some(Ok(self.record(words, tags)))
    }
}
