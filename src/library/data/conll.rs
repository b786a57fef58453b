//! CoNLL files: a word a line with its columns, and a blank line behind each sentence.

use super::source::{Input, Lines, MOST_COLUMNS, too_wide};
use super::{Cell, DataError, Format, List, RowRec, locate};

/// The format.
pub static CONLL: Format = Format {
    name: "conll",
    extensions: &["conll", "bio", "iob", "iob2"],
    read,
    columns,
    class_names: |_, _| None,
};

/// What stands between two documents.
const DOCUMENT: &str = "-DOCSTART-";

/// The first column by its name.
pub const WORDS: &str = "tokens";

/// The last column by its name.
pub const TAGS: &str = "tags";

/// The cells of a line: between tabs where it has one, else between spaces.
#[must_use]
pub fn cells(line: &str) -> Vec<&str> {
    if line.contains('\t') {
        line.split('\t').map(str::trim).collect()
    } else {
        line.split_ascii_whitespace().collect()
    }
}

/// Whether a line ends a sentence: it is blank, or stands between documents.
#[must_use]
pub fn ends(cells: &[&str]) -> bool {
    cells.iter().all(|cell| cell.is_empty()) || cells.first() == Some(&DOCUMENT)
}

/// The names of so many columns: their numbers from 0; the first is `tokens`, too, and the last `tags`, if there are several.
fn header(count: usize) -> Vec<String> {
    let named = [WORDS, TAGS].into_iter().take(count).map(str::to_owned);
    named.chain((0..count).map(|i| i.to_string())).collect()
}

/// The column of a name that is in the header.
fn column(name: &str, count: usize) -> usize {
    match name {
        WORDS => 0,
        TAGS => count.saturating_sub(1),
        number => number.parse().unwrap_or(0),
    }
}

/// Lines that hold a word, with their numbers; `None` at the end of a sentence.
fn walk(
    input: &Input,
    each: &mut dyn FnMut(u64, Option<Vec<&str>>) -> Result<bool, DataError>,
) -> Result<(), DataError> {
    let mut lines = Lines::of(input)?;
    loop {
        let line = lines.number + 1;
        let Some((row, _)) = lines.read()? else {
            each(line, None)?;
            return Ok(());
        };
        let own = cells(row);
        if own.len() > MOST_COLUMNS {
            return Err(too_wide(&input.file, line));
        }
        if !each(line, (!ends(&own)).then_some(own))? {
            return Ok(());
        }
    }
}

/// Cells of the first word.
fn width(input: &Input) -> Result<usize, DataError> {
    let mut found = 0;
    walk(input, &mut |_, cells| {
        found = cells.map_or(0, |cells| cells.len());
        Ok(found == 0)
    })?;
    match found {
        0 => Err(DataError::empty(&input.file)),
        found => Ok(found),
    }
}

fn columns(input: &Input) -> Result<Vec<String>, DataError> {
    width(input).map(header)
}

fn read(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file.as_str();
    let count = width(input)?;
    locate(&header(count), columns, file).map_err(|error| {
        error.help(format!(
            "a word has {count} columns here, \"0\" to \"{}\"; `{WORDS}` is the first and `{TAGS}` the last",
            count - 1
        ))
    })?;
    let places: Vec<usize> = columns.iter().map(|name| column(name, count)).collect();
    let mut begin = None;
    let mut lists: Vec<Vec<Cell>> = vec![Vec::new(); places.len()];
    walk(input, &mut |line, cells| {
        let Some(cells) = cells else {
            let Some(line) = begin.take() else {
                return Ok(true);
            };
            let cells = lists.iter_mut().map(|list| {
                let own = std::mem::take(list);
                Cell::List(List {
                    length: own.len(),
                    cells: Some(own),
                    nested: None,
                })
            });
            let cells = cells.collect();
            return Ok(each(RowRec { line, cells }));
        };
        if cells.len() != count {
            let message = format!(
                "{} columns where the file's first word has {count}",
                cells.len()
            );
            return Err(DataError::new(file, message)
                .at(line)
                .help("a line holds a word and its columns, between tabs or spaces; a blank line ends a sentence"));
        }
        if cells.iter().any(|cell| cell.is_empty()) {
            return Err(DataError::new(file, "a column of the word is empty").at(line));
        }
        begin.get_or_insert(line);
        for (list, &place) in lists.iter_mut().zip(&places) {
            let cell = cells.get(place).copied().unwrap_or_default();
            list.push(Cell::Text(cell.to_owned()));
        }
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, columns: &[&str]) -> Result<Vec<(u64, Vec<String>)>, DataError> {
        let input = Input::memory(text.as_bytes().to_vec(), "f");
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let mut list = Vec::new();
        read(&input, &columns, &mut |row| {
            let of = |cell: Cell| match cell {
                Cell::List(own) => {
                    let own = own.cells.unwrap_or_default().into_iter();
                    own.filter_map(Cell::into_text)
                        .collect::<Vec<_>>()
                        .join(" ")
                }
                _ => "?".to_owned(),
            };
            list.push((row.line, row.cells.into_iter().map(of).collect()));
            true
        })?;
        Ok(list)
    }

    #[test]
    fn sentences_are_rows_and_documents_none() -> Result<(), DataError> {
        let text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n \t\n\nPeter NNP B-NP B-PER";
        let own = rows(text, &["tokens", "tags", "1"])?;
        let line = |n, cells: [&str; 3]| (n, cells.map(str::to_owned).to_vec());
        let wanted = [
            line(3, ["EU rejects", "B-ORG O", "NNP VBZ"]),
            line(7, ["Peter", "B-PER", "NNP"]),
        ];
        assert_eq!(own, wanted);
        // Between tabs a word may hold a space.
        let tabs = rows("New York\tB-LOC\r\nis\tO\r\n\r\n", &["tags", "0"])?;
        assert_eq!(tabs[0].1, ["B-LOC O", "New York is"]);
        let input = Input::memory(text.as_bytes().to_vec(), "f");
        assert_eq!(columns(&input)?, ["tokens", "tags", "0", "1", "2", "3"]);
        Ok(())
    }

    #[test]
    fn errors_have_their_lines() {
        let said = |text: &str, columns: &[&str]| match rows(text, columns) {
            Ok(rows) => format!("{rows:?}"),
            Err(error) => error.to_string(),
        };
        let of = ["tokens", "tags"];
        assert_eq!(
            said("a O\nb\n", &of),
            "f:2: 1 columns where the file's first word has 2"
        );
        assert_eq!(
            said("a\tO\n\n\tO\n", &of),
            "f:3: a column of the word is empty"
        );
        assert_eq!(said("\n-DOCSTART- O\n", &of), "f:1: the file is empty");
        assert_eq!(said("a O\n", &["4"]), "f:1: there is no column `4`");
    }
}
