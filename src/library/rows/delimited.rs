//! Comma- and tab-separated values.

use std::io::{BufRead, Read, Write};

use serde_json::{Map, Value as Json};

use super::{Added, LONGEST, Record, Rows, Sink, Unwritten, columns_of, only, taken, wrong};
use crate::library::data::DataError;

/// Lines of UTF-8 text, none longer than it may be.
pub(super) struct Lines {
    input: Box<dyn BufRead>,
    file: String,
    line: u64,
    bytes: Vec<u8>,
}

impl Lines {
    pub(super) fn new(input: Box<dyn BufRead>, file: &str) -> Self {
        Self {
            input,
            file: file.to_owned(),
            line: 0,
            bytes: Vec::new(),
        }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The number of the last line, from 1.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    /// The next line, without its end.
    pub(super) fn next(&mut self) -> Option<Result<String, DataError>> {
        self.bytes.clear();
        let mut input = (&mut self.input).take(LONGEST);
        self.line += 1;
        let at = |message: String| DataError::new(&self.file, message).at(self.line);
        match input.read_until(b'\n', &mut self.bytes) {
            Err(error) => return Some(Err(at(error.to_string()))),
            Ok(0) => return None,
            Ok(_) => {}
        }
        let mut line = self.bytes.as_slice();
        if let Some(rest) = line.strip_suffix(b"\n") {
            line = rest.strip_suffix(b"\r").unwrap_or(rest);
        } else if line.len() as u64 == LONGEST {
            return Some(Err(at(format!(
                "a line is longer than {} MiB",
                LONGEST >> 20
            ))));
        }
        if self.line == 1 {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        Some(match std::str::from_utf8(line) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(at("this is not UTF-8 text".to_owned()).help("save the file as UTF-8")),
        })
    }
}

/// Columns of a header, each named once.
fn header(names: Vec<String>, file: &str) -> Result<Vec<String>, DataError> {
    for (i, name) in names.iter().enumerate() {
        if names.iter().skip(i + 1).any(|other| other == name) {
            return Err(DataError::new(file, format!("two columns are named `{name}`")).at(1));
        }
    }
    Ok(names)
}

fn empty(file: &str) -> DataError {
    DataError::new(file, "the file is empty").help("its first row names the columns")
}

fn fields(columns: &[String], cells: impl Iterator<Item = String>) -> Map<String, Json> {
    let cells = cells.map(Json::String);
    columns.iter().cloned().zip(cells).collect()
}

/// Reads tab-separated values: nothing is quoted, and every line is a row. In a file of one column a blank line is a row
/// with an empty text; in others, it is none.
pub(super) struct Tsv {
    lines: Lines,
    columns: Vec<String>,
    row: u64,
}

impl Tsv {
    pub(super) fn open(input: Box<dyn BufRead>, file: &str) -> Result<Self, DataError> {
        let mut lines = Lines::new(input, file);
        let line = lines.next().ok_or_else(|| empty(file))??;
        let names = line.split('\t').map(str::to_owned).collect();
        Ok(Self {
            lines,
            columns: header(names, file)?,
            row: 0,
        })
    }
}

impl Rows for Tsv {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.columns)
    }

    fn next(&mut self) -> Option<Result<Record, DataError>> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if line.is_empty() && self.columns.len() > 1 {
                continue;
            }
            self.row += 1;
            let cells = line.split('\t').count();
            if cells != self.columns.len() {
                let message = format!("{cells} cells where the header has {}", self.columns.len());
                return Some(Err(DataError::new(self.lines.file(), message)
                    .at(self.lines.line())
                    .help("TSV knows no quoting: a text holds no tab")));
            }
            return Some(Ok(Record {
                row: self.row,
                fields: fields(&self.columns, line.split('\t').map(str::to_owned)),
                raw: None,
            }));
        }
    }
}

/// Reads comma-separated values (RFC 4180). In a file of one column a blank line is a row with an empty text.
pub(super) struct Csv {
    reader: ::csv::Reader<Guard>,
    columns: Vec<String>,
    record: ::csv::StringRecord,
    file: String,
    row: u64,
}

impl Csv {
    pub(super) fn open(input: Box<dyn BufRead>, file: &str) -> Result<Self, DataError> {
        let mut reader = ::csv::ReaderBuilder::new().from_reader(Guard::new(input));
        let names = reader.headers().map_err(|error| refused(&error, file, 0))?;
        let names: Vec<String> = names.iter().map(str::to_owned).collect();
        if names.is_empty() {
            return Err(empty(file));
        }
        Ok(Self {
            reader,
            columns: header(names, file)?,
            record: ::csv::StringRecord::new(),
            file: file.to_owned(),
            row: 0,
        })
    }
}

impl Rows for Csv {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.columns)
    }

    fn next(&mut self) -> Option<Result<Record, DataError>> {
        self.row += 1;
        match self.reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => Some(Ok(Record {
                row: self.row,
                fields: fields(&self.columns, self.record.iter().map(str::to_owned)),
                raw: None,
            })),
            Err(error) => Some(Err(refused(&error, &self.file, self.row))),
        }
    }
}

fn refused(error: &::csv::Error, file: &str, row: u64) -> DataError {
    match error.kind() {
        ::csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => wrong(
            file,
            row,
            format!("{len} cells where the header has {expected_len}"),
        )
        .help("a text with commas, quotes or line ends stands in double quotes"),
        ::csv::ErrorKind::Utf8 { .. } => {
            wrong(file, row, "this is not UTF-8 text").help("save the file as UTF-8")
        }
        // What the guard says has its place.
        ::csv::ErrorKind::Io(why) => DataError::new(file, why.to_string()),
        _ => wrong(file, row, error.to_string()).help("the file should follow RFC 4180"),
    }
}

/// Where a byte of CSV stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the beginning of a row.
    Row,
    /// At the beginning of a cell.
    Cell,
    /// In a cell without quotes, or behind its closing quote.
    Plain,
    /// In quotes.
    Quoted,
    /// Behind a quote in quotes: the end of them, or half of a doubled one.
    Quote,
}

/// Hands CSV on and looks at it: a quote that nothing closes and a row without end are errors, and a blank line in a file
/// of one column is a row, for which the decoder needs quotes.
struct Guard {
    input: Box<dyn BufRead>,
    ready: Vec<u8>,
    given: usize,
    at: At,
    line: u64,
    opened: u64,
    length: u64,
    /// Commas of the header, until it ends.
    header: bool,
    columns: u64,
}

impl Guard {
    fn new(input: Box<dyn BufRead>) -> Self {
        Self {
            input,
            ready: Vec::new(),
            given: 0,
            at: At::Row,
            line: 1,
            opened: 0,
            length: 0,
            header: true,
            columns: 1,
        }
    }

    /// Looks at a byte and hands it on.
    fn take(&mut self, byte: u8) {
        self.length += 1;
        self.at = match (self.at, byte) {
            (At::Quoted, b'"') => At::Quote,
            (At::Quote, b'"') | (At::Quoted, _) => At::Quoted,
            (At::Row | At::Cell, b'"') => {
                self.opened = self.line;
                At::Quoted
            }
            (at, b'\n') => {
                if at == At::Row && !self.header && self.columns == 1 {
                    self.ready.extend_from_slice(b"\"\"");
                }
                self.header = self.header && at == At::Row;
                self.length = 0;
                At::Row
            }
            // Half of a line end.
            (At::Row, b'\r') => At::Row,
            (_, b',') => {
                self.columns += u64::from(self.header);
                At::Cell
            }
            _ => At::Plain,
        };
        self.line += u64::from(byte == b'\n');
        self.ready.push(byte);
    }
}

impl Read for Guard {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let damaged = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
            let more = self.input.fill_buf()?.to_vec();
            self.input.consume(more.len());
            if more.is_empty() && self.at == At::Quoted {
                return Err(damaged(format!(
                    "line {}: a quote opens here and nothing closes it; double it where it belongs to the text",
                    self.opened
                )));
            }
            more.into_iter().for_each(|byte| self.take(byte));
            if self.length > LONGEST {
                return Err(damaged(format!(
                    "line {}: a row is longer than {} MiB; a quote may be open",
                    self.line,
                    LONGEST >> 20
                )));
            }
        }
        let left = self.ready.get(self.given..).unwrap_or_default();
        let n = left.len().min(out.len());
        for (to, from) in out.iter_mut().zip(left) {
            *to = *from;
        }
        self.given += n;
        Ok(n)
    }
}

/// Writes comma- or tab-separated values.
pub(super) struct Out<'a> {
    writer: ::csv::Writer<Box<dyn Write + Send + 'a>>,
    tabs: bool,
    columns: Option<Vec<String>>,
    added: Vec<Added>,
    file: String,
}

impl<'a> Out<'a> {
    pub(super) fn csv(
        out: Box<dyn Write + Send + 'a>,
        columns: Option<Vec<String>>,
        added: Vec<Added>,
        file: &str,
    ) -> Result<Self, Unwritten> {
        let builder = ::csv::WriterBuilder::new();
        Self::begun(builder.from_writer(out), false, columns, added, file)
    }

    pub(super) fn tsv(
        out: Box<dyn Write + Send + 'a>,
        columns: Option<Vec<String>>,
        added: Vec<Added>,
        file: &str,
    ) -> Result<Self, Unwritten> {
        let mut builder = ::csv::WriterBuilder::new();
        builder
            .delimiter(b'\t')
            .quote_style(::csv::QuoteStyle::Never);
        Self::begun(builder.from_writer(out), true, columns, added, file)
    }

    fn begun(
        writer: ::csv::Writer<Box<dyn Write + Send + 'a>>,
        tabs: bool,
        columns: Option<Vec<String>>,
        added: Vec<Added>,
        file: &str,
    ) -> Result<Self, Unwritten> {
        let mut own = Self {
            writer,
            tabs,
            columns: None,
            added,
            file: file.to_owned(),
        };
        if let Some(columns) = columns {
            own.header(columns)?;
        }
        Ok(own)
    }

    fn header(&mut self, columns: Vec<String>) -> Result<(), Unwritten> {
        taken(&columns, &self.added, &self.file)?;
        let added = self.added.iter().map(|a| a.name.clone());
        let names: Vec<String> = columns.iter().cloned().chain(added).collect();
        for name in &names {
            self.sayable(name, 0)?;
        }
        self.row(&names)?;
        self.columns = Some(columns);
        Ok(())
    }

    /// TSV has no way to say a tab or a line end; nothing is changed in silence.
    fn sayable(&self, text: &str, row: u64) -> Result<(), DataError> {
        if self.tabs && text.contains(['\t', '\n', '\r']) {
            let place = if row == 0 {
                "a column's name"
            } else {
                "a text"
            };
            return Err(wrong(
                &self.file,
                row,
                format!("{place} holds a tab or a line end, which TSV cannot say"),
            )
            .help("write `--format csv` or `--format jsonl`"));
        }
        Ok(())
    }

    fn row(&mut self, cells: &[String]) -> Result<(), Unwritten> {
        let failed = |error: ::csv::Error| match error.into_kind() {
            ::csv::ErrorKind::Io(why) => Unwritten::Output(why),
            other => Unwritten::Output(std::io::Error::other(format!("{other:?}"))),
        };
        self.writer.write_record(cells).map_err(failed)
    }
}

/// A value as a cell.
fn cell(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

impl Sink for Out<'_> {
    fn write(&mut self, records: &[Record], added: Vec<Vec<Json>>) -> Result<(), Unwritten> {
        if self.columns.is_none() {
            self.header(columns_of(records))?;
        }
        let columns = self.columns.clone().unwrap_or_default();
        for (record, values) in records.iter().zip(added) {
            only(record, &columns, &self.file)?;
            let own = columns.iter().map(|name| cell(record.fields.get(name)));
            let cells: Vec<String> = own.chain(values.iter().map(|v| cell(Some(v)))).collect();
            for text in &cells {
                self.sayable(text, record.row)?;
            }
            self.row(&cells)?;
        }
        self.writer.flush()?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Unwritten> {
        Ok(self.writer.flush()?)
    }
}
