//! A question's options and the place of the right one, out of the cells of its row.

use super::super::{About, Cell, DataError};
use super::cells::{answered, words};

/// The prompt, the options and the place of the right one, of a row's cells.
pub(super) fn options(cells: Vec<Cell>, columns: &[String]) -> Result<Vec<String>, DataError> {
    let wrong = |message: String, help: &str| {
        DataError::new("", message)
            .about(About::Text)
            .kind("options")
            .help(help)
    };
    let mut cells = cells;
    let (Some(answer), Some(column)) = (cells.pop(), columns.last()) else {
        return Err(wrong(
            "the row has no answer".to_owned(),
            "give it one, or remove it",
        ));
    };
    let mut cells = cells.into_iter().zip(columns);
    let mut texts = Vec::new();
    if let Some((prompt, column)) = cells.next() {
        texts.push(answered(prompt, column, 0)?);
    }
    for (cell, column) in cells {
        match cell {
            Cell::List(list) => {
                let all = list.cells.unwrap_or_default().into_iter();
                let own: Vec<String> = all.filter_map(Cell::into_text).collect();
                if own.len() != list.length {
                    return Err(wrong(
                        format!("`{column}` holds what is no text among its options"),
                        "an option is a text; name a list within a column by its path: `choices.text`",
                    ));
                }
                texts.extend(own);
            }
            cell => texts.push(words(cell, column)?),
        }
    }
    let own = texts.get(1..).unwrap_or_default();
    if !(2..=255).contains(&own.len()) {
        return Err(wrong(
            format!(
                "the row has {} options, and 2 to 255 are compared",
                own.len()
            ),
            "`choices` names a column with a list of them, or a column for each",
        ));
    }
    if own.iter().any(String::is_empty) {
        return Err(wrong(
            "an option of the row is empty".to_owned(),
            "remove it, or the row",
        ));
    }
    let right = right_option(&answer, own)
        .map_err(|(why, help)| wrong(format!("`{column}`: {why}"), help))?;
    texts.push(right.to_string());
    Ok(texts)
}

/// The place of the right option.
pub(super) fn right_option(
    answer: &Cell,
    options: &[String],
) -> Result<usize, (String, &'static str)> {
    const HELP: &str = "it is the option's place, from 0, its letter, or its text; where places count from 1, write letters or texts instead";
    let within = |place: usize| {
        let most = options.len();
        match place < most {
            true => Ok(place),
            false => Err((
                format!("there is no option {place} among {most}, counted from 0"),
                HELP,
            )),
        }
    };
    let text = match answer {
        Cell::Int(place) => return within(usize::try_from(*place).unwrap_or(usize::MAX)),
        Cell::Text(text) => text.trim(),
        _ => {
            return Err((
                "the answer is missing, or no place among the options".to_owned(),
                HELP,
            ));
        }
    };
    let mut same = options
        .iter()
        .enumerate()
        .filter(|(_, own)| own.trim() == text);
    let (one, other) = (same.next(), same.next());
    let letter = match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        [letter @ b'a'..=b'z'] => Some(usize::from(letter - b'a')),
        _ => None,
    };
    let place = text.parse().ok().or(letter);
    match (one, other, place) {
        (Some((at, _)), None, None) => Ok(at),
        (Some((at, _)), None, Some(place)) if at == place => Ok(at),
        (Some(_), _, _) => Err((
            format!("`{text}` is the text of one option and may mean another, or several have it"),
            "write the option's place as a whole number, from 0",
        )),
        (None, _, Some(place)) => within(place),
        (None, _, None) => Err((format!("`{text}` is none of the options"), HELP)),
    }
}
