//! Tab-separated values: a header, then one row a line; no quoting, no escapes.

use super::source::{Input, Lines, MOST_COLUMNS, too_wide};
use super::{Cell, DataError, Format, RowRec, locate};

/// The format.
pub static TSV: Format = Format {
    name: "tsv",
    extensions: &["tsv", "tab"],
    read,
    columns,
    class_names: |_, _| None,
};

fn header(lines: &mut Lines<'_>, file: &str) -> Result<Vec<String>, DataError> {
    match lines.read()? {
        Some((line, _)) if line.bytes().filter(|&byte| byte == b'\t').count() >= MOST_COLUMNS => {
            Err(too_wide(file, 1))
        }
        Some((line, _)) if !line.is_empty() => Ok(line.split('\t').map(str::to_owned).collect()),
        _ => Err(DataError::empty(file)),
    }
}

fn columns(input: &Input) -> Result<Vec<String>, DataError> {
    header(&mut Lines::of(input)?, &input.file)
}

fn read(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file.as_str();
    let mut lines = Lines::of(input)?;
    let header = header(&mut lines, file)?;
    let places = locate(&header, columns, file)?;
    loop {
        let line = lines.number + 1;
        let Some((row, _)) = lines.read()? else {
            return Ok(());
        };
        // Of several columns a blank line has none; of a single one it is an empty cell.
        if row.is_empty() && header.len() > 1 {
            continue;
        }
        let found = 1 + row.bytes().filter(|&byte| byte == b'\t').count();
        if found != header.len() {
            let message = format!("{found} cells where the header has {}", header.len());
            return Err(DataError::new(file, message)
                .at(line)
                .help("TSV knows no quoting: a text holds no tab"));
        }
        let cells: Vec<&str> = row.split('\t').collect();
        let cells = places.iter().map(|&place| {
            cells
                .get(place)
                .map_or(Cell::Missing, |cell| Cell::Text((*cell).into()))
        });
        let cells = cells.collect();
        if !each(RowRec { line, cells }) {
            return Ok(());
        }
    }
}
