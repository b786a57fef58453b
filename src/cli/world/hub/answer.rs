//! What stands in the head of an answer, checked.

use ureq::http::{HeaderMap, StatusCode, header};

use super::{Trouble, refused};

pub(in crate::cli::world) fn success(status: StatusCode) -> Result<(), Trouble> {
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(Trouble::Status(status.as_u16()))
    }
}

/// A header that becomes a name in the cache: letters, digits, `-`, `_`, `.`, and no dot in front.
pub(in crate::cli::world) fn name(head: &HeaderMap, key: &str) -> Result<String, Trouble> {
    let value = head.get(key).and_then(|v| v.to_str().ok());
    let value = value.ok_or_else(|| refused(format!("its `{key}` is missing or no text")))?;
    let value = value.trim().trim_matches('"');
    let value = value.trim_start_matches("W/").trim_matches('"');
    if is_name(value) {
        Ok(value.to_owned())
    } else {
        Err(refused(format!("its `{key}` `{value}` is no name")))
    }
}

/// Whether a word can be one part of a path and nothing else.
pub(in crate::cli::world) fn is_name(value: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&value.len()) && !value.starts_with('.') && value.chars().all(letter)
}

/// A header that is a number of bytes.
pub(in crate::cli::world) fn number(head: &HeaderMap, key: &str) -> Result<Option<u64>, Trouble> {
    let Some(value) = head.get(key) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|v| v.trim().parse().ok());
    let number = number.ok_or_else(|| refused(format!("its `{key}` is no number")))?;
    Ok(Some(number))
}

/// `bytes 5-9/10`: where a part begins, and how long all of it is.
pub(in crate::cli::world) fn range(
    head: &HeaderMap,
) -> Result<Option<(Option<u64>, Option<u64>)>, Trouble> {
    let Some(value) = head.get(header::CONTENT_RANGE) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|v| {
        let (part, all) = v.trim().strip_prefix("bytes")?.trim().split_once('/')?;
        let number = |text: &str| match text.trim() {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        Some((number(part.split('-').next()?)?, number(all)?))
    });
    match parsed {
        Some(range) => Ok(Some(range)),
        None => Err(refused("its `content-range` is no range")),
    }
}
