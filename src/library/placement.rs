//! Where a method acts: roles and layers, not tensor names (those are the escape hatch).

use std::fmt;

use super::net::Site;
use crate::syntax::quote;

/// One alternative of a placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Blocks `start..end`, negative from the end; `None` is every block.
    pub layers: Option<(Option<i64>, Option<i64>)>,
    /// A role path whose segments may be `*`, or a raw module path when `raw`.
    pub path: String,
    /// Whether `path` is a checkpoint module path (`*` matches any run of characters).
    pub raw: bool,
}

/// A set of sites.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Placement {
    /// A site belongs to it when any alternative matches.
    pub any: Vec<Pattern>,
}

impl Pattern {
    /// Whether a site of a model with `n_layers` blocks matches.
    #[must_use]
    pub fn matches(&self, site: &Site, n_layers: u64) -> bool {
        let layers = match self.layers {
            None => true,
            Some((start, end)) => {
                let n = n_layers.cast_signed();
                let absolute = |i: i64| if i < 0 { i + n } else { i };
                let (start, end) = (start.map_or(0, absolute), end.map_or(n, absolute));
                site.layer
                    .is_some_and(|l| (start..end).contains(&l.cast_signed()))
            }
        };
        layers
            && if self.raw {
                glob(&self.path, &site.path)
            } else {
                role_matches(&self.path, site.role.path())
            }
    }
}

impl Pattern {
    /// As the key of a map by place: always in quotes.
    #[must_use]
    pub fn key(&self) -> String {
        quote(&if self.raw {
            self.path.clone()
        } else {
            self.to_string()
        })
    }
}

impl Placement {
    /// Whether a site belongs to it.
    #[must_use]
    pub fn matches(&self, site: &Site, n_layers: u64) -> bool {
        self.any.iter().any(|p| p.matches(site, n_layers))
    }
}

fn role_matches(pattern: &str, role: &str) -> bool {
    let (mut p, mut r) = (pattern.split('.'), role.split('.'));
    loop {
        match (p.next(), r.next()) {
            (None, None) => return true,
            (Some("*"), None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len())
                .filter(|&i| tail.is_char_boundary(i))
                .any(|i| glob(rest, tail.get(i..).unwrap_or_default()))
        }),
    }
}

impl fmt::Display for Placement {
    /// As a recipe writes it: a set of paths, or a list where module paths are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list: Vec<String> = self.any.iter().map(ToString::to_string).collect();
        list.sort();
        list.dedup();
        let list_of_paths = list.join(", ");
        if self.any.is_empty() || self.any.iter().any(|p| p.raw) {
            write!(f, "[{list_of_paths}]")
        } else {
            write!(f, "{{{list_of_paths}}}")
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((start, end)) = self.layers {
            let text = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
            write!(f, "layers[{}..{}].", text(start), text(end))?;
        }
        if self.raw {
            f.write_str(&quote(&self.path))
        } else {
            f.write_str(&self.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::net::Role;

    #[test]
    fn patterns_match_roles_layers_and_raw_names() {
        let path = "bert.encoder.layer.2.attention.self.query";
        let site = Site::linear(path, Role::Query, (4, 4)).in_layer(Some(2));
        let p = |layers, path: &str, raw| Pattern {
            layers,
            path: path.into(),
            raw,
        };
        assert!(p(None, "attention.query", false).matches(&site, 3));
        assert!(p(None, "attention.*", false).matches(&site, 3));
        assert!(
            p(Some((Some(-1), None)), "*", false).matches(&site, 3)
                || p(Some((Some(-1), None)), "*.*", false).matches(&site, 3)
        );
        assert!(!p(Some((Some(0), Some(2))), "attention.*", false).matches(&site, 3));
        assert!(p(None, "bert.*.query", true).matches(&site, 3));
        assert!(!p(None, "ffn.*", false).matches(&site, 3));
    }
}
