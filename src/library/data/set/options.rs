//! A question's options and the place of the right one, out of the cells of its row.

use super::super::{About, Cell, DataError};
use super::cells::{answered, words};

/// The prompt, the options and the place of the right one, of a row's cells. The first option has this number.
pub(super) fn options(
    cells: Vec<Cell>,
    columns: &[String],
    first: u64,
) -> Result<Vec<String>, DataError> {
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
    let right = right_option(&answer, own, first)
        .map_err(|(why, help)| wrong(format!("`{column}`: {why}"), help))?;
    texts.push(right.to_string());
    Ok(texts)
}

/// The place of the right option, from 0. As a number the first option is `first`.
pub(super) fn right_option(
    answer: &Cell,
    options: &[String],
    first: u64,
) -> Result<usize, (String, &'static str)> {
    const HELP: &str = "it is the option's place, from 0, its letter, or its text; where places count from 1, write `first_answer = 1`";
    let within = |place: i128| {
        usize::try_from(place)
            .ok()
            .filter(|&own| own < options.len())
    };
    // A number's place; below the first there is none.
    let numbered = |number: i128| {
        within(number - i128::from(first)).ok_or_else(|| {
            let most = options.len();
            let message = format!("there is no option {number} among {most}, counted from {first}");
            (message, HELP)
        })
    };
    let text = match answer {
        Cell::Int(number) => return numbered(i128::from(*number)),
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
        [letter @ b'A'..=b'Z'] => Some(i128::from(letter - b'A')),
        [letter @ b'a'..=b'z'] => Some(i128::from(letter - b'a')),
        _ => None,
    };
    let number: Option<i64> = text.parse().ok();
    let place = match number {
        Some(number) => Some(numbered(i128::from(number))),
        None => letter.map(|place| {
            let most = options.len();
            let message = || format!("there is no option {text} among {most}");
            within(place).ok_or_else(|| (message(), HELP))
        }),
    };
    match (one, other, place) {
        (Some((at, _)), None, None) => Ok(at),
        (Some((at, _)), None, Some(Ok(place))) if at == place => Ok(at),
        (Some(_), _, _) => Err((
            format!("`{text}` is the text of one option and may mean another, or several have it"),
            "write the option's place as a whole number",
        )),
        (None, _, Some(place)) => place,
        (None, _, None) => Err((format!("`{text}` is none of the options"), HELP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_number_from_the_first_a_letter_or_a_text() {
        let options = ["red", "2", "B"].map(str::to_owned);
        let text = |text: &str| Cell::Text(text.to_owned());
        let of =
            |answer: &Cell, first| right_option(answer, &options, first).map_err(|(why, _)| why);
        assert_eq!(of(&Cell::Int(0), 0), Ok(0));
        assert_eq!(of(&Cell::Int(1), 1), Ok(0));
        assert_eq!(of(&text("3"), 1), Ok(2));
        assert_eq!(of(&text(" red "), 1), Ok(0));
        assert_eq!(
            of(&text("a"), 1),
            Ok(0),
            "letters begin with A whatever numbers do"
        );
        // A text that is a place, too, means one thing only where both are the same.
        assert_eq!(of(&text("2"), 1), Ok(1));
        assert!(of(&text("2"), 0).is_err_and(|why| why.contains("may mean another")));
        assert!(of(&text("B"), 0).is_err());
        for (answer, first) in [
            (Cell::Int(0), 1),
            (Cell::Int(3), 0),
            (Cell::Int(-1), 0),
            (text("4"), 1),
        ] {
            let why = of(&answer, first);
            assert!(
                why.is_err_and(|why| why.contains(&format!("counted from {first}"))),
                "{answer:?}"
            );
        }
        assert_eq!(
            of(&text("d"), 0),
            Err("there is no option d among 3".to_owned())
        );
    }
}
