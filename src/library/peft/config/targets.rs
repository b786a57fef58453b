//! Which modules of a model an adapter is on, as its config says it.

use regex::Regex;
use serde_json::{Map, Value as Json};

use super::super::super::net::ends_with;
use super::{given, strings};

/// Which modules an adapter is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Modules whose path is an entry or ends with a dot and an entry.
    Names(Vec<String>),
    /// Modules whose whole path matches.
    Regex(String),
    /// Every linear map but the output head.
    AllLinear,
    /// Those that have tensors: the config does not say, or not in a way that can be read here.
    Present,
}

impl Targets {
    /// Whether a module is a target; `None` where the tensors alone tell.
    #[must_use]
    pub fn matches(&self, module: &str) -> Option<bool> {
        match self {
            Self::AllLinear => Some(true),
            Self::Names(names) => Some(named(names, module)),
            Self::Regex(pattern) => Some(whole(pattern)?.is_match(module)),
            Self::Present => None,
        }
    }
}

/// Whether a module path is an entry or ends with a dot and an entry.
pub(super) fn named(names: &[String], module: &str) -> bool {
    names.iter().any(|name| ends_with(module, name))
}

/// A regular expression over a whole module path, which has no line breaks.
fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

pub(super) fn targets(json: &Map<String, Json>, key: &str) -> Result<Option<Targets>, String> {
    Ok(match given(json, key) {
        None => None,
        Some(Json::String(all)) if all.eq_ignore_ascii_case("all-linear") => {
            Some(Targets::AllLinear)
        }
        Some(Json::String(pattern)) => Some(expression(key, pattern)?),
        Some(value) => Some(Targets::Names(strings(value).ok_or_else(|| {
            format!("`{key}` must be a list of names or a regular expression, not {value}")
        })?)),
    })
}

pub(super) fn targets_excluded(json: &Map<String, Json>) -> Result<Option<Targets>, String> {
    let excluded = targets(json, "exclude_modules")?;
    Ok(excluded.filter(|e| {
        let empty = matches!(e, Targets::Names(names) if names.is_empty())
            || matches!(e, Targets::Regex(text) if text.is_empty());
        !empty
    }))
}

/// A regular expression. Python has more of them than can be read here; then the tensors tell the modules.
fn expression(key: &str, pattern: &str) -> Result<Targets, String> {
    match Regex::new(pattern) {
        Ok(_) if whole(pattern).is_some() => Ok(Targets::Regex(pattern.to_owned())),
        Err(why) if why.to_string().contains("not supported") => Ok(Targets::Present),
        _ => Err(format!(
            "`{key}` is no regular expression: `{pattern}`; write the modules as a list"
        )),
    }
}
