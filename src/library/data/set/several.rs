//! Several labels in a cell.

use std::borrow::Cow;

use serde_json::Value;

use super::super::{Cell, DataError, column};
use super::key::{label_error, unlabelled};
use super::spelling::shown;

/// What stands between the labels of a text; where nothing is named, a text is a list in JSON.
#[derive(Debug)]
pub(super) struct Separator(pub(super) Option<String>);

impl Separator {
    /// The labels in a cell. A list has its elements, a text what stands between separators; an empty text has none.
    pub(super) fn elements<'c>(&self, cell: &'c Cell) -> Result<Cow<'c, [Cell]>, DataError> {
        match cell {
            Cell::List(list) => match &list.cells {
                Some(cells) => Ok(Cow::Borrowed(cells)),
                None => Err(label_error("the labels hold a list or an object")
                    .kind("nested labels")
                    .help("labels are a list of names or numbers")),
            },
            Cell::Text(text) => self.parts(text, cell).map(Cow::Owned),
            Cell::Missing => Err(unlabelled().help(
                "a row of which no class is true has an empty list, `[]`; a split to train or score on has labels in every row",
            )),
            Cell::Int(_) | Cell::Float(_) | Cell::Bool(_) => {
                Ok(Cow::Borrowed(std::slice::from_ref(cell)))
            }
        }
    }

    fn parts(&self, text: &str, cell: &Cell) -> Result<Vec<Cell>, DataError> {
        if let Some(separator) = &self.0 {
            let parts = text.split(separator.as_str()).map(str::trim);
            let named = parts.filter(|part| !part.is_empty());
            return Ok(named.map(|part| Cell::Text(part.to_owned())).collect());
        }
        let list = match serde_json::from_str(text.trim()) {
            Ok(value @ Value::Array(_)) => column::cell(&value, "", "").ok(),
            _ => None,
        };
        match list {
            Some(Cell::List(list)) if list.cells.is_some() => Ok(list.cells.unwrap_or_default()),
            _ => Err(label_error(format!("{} is no list of labels", shown(cell)))
                .kind("no list")
                .help("write what stands between the labels of a row, as in `label_separator = \",\"`; or write lists: `[\"a\", \"b\"]`")),
        }
    }
}
