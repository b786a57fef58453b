//! The words of a row whose words have a label each, out of its cell.

use super::super::{About, Cell, DataError, List, RowRec, column};
use super::{Example, Label, Reading};

/// The error of a column of words.
fn wrong(message: String, kind: &'static str, help: &str) -> DataError {
    DataError::new("", message)
        .about(About::Text)
        .kind(kind)
        .help(help)
}

/// The words in a cell: a list of texts, or in a text a list in JSON.
fn words_of(cell: Cell, name: &str) -> Result<Vec<String>, DataError> {
    const HELP: &str = "words are a list of texts: [\"a\", \"list\"]";
    let list = match cell {
        Cell::List(list) => list,
        Cell::Text(text) => match serde_json::from_str(text.trim()) {
            Ok(value @ serde_json::Value::Array(_)) => match column::cell(&value, name, "")? {
                Cell::List(list) => list,
                _ => List {
                    length: 0,
                    cells: None,
                    nested: None,
                },
            },
            _ => {
                return Err(wrong(
                    format!("`{name}` is no list of words"),
                    "no words",
                    HELP,
                ));
            }
        },
        Cell::Missing => {
            return Err(wrong(
                format!("the words `{name}` are missing"),
                "missing text",
                "a row without words is no example: give it some, or remove the row",
            ));
        }
        Cell::Int(_) | Cell::Float(_) | Cell::Bool(_) => {
            return Err(wrong(
                format!("`{name}` is no list of words"),
                "no words",
                HELP,
            ));
        }
    };
    let length = list.length;
    let own: Vec<String> = list
        .cells
        .unwrap_or_default()
        .into_iter()
        .filter_map(Cell::into_text)
        .collect();
    if own.len() != length {
        return Err(wrong(
            format!("`{name}` holds what is no text among its words"),
            "no words",
            HELP,
        ));
    }
    if own.is_empty() {
        return Err(wrong(
            format!("`{name}` has no word"),
            "missing text",
            "a row without words is no example: remove it",
        ));
    }
    Ok(own)
}

/// Complains about words that have not a label each.
fn same_length(words: usize, labels: usize) -> Result<(), DataError> {
    if words == labels {
        return Ok(());
    }
    let message = format!("{labels} labels for {words} words");
    Err(DataError::new("", message)
        .about(About::Label)
        .help("each word has one label, in the order of the words"))
}

impl Reading<'_> {
    /// A row of words.
    pub(super) fn of_words(
        &self,
        row: RowRec,
        number: u32,
        task: Result<u32, DataError>,
    ) -> Result<Example, Vec<DataError>> {
        let mut cells = row.cells.into_iter();
        let column = self.spec.text.first().map_or("", String::as_str);
        let words = words_of(cells.next().unwrap_or(Cell::Missing), column);
        let label = cells.next().filter(|_| self.labelled);
        let label = label.map(|cell| self.key.label(&cell)).transpose();
        let fits = match (&words, &label) {
            (Ok(words), Ok(Some(Label::Each(list)))) => same_length(words.len(), list.len()),
            _ => Ok(()),
        };
        match (words, label, task, fits) {
            (Ok(texts), Ok(label), Ok(task), Ok(())) => Ok(Example {
                texts,
                spoken: false,
                label,
                task,
                row: number,
            }),
            (words, label, task, fits) => {
                let wrong = words.err().into_iter().chain(label.err());
                let wrong = wrong.chain(task.err()).chain(fits.err());
                Err(wrong.map(|error| error.at(row.line)).collect())
            }
        }
    }
}
