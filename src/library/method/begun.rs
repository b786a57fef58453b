//! Keys and values of a prefix that begin as those which the model itself has of a text's first tokens.

use super::super::net::{Cached, Init, Text};
use super::super::schema::{Maybe, kind};
use super::{Complaint, Site, Values};
use crate::library::error::BAD_VIRTUAL_TOKENS;

pub(super) const TEXT: Maybe<str> = Maybe::new(
    "text",
    kind::STR,
    "a text: keys and values start as those that the model has of its first tokens, special ones included",
);
pub(super) const TOKEN_IDS: Maybe<[String]> = Maybe::new(
    "token_ids",
    kind::NUMBERS,
    "ids of the tokens of such a text",
);

/// What keys, or `values`, of these rows start at, if a text says it.
pub(super) fn start(
    of: &Values,
    site: &Site,
    (tokens, rows, values): (u64, [u64; 2], bool),
) -> Option<Init> {
    let ids = TOKEN_IDS.get(of)?.iter().take(tokens as usize);
    let ids = ids.filter_map(|id| id.parse().ok()).collect();
    Some(cached(site, Text::Given(ids), (rows, values)))
}

/// The same of a text.
pub(super) fn cached(site: &Site, text: Text, (rows, values): ([u64; 2], bool)) -> Init {
    Init::Cached(Cached {
        site: site.path.clone(),
        text,
        values,
        rows,
    })
}

/// Complains about a text of fewer tokens than there are keys.
pub(super) fn check(values: &Values, tokens: u64) -> Option<Complaint> {
    let count = TOKEN_IDS.get(values)?.len() as u64;
    (count < tokens).then(|| Complaint {
        key: TOKEN_IDS.name(),
        code: &BAD_VIRTUAL_TOKENS,
        message: format!(
            "the text has {count} tokens, and {tokens} keys and values are to start as theirs"
        ),
        help: Some(format!(
            "write `tokens = {}`, or a longer text",
            count.max(1)
        )),
    })
}
