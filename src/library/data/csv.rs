//! Comma-separated values (RFC 4180): a header, then records; quoted cells may span lines.

use super::{Cell, DataError, Format, RowRec, Table, locate, text};

/// The format.
pub static CSV: Format = Format { name: "csv", extensions: &["csv"], read };

fn read(bytes: &[u8], file: &str, columns: &[String]) -> Result<Table, DataError> {
    let text = text(bytes, file)?;
    let mut reader = ::csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| wrong(&error, file))?.clone();
    if header.is_empty() {
        return Err(DataError::empty(file));
    }
    let places = locate(&header.iter().collect::<Vec<_>>(), columns, file)?;
    let mut table = Table::default();
    let mut record = ::csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| wrong(&error, file))? {
        let cells = places.iter().map(|&place| record.get(place).map_or(Cell::Missing, |cell| Cell::Text(cell.into())));
        let line = record.position().map_or(0, ::csv::Position::line);
        table.rows.push(RowRec { line, cells: cells.collect() });
    }
    Ok(table)
}

fn wrong(error: &::csv::Error, file: &str) -> DataError {
    let (message, help) = match error.kind() {
        ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => (
            format!("{len} cells where the header has {expected_len}"),
            "a text with commas, quotes or line ends stands in double quotes",
        ),
        ::csv::ErrorKind::Utf8 { .. } => ("this is not UTF-8 text".to_owned(), "save the file as UTF-8"),
        _ => (error.to_string(), "the file should follow RFC 4180"),
    };
    let wrong = DataError::new(file, message).help(help);
    match error.position() {
        Some(place) => wrong.at(place.line()),
        None => wrong,
    }
}
