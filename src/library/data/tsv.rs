//! Tab-separated values: a header, then one row a line; no quoting, no escapes.

use super::{Cell, DataError, Format, Input, RowRec, locate, text};

/// The format.
pub static TSV: Format = Format {
    name: "tsv",
    extensions: &["tsv", "tab"],
    read,
    class_names: |_, _| None,
};

fn read(
    input: &Input<'_>,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file;
    let mut lines = text(&input.bytes, file)?
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .zip(1u64..);
    let header: Vec<&str> = match lines.next() {
        Some((line, _)) if !line.is_empty() => line.split('\t').collect(),
        _ => return Err(DataError::empty(file)),
    };
    let places = locate(&header, columns, file)?;
    for (row, line) in lines {
        if row.is_empty() {
            continue;
        }
        let cells: Vec<&str> = row.split('\t').collect();
        if cells.len() != header.len() {
            let message = format!(
                "{} cells where the header has {}",
                cells.len(),
                header.len()
            );
            return Err(DataError::new(file, message)
                .at(line)
                .help("TSV knows no quoting: a text holds no tab"));
        }
        let cells = places.iter().map(|&place| {
            cells
                .get(place)
                .map_or(Cell::Missing, |cell| Cell::Text((*cell).into()))
        });
        let cells = cells.collect();
        if !each(RowRec { line, cells }) {
            break;
        }
    }
    Ok(())
}
