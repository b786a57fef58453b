//! Tables of predictions, written a row at a time.
//!
//! Cells with a tab, a line break or a quote stand in quotes, as in CSV, so that every reader of delimited text
//! finds the classes as they are called.

use std::io::Write;

use csv::{Terminator, Writer, WriterBuilder};

use super::score::ScoredBatch;
use crate::files::RunError;
use crate::library::data::tokens::EncodedSet;
use crate::library::task::{Names, Scored, Task};

/// A table being written.
pub struct Table<'a, W: Write> {
    out: Writer<W>,
    set: &'a EncodedSet,
    task: &'a dyn Task,
    names: Names<'a>,
}

impl<'a, W: Write> Table<'a, W> {
    /// Begins a table: one row an example, or one a masked place, in the columns of the task.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(
        out: W,
        set: &'a EncodedSet,
        task: &'a dyn Task,
        names: Names<'a>,
    ) -> Result<Self, RunError> {
        let mut out = WriterBuilder::new()
            .delimiter(b'\t')
            .terminator(Terminator::Any(b'\n'))
            .from_writer(out);
        let own = task.columns(names.classes);
        let header = std::iter::once("index".to_owned()).chain(own);
        out.write_record(header).map_err(unwritten)?;
        Ok(Self {
            out,
            set,
            task,
            names,
        })
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add(&mut self, batch: ScoredBatch<'_>) -> Result<(), RunError> {
        for (row, scores) in batch.rows.iter().zip(batch.scores.chunks(batch.width)) {
            let index = self.set.row(row.example).unwrap_or(row.example);
            let scored = Scored {
                position: row.position,
                target: &row.target,
                predicted: &row.predicted,
                scores,
            };
            let own = self.task.cells(self.names, scored);
            let cells = std::iter::once(index.to_string()).chain(own);
            self.out.write_record(cells).map_err(unwritten)?;
        }
        Ok(())
    }

    /// Adds the row of a row of the data.
    ///
    /// # Errors
    /// What the file system says.
    pub fn row(&mut self, index: u32, own: Vec<String>) -> Result<(), RunError> {
        let cells = std::iter::once(index.to_string()).chain(own);
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

fn unwritten(error: csv::Error) -> RunError {
    RunError::file("predictions.tsv", format!("cannot write it: {error}"))
}
