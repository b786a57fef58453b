//! Where a method acts: roles and layers, not tensor names (those are the escape hatch).

use std::fmt;

use crate::syntax::quote;

/// What a linear map, norm or table does in a model: the vocabulary of placements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `attention.query`
    Query,
    /// `attention.key`
    Key,
    /// `attention.value`
    Value,
    /// `attention.output`
    AttentionOutput,
    /// `attention.norm`
    AttentionNorm,
    /// `ffn.up`
    FfnUp,
    /// `ffn.down`
    FfnDown,
    /// `ffn.norm`
    FfnNorm,
    /// `embeddings.word`
    WordEmbedding,
    /// `embeddings.position`
    PositionEmbedding,
    /// `embeddings.segment`
    SegmentEmbedding,
    /// `embeddings.norm`
    EmbeddingNorm,
    /// `head.dense`: what stands between the backbone and the scores
    HeadDense,
    /// `head.output`
    HeadOutput,
    /// `lm_head.dense`
    LmDense,
    /// `lm_head.norm`
    LmNorm,
    /// `lm_head.decoder`
    LmDecoder,
    /// A part of a network beside the model, where nothing is placed.
    Side,
}

/// Every role with its path.
pub const ROLES: &[(Role, &str)] = &[
    (Role::Query, "attention.query"),
    (Role::Key, "attention.key"),
    (Role::Value, "attention.value"),
    (Role::AttentionOutput, "attention.output"),
    (Role::AttentionNorm, "attention.norm"),
    (Role::FfnUp, "ffn.up"),
    (Role::FfnDown, "ffn.down"),
    (Role::FfnNorm, "ffn.norm"),
    (Role::WordEmbedding, "embeddings.word"),
    (Role::PositionEmbedding, "embeddings.position"),
    (Role::SegmentEmbedding, "embeddings.segment"),
    (Role::EmbeddingNorm, "embeddings.norm"),
    (Role::HeadDense, "head.dense"),
    (Role::HeadOutput, "head.output"),
    (Role::LmDense, "lm_head.dense"),
    (Role::LmNorm, "lm_head.norm"),
    (Role::LmDecoder, "lm_head.decoder"),
];

impl Role {
    /// Its path in recipes.
    #[must_use]
    pub fn path(self) -> &'static str {
        ROLES
            .iter()
            .find(|(r, _)| *r == self)
            .map_or("", |(_, p)| p)
    }

    /// Whether it belongs to the masked-LM head.
    #[must_use]
    pub const fn is_lm(self) -> bool {
        matches!(self, Self::LmDense | Self::LmNorm | Self::LmDecoder)
    }

    /// Whether it belongs to a task head, which is trained from scratch.
    #[must_use]
    pub const fn is_head(self) -> bool {
        matches!(self, Self::HeadDense | Self::HeadOutput)
    }
}

/// A named place in a model where a linear map stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Module path in the Hugging Face checkpoint.
    pub path: String,
    /// What it does.
    pub role: Role,
    /// Its block, counted from 0.
    pub layer: Option<u64>,
    /// Input width.
    pub input: u64,
    /// Output width.
    pub output: u64,
}

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
                let n = n_layers as i64;
                let absolute = |i: i64| if i < 0 { i + n } else { i };
                let (start, end) = (start.map_or(0, absolute), end.map_or(n, absolute));
                site.layer
                    .is_some_and(|l| (start..end).contains(&(l as i64)))
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

    #[test]
    fn patterns_match_roles_layers_and_raw_names() {
        let site = Site {
            path: "bert.encoder.layer.2.attention.self.query".into(),
            role: Role::Query,
            layer: Some(2),
            input: 4,
            output: 4,
        };
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
