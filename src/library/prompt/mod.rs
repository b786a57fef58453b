//! Prompts (methods P1 and P2): a template around the columns of an example, with a mask to fill, and
//! a word for each class.

use std::ops::Range;
use std::sync::Arc;

use super::demonstrations::Demonstrations;

pub mod frame;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands.
    Text(String),
    /// The text of a column.
    Column(String),
    /// The mask token.
    Mask,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// As written.
    pub source: String,
    pieces: Vec<Piece>,
}

/// A template filled in for one example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The text.
    pub text: String,
    /// Where columns stand in it, in bytes: what may be cut.
    pub columns: Vec<Range<usize>>,
    /// Where the mask begins, in bytes.
    pub mask: Option<usize>,
}

impl Template {
    /// Parses `{column}` and `{mask}`; `{{` and `}}` are braces.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(source: &str) -> Result<Self, String> {
        let (mut pieces, mut text) = (Vec::new(), String::new());
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let tail = &rest[at..];
            if tail.starts_with("{{") || tail.starts_with("}}") {
                text.push_str(&tail[..1]);
                rest = &tail[2..];
                continue;
            }
            let Some(end) = tail.find('}').filter(|_| tail.starts_with('{')) else {
                return Err(format!(
                    "the brace in `{}` has no partner; write it twice if it is meant as text",
                    tail.chars().take(20).collect::<String>()
                ));
            };
            let name = tail[1..end].trim();
            if name.is_empty() {
                return Err("`{}` names no column".into());
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(if name == "mask" {
                Piece::Mask
            } else {
                Piece::Column(name.to_owned())
            });
            rest = &tail[end + 1..];
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        let template = Self {
            source: source.to_owned(),
            pieces,
        };
        if template.columns().next().is_none() {
            return Err(
                "the template holds no column, so that every example would read the same".into(),
            );
        }
        if template
            .pieces
            .iter()
            .filter(|p| **p == Piece::Mask)
            .count()
            > 1
        {
            return Err("the template holds `{mask}` more than once".into());
        }
        Ok(template)
    }

    /// Names of the columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|p| {
            if let Piece::Column(name) = p {
                Some(name.as_str())
            } else {
                None
            }
        })
    }

    /// Whether there is a mask.
    #[must_use]
    pub fn has_mask(&self) -> bool {
        self.pieces.contains(&Piece::Mask)
    }

    /// The text of an example: `get` gives a column's, `mask` is the mask token.
    pub fn fill<'a>(&self, get: impl Fn(&str) -> &'a str, mask: &str) -> Filled {
        let mut filled = Filled {
            text: String::new(),
            columns: Vec::new(),
            mask: None,
        };
        for piece in &self.pieces {
            let start = filled.text.len();
            match piece {
                Piece::Text(text) => filled.text.push_str(text),
                Piece::Mask => {
                    filled.text.push_str(mask);
                    filled.mask = Some(start);
                }
                Piece::Column(name) => {
                    filled.text.push_str(get(name));
                    filled.columns.push(start..filled.text.len());
                }
            }
        }
        filled
    }
}

/// A prompt as a stage uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The template.
    pub template: Template,
    /// Token id of each class's word; empty where the words are not used.
    pub words: Vec<u32>,
    /// Each class's word as a text; empty where the words are not used.
    pub labels: Vec<String>,
    /// What stands behind the text, or before it.
    pub demonstrations: Option<Arc<Demonstrations>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_parsed_and_filled() {
        let template = Template::parse("{a}: {{x}} It was {mask}, {b}.").expect("parses");
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b"]);
        let filled = template.fill(|c| if c == "a" { "one" } else { "two" }, "[MASK]");
        assert_eq!(filled.text, "one: {x} It was [MASK], two.");
        assert_eq!(filled.columns, [0..3, 24..27]);
        assert_eq!(filled.mask, Some(16));
        for (bad, why) in [
            ("{a", "partner"),
            ("a}", "partner"),
            ("{}", "names no"),
            ("x {mask}", "no column"),
            ("{a} {mask} {mask}", "more than once"),
        ] {
            let error = Template::parse(bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
