//! Comma-separated values (RFC 4180): a header, then records; quoted cells may span lines.

use super::{Cell, DataError, Format, Input, RowRec, locate, text};

/// The format.
pub static CSV: Format = Format {
    name: "csv",
    extensions: &["csv"],
    read,
    class_names: |_, _| None,
};

fn read(
    input: &Input<'_>,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file;
    let text = text(&input.bytes, file)?;
    let mut reader = ::csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let header = reader
        .headers()
        .map_err(|error| wrong(&error, text, file))?
        .clone();
    if header.is_empty() {
        return Err(DataError::empty(file));
    }
    let places = locate(&header.iter().collect::<Vec<_>>(), columns, file)?;
    let mut record = ::csv::StringRecord::new();
    let (mut line, mut counted) = (1, 0);
    while reader
        .read_record(&mut record)
        .map_err(|error| wrong(&error, text, file))?
    {
        let start = record.position().map_or(0, |place| start(text, place));
        line += ends(text, counted, start);
        counted = start;
        let cells = places.iter().map(|&place| {
            record
                .get(place)
                .map_or(Cell::Missing, |cell| Cell::Text(cell.into()))
        });
        let cells = cells.collect();
        if !each(RowRec { line, cells }) {
            break;
        }
    }
    Ok(())
}

/// Where the record at a position begins. The reader takes what is left of the line end before it,
/// or blank lines, for part of it, so its own count of lines is off.
fn start(text: &str, place: &::csv::Position) -> usize {
    let at = usize::try_from(place.byte()).unwrap_or(usize::MAX);
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count()
}

/// Line ends between two places.
fn ends(text: &str, from: usize, to: usize) -> u64 {
    text.as_bytes()
        .get(from..to)
        .unwrap_or_default()
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count() as u64
}

fn wrong(error: &::csv::Error, text: &str, file: &str) -> DataError {
    let (message, help) = match error.kind() {
        ::csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => (
            format!("{len} cells where the header has {expected_len}"),
            "a text with commas, quotes or line ends stands in double quotes",
        ),
        _ => (error.to_string(), "the file should follow RFC 4180"),
    };
    let wrong = DataError::new(file, message).help(help);
    match error.position() {
        Some(place) => wrong.at(1 + ends(text, 0, start(text, place))),
        None => wrong,
    }
}
