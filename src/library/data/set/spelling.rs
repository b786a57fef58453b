//! What a label says, however it is spelled: the same in every format.

use super::super::Cell;

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spelled {
    /// A whole number: `1`, `1.0`.
    Number(i64),
    /// A truth value: `true`, `True`, `TRUE`.
    Truth(bool),
    /// A number with a fraction.
    Fraction(String),
    /// Any other text.
    Name(String),
    /// Nothing.
    Missing,
}

/// Words that other programs write where a value is missing.
const NULLS: [&str; 9] = [
    "nan", "na", "n/a", "#n/a", "null", "none", "nil", "<na>", "nat",
];

impl Spelled {
    /// What a cell says.
    pub(super) fn of(cell: &Cell) -> Self {
        match cell {
            Cell::Missing => Self::Missing,
            Cell::Bool(truth) => Self::Truth(*truth),
            Cell::Int(whole) => Self::Number(*whole),
            Cell::Float(number) if number.is_nan() => Self::Name("nan".to_owned()),
            Cell::Float(number) => match whole(*number) {
                Some(whole) => Self::Number(whole),
                None => Self::Fraction(number.to_string()),
            },
            Cell::Text(text) => Self::of_text(text),
            Cell::List(list) => {
                let cells = list.cells.iter().flatten();
                let parts: Vec<String> = cells.map(|cell| Self::of(cell).text()).collect();
                Self::Name(parts.join("\u{1f}"))
            }
        }
    }

    /// What a text says.
    pub(super) fn of_text(text: &str) -> Self {
        let text = text.trim();
        match text {
            "" => return Self::Missing,
            "true" | "True" | "TRUE" => return Self::Truth(true),
            "false" | "False" | "FALSE" => return Self::Truth(false),
            _ => {}
        }
        let plain = |text: &str| {
            let number: i64 = text.parse().ok()?;
            (number.to_string() == text).then_some(number)
        };
        if let Some(number) = plain(text) {
            return Self::Number(number);
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if let Some((front, behind)) = text.split_once('.')
            && digits(front.strip_prefix('-').unwrap_or(front))
            && digits(behind)
        {
            let zeros = behind.bytes().all(|b| b == b'0');
            return match plain(front) {
                Some(number) if zeros => Self::Number(number),
                None if zeros && front == "-0" => Self::Number(0),
                _ => Self::Fraction(text.to_owned()),
            };
        }
        Self::Name(text.to_owned())
    }

    /// The text that is the same for all spellings.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
            Self::Fraction(text) | Self::Name(text) => text.clone(),
            Self::Missing => String::new(),
        }
    }

    /// Whether it is a word that other programs write where a value is missing.
    pub(super) fn is_null_word(&self) -> bool {
        matches!(self, Self::Name(name) if NULLS.contains(&name.to_lowercase().as_str()))
    }
}

/// The whole number that a float is.
fn whole(number: f64) -> Option<i64> {
    // Beyond, neighbours differ by more than one.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// What a label looks like in messages.
pub(super) fn shown(cell: &Cell) -> String {
    match cell.clone().into_text() {
        Some(text) => {
            let short: String = text.trim().chars().take(40).collect();
            format!("`{short}`")
        }
        None => "nothing".to_owned(),
    }
}

/// Names for messages: the first of them.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut list: Vec<String> = names.by_ref().take(8).map(|n| format!("`{n}`")).collect();
    let more = names.count();
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    list.join(", ")
}
