//! Tables of predictions, written a row at a time.
//!
//! Cells with a tab, a line break or a quote stand in quotes, as in CSV, so that every reader of delimited text
//! finds the classes as they are called.

use std::io::Write;

use csv::{Terminator, Writer, WriterBuilder};

use super::score::Told;
use crate::files::RunError;
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::metric::best;
use crate::library::model::HeadKind;
use crate::library::tokenizer::Tokenizer;

/// A table being written.
pub struct Table<'a, W: Write> {
    out: Writer<W>,
    set: &'a EncodedSet,
    head: &'a HeadKind,
    tokens: Option<&'a Tokenizer>,
}

impl<'a, W: Write> Table<'a, W> {
    /// Begins a table: one row an example with its label, what it was told and its scores; with `tokens`, one row a
    /// masked place with the token that stood there and the one that was told.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(
        out: W,
        set: &'a EncodedSet,
        head: &'a HeadKind,
        tokens: Option<&'a Tokenizer>,
    ) -> Result<Self, RunError> {
        let mut out = WriterBuilder::new()
            .delimiter(b'\t')
            .terminator(Terminator::Any(b'\n'))
            .from_writer(out);
        let header: Vec<String> = match (tokens, head) {
            (Some(_), _) => ["index", "position", "label", "prediction"]
                .map(str::to_owned)
                .to_vec(),
            (None, head) => ["index", "label", "prediction"]
                .into_iter()
                .map(str::to_owned)
                .chain(names(head).iter().map(|name| format!("score_{name}")))
                .collect(),
        };
        out.write_record(&header).map_err(unwritten)?;
        Ok(Self {
            out,
            set,
            head,
            tokens,
        })
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add(&mut self, told: Told<'_>) -> Result<(), RunError> {
        if let Some(tokens) = self.tokens {
            for (guess, label) in told.masked {
                let index = self.set.row(guess.example).unwrap_or(guess.example);
                let token = |id: u32| tokens.token(id).unwrap_or_else(|| "?".to_owned());
                let cells = [
                    index.to_string(),
                    guess.position.to_string(),
                    token(*label),
                    token(guess.token),
                ];
                self.out.write_record(&cells).map_err(unwritten)?;
            }
            return Ok(());
        }
        for (example, row) in told.examples.iter().zip(told.scores.chunks(told.width)) {
            self.row(*example, row)?;
        }
        Ok(())
    }

    fn row(&mut self, example: u32, row: &[f32]) -> Result<(), RunError> {
        let names = names(self.head);
        let class = |c: u32| names.get(c as usize).map_or("?", String::as_str);
        let label = match self.set.label(example) {
            None | Some(Target::None) => String::new(),
            Some(Target::Class(c)) => class(c).to_owned(),
            Some(Target::Score(x)) => x.to_string(),
        };
        let told = match self.head {
            HeadKind::Classes(_) => class(best(row)).to_owned(),
            HeadKind::Regression | HeadKind::Vocabulary => {
                row.first().map(ToString::to_string).unwrap_or_default()
            }
        };
        let index = self.set.row(example).unwrap_or(example);
        let first = [index.to_string(), label, told];
        let cells = first.into_iter().chain(row.iter().map(ToString::to_string));
        self.out.write_record(cells).map_err(unwritten)
    }

    /// Ends the table.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(mut self) -> Result<(), RunError> {
        self.out.flush().map_err(|e| unwritten(e.into()))
    }
}

/// What the columns of scores are called.
fn names(head: &HeadKind) -> Vec<String> {
    match head {
        HeadKind::Classes(names) => names.clone(),
        HeadKind::Regression => vec!["value".to_owned()],
        HeadKind::Vocabulary => Vec::new(),
    }
}

fn unwritten(error: csv::Error) -> RunError {
    RunError::file("predictions.tsv", format!("cannot write it: {error}"))
}
