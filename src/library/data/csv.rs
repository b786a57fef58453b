//! Comma-separated values (RFC 4180): a header, then records; quoted cells may span lines.
//!
//! **Invariant:** a quote that is not closed, or that closes within a cell, is an error at the line that opens it: it
//! would swallow the rows behind it. (The `csv` crate takes both without a word, so cells are separated here.)

use std::io::BufRead;

use super::source::{Input, MOST_COLUMNS, MOST_ROW, no_text, too_long, too_wide};
use super::{Cell, DataError, Format, RowRec, locate};

/// The format.
pub static CSV: Format = Format {
    name: "csv",
    extensions: &["csv"],
    read,
    columns,
    class_names: |_, _| None,
};

fn columns(input: &Input) -> Result<Vec<String>, DataError> {
    let mut records = Records::of(input)?;
    header(&mut records, &input.file)
}

fn header(records: &mut Records<'_>, file: &str) -> Result<Vec<String>, DataError> {
    if !records.next()? || records.is_blank() {
        return Err(DataError::empty(file));
    }
    Ok(records.cells()?.into_iter().map(str::to_owned).collect())
}

fn read(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file.as_str();
    let mut records = Records::of(input)?;
    let header = header(&mut records, file)?;
    let places = locate(&header, columns, file)?;
    while records.next()? {
        // Of several columns a blank line has none; of a single one it is an empty cell.
        if records.is_blank() && header.len() > 1 {
            continue;
        }
        let line = records.begins;
        let cells = records.cells()?;
        if cells.len() != header.len() {
            let message = format!(
                "{} cells where the header has {}",
                cells.len(),
                header.len()
            );
            let wrong = DataError::new(file, message).at(line);
            return Err(
                wrong.help("a text with commas, quotes or line ends stands in double quotes")
            );
        }
        let cells = places.iter().map(|&place| {
            let cell = cells.get(place);
            cell.map_or(Cell::Missing, |cell| Cell::Text((*cell).into()))
        });
        let cells = cells.collect();
        if !each(RowRec { line, cells }) {
            break;
        }
    }
    Ok(())
}

/// Where a reader of records is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a cell.
    Begin,
    /// In a cell without quotes.
    Plain,
    /// In a quoted cell.
    Quoted,
    /// Behind a quote in a quoted cell: its end, or the first of two.
    Quote,
}

/// The records of a file, one at a time.
struct Records<'a> {
    input: &'a Input,
    from: Box<dyn BufRead>,
    /// The cells of the record, one behind the other.
    text: Vec<u8>,
    /// Where each cell ends.
    ends: Vec<usize>,
    /// The line that the record begins on.
    begins: u64,
    /// The line that is being read.
    line: u64,
    /// The line of the quote that was opened last.
    opened: u64,
    quoted: bool,
    /// Whether the last record ended with a carriage return.
    returned: bool,
}

impl<'a> Records<'a> {
    fn of(input: &'a Input) -> Result<Self, DataError> {
        Ok(Self {
            input,
            from: input.text()?,
            text: Vec::new(),
            ends: Vec::new(),
            begins: 1,
            line: 1,
            opened: 1,
            quoted: false,
            returned: false,
        })
    }

    /// Reads the next record; `false` behind the last.
    fn next(&mut self) -> Result<bool, DataError> {
        self.text.clear();
        self.ends.clear();
        if std::mem::take(&mut self.returned) && self.buffer()?.first() == Some(&b'\n') {
            self.from.consume(1);
        }
        (self.begins, self.quoted) = (self.line, false);
        let mut state = State::Begin;
        let mut any = false;
        loop {
            // What is read is taken apart from what is written to.
            let buffer = self.from.fill_buf();
            let buffer = buffer.map_err(|error| self.input.unread(&error))?;
            if buffer.is_empty() {
                if state == State::Quoted {
                    return Err(self.open_quote("is never closed"));
                }
                if any {
                    self.ends.push(self.text.len());
                }
                return Ok(any);
            }
            any = true;
            let (mut used, mut done, mut broken) = (0, false, false);
            while let Some(rest) = buffer.get(used..).filter(|rest| !rest.is_empty()) {
                // Whatever means nothing here goes on at once.
                let run = match state {
                    State::Quoted => memchr::memchr(b'"', rest),
                    State::Plain => memchr::memchr3(b',', b'\n', b'\r', rest),
                    State::Begin | State::Quote => Some(0),
                };
                let (plain, rest) = rest.split_at(run.unwrap_or(rest.len()));
                if state == State::Quoted {
                    self.line += memchr::memchr_iter(b'\n', plain).count() as u64;
                }
                self.text.extend_from_slice(plain);
                used += plain.len();
                let Some(&byte) = rest.first() else {
                    break;
                };
                used += 1;
                state = match (state, byte) {
                    (State::Quoted, _) => State::Quote,
                    (State::Quote, b'"') => {
                        self.text.push(b'"');
                        State::Quoted
                    }
                    (_, b',') => {
                        self.ends.push(self.text.len());
                        State::Begin
                    }
                    (_, b'\n' | b'\r') => {
                        self.line += 1;
                        self.returned = byte == b'\r';
                        done = true;
                        break;
                    }
                    (State::Begin, b'"') => {
                        (self.opened, self.quoted) = (self.line, true);
                        State::Quoted
                    }
                    (State::Quote, _) => {
                        broken = true;
                        break;
                    }
                    (State::Begin | State::Plain, _) => {
                        self.text.push(byte);
                        State::Plain
                    }
                };
            }
            self.from.consume(used);
            if broken {
                return Err(self.open_quote("closes in the middle of a cell"));
            }
            if self.text.len() > MOST_ROW || self.ends.len() > MOST_COLUMNS {
                return Err(self.too_large(state));
            }
            if done {
                self.ends.push(self.text.len());
                return Ok(true);
            }
        }
    }

    /// The error of a row over the bounds. A quote that swallows rows is the likelier cause.
    fn too_large(&self, state: State) -> DataError {
        if state == State::Quoted {
            self.open_quote("does not close within 16 MiB")
        } else if self.ends.len() > MOST_COLUMNS {
            too_wide(&self.input.file, self.begins)
        } else {
            too_long(&self.input.file, self.begins)
        }
    }

    fn buffer(&mut self) -> Result<&[u8], DataError> {
        let buffer = self.from.fill_buf();
        buffer.map_err(|error| self.input.unread(&error))
    }

    fn open_quote(&self, what: &str) -> DataError {
        let message = format!("the quote that opens a cell here {what}");
        DataError::new(self.input.file.as_str(), message)
            .at(self.opened)
            .help("a quoted cell ends with a quote before the comma or the line end; a quote within it is written twice")
    }

    /// Whether it is an empty line.
    fn is_blank(&self) -> bool {
        self.ends.len() == 1 && self.text.is_empty() && !self.quoted
    }

    fn cells(&self) -> Result<Vec<&str>, DataError> {
        let text = std::str::from_utf8(&self.text).map_err(|error| {
            let before = self.text.get(..error.valid_up_to()).unwrap_or_default();
            let breaks = before.iter().filter(|&&byte| byte == b'\n').count();
            no_text(&self.input.file, self.begins + breaks as u64)
        })?;
        let mut begin = 0;
        let cells = self.ends.iter().map(|&end| {
            let cell = text.get(begin..end);
            begin = end;
            cell.ok_or_else(|| no_text(&self.input.file, self.begins))
        });
        cells.collect()
    }
}
