//! What BERT and its kin have in common: sizes read from `config.json`, embeddings, heads, and the transformer block over
//! packed tokens.

use serde_json::Value as Json;

use super::super::net::{Net, Role, Site};
use super::{Facts, LongTexts, Narrowing, Positions};
use crate::library::counts::to_u32;
use crate::program::op::ActivationKind;
use crate::program::{Feed, Value};

mod block;
mod config;

pub(super) use block::{
    BlockPaths, Disentangled, Own, Scores, bert_block, block, block_scored, mirror, mirror_scored,
};
pub(super) use config::{Config, within_bounds};

/// Which products with rows of distances are added to those of queries and keys, where positions are relative (Shaw et al. 2018, arXiv
/// 1803.02155; Huang et al. 2020, arXiv 2009.13658, methods 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relative {
    /// Those of queries.
    Key,
    /// Those of queries and of keys.
    KeyQuery,
}

/// Sizes of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizes {
    pub layers: u64,
    pub hidden: u64,
    /// Width of the tables of embeddings.
    pub embedding: u64,
    pub heads: u64,
    pub ffn: u64,
    pub vocab: u64,
    pub positions: u64,
    pub eps: f64,
    pub activation: ActivationKind,
    pub hidden_dropout: f64,
    pub attention_dropout: f64,
    pub head_dropout: f64,
    /// Whether what the feed-forward network gives has the hidden dropout, too.
    pub drops_ffn: bool,
    /// Whether a norm stands before each sub-layer, and none behind it or behind the embeddings.
    pub pre_norm: bool,
    /// Whether the masked-LM head reads the token embedding.
    pub tied: bool,
    /// Whether positions are relative, and none are added to the embeddings.
    pub relative: Option<Relative>,
}

impl Sizes {
    /// Replaces every dropout rate.
    pub(super) fn set_dropout(&mut self, rate: f64) {
        self.hidden_dropout = rate;
        self.attention_dropout = rate;
        self.head_dropout = rate;
    }

    /// How narrow copies of its blocks can be.
    pub(super) const fn narrowing(&self) -> Narrowing {
        Narrowing {
            unit: self.hidden / self.heads,
            prunes: true,
        }
    }

    /// The figures that others need, with positions from 0 on.
    pub(super) fn facts(&self, segments: u64) -> Facts {
        Facts {
            layers: self.layers,
            blocks: self.layers,
            hidden: self.hidden,
            embedding: self.embedding,
            heads: self.heads,
            vocab: self.vocab,
            max_length: self.positions,
            positions: Positions::default(),
            long: LongTexts::default(),
            segments,
            dropout: self.hidden_dropout,
            attention_dropout: self.attention_dropout,
            eps: self.eps,
            causal: false,
            narrow: self.narrowing(),
        }
    }

    /// Checks what the sizes must satisfy together.
    pub(super) fn checked(self) -> Result<Self, String> {
        let rows = self.vocab + self.positions;
        let hidden = self.hidden.max(self.embedding);
        within_bounds(self.layers, (hidden, self.hidden), self.ffn, rows)?;
        if self.hidden.is_multiple_of(self.heads) {
            Ok(self)
        } else {
            Err(format!(
                "config.json: a width of {} cannot be split into {} heads",
                self.hidden, self.heads
            ))
        }
    }
}

/// Where positions begin, and which token is not counted, in a model whose table of positions has a row for padding; and how
/// many positions are left for a text.
///
/// # Errors
/// A padding index that is no token, or that leaves no position.
pub(super) fn padded_positions(padding: u64, sizes: &Sizes) -> Result<(Positions, u64), String> {
    let first = padding + 1;
    if sizes.positions <= first {
        return Err(format!(
            "config.json: `max_position_embeddings` = {} leaves no position after the padding index {padding}",
            sizes.positions
        ));
    }
    let positions = Positions {
        first: to_u32(first),
        skips: Some(to_u32(padding)),
        ..Positions::default()
    };
    Ok((positions, sizes.positions - first))
}

/// The padding index of a config, which positions are counted from; a missing key is `default`.
///
/// # Errors
/// It is no token.
pub(super) fn padding(config: &Config<'_>, sizes: &Sizes, default: u64) -> Result<u64, String> {
    match config.0.get("pad_token_id") {
        None => Ok(default),
        Some(id) => id.as_u64().filter(|&id| id < sizes.vocab).ok_or_else(|| {
            format!("config.json has `pad_token_id` = {id}; positions are counted from it, so a token's id is wanted")
        }),
    }
}

/// The keys BERT and RoBERTa share.
pub(super) fn bert_sizes(config: &Config<'_>) -> Result<Sizes, String> {
    let hidden_dropout = config.rate_or("hidden_dropout_prob", 0.1)?;
    let hidden = config.size("hidden_size")?;
    Sizes {
        layers: config.size("num_hidden_layers")?,
        hidden,
        embedding: hidden,
        heads: config.size("num_attention_heads")?,
        ffn: config.size("intermediate_size")?,
        vocab: config.vocabulary()?,
        positions: config.size("max_position_embeddings")?,
        eps: config.eps("layer_norm_eps", 1e-12)?,
        activation: config.activation("hidden_act")?,
        hidden_dropout,
        attention_dropout: config.rate_or("attention_probs_dropout_prob", 0.1)?,
        head_dropout: config.rate_or("classifier_dropout", hidden_dropout)?,
        drops_ffn: true,
        pre_norm: false,
        tied: config.tied()?,
        relative: relative(config)?,
    }
    .checked()
}

/// How positions are told, where it is not by embeddings that are added.
fn relative(config: &Config<'_>) -> Result<Option<Relative>, String> {
    match config.0.get("position_embedding_type") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(name)) if name == "absolute" => Ok(None),
        Some(Json::String(name)) if name == "relative_key" => Ok(Some(Relative::Key)),
        Some(Json::String(name)) if name == "relative_key_query" => Ok(Some(Relative::KeyQuery)),
        Some(other) => Err(format!(
            "config.json has `position_embedding_type` = {other}; `absolute`, `relative_key` or `relative_key_query` is wanted"
        )),
    }
}

/// Whether a tensor is that of absolute positions, which models with relative ones hold and do not read.
pub(super) fn is_unread_table(sizes: &Sizes, name: &str) -> bool {
    sizes.relative.is_some() && name.ends_with("embeddings.position_embeddings.weight")
}

/// Sum of word, position and (if any) segment embeddings, norm, dropout: `[T, embedding]`.
pub(super) fn embeddings(net: &mut Net<'_>, prefix: &str, sizes: &Sizes, segments: u64) -> Value {
    let ids = net.b.feed(Feed::TokenIds);
    let d = sizes.embedding;
    let at = |name: &str| format!("{prefix}.{name}");
    let table = |name: &str, role, rows| Site::table(at(name), role, (rows, d));
    let words = table("word_embeddings", Role::WordEmbedding, sizes.vocab);
    let mut x = net.embedding(&words, ids);
    if segments > 0 {
        let ids = net.b.feed(Feed::Segments);
        let kinds = table("token_type_embeddings", Role::SegmentEmbedding, segments);
        let part = net.embedding(&kinds, ids);
        x = net.add(x, part);
    }
    if sizes.relative.is_none() {
        let positions = net.b.feed(Feed::Positions);
        let (name, role) = ("position_embeddings", Role::PositionEmbedding);
        let places = table(name, role, sizes.positions);
        let position = net.embedding(&places, positions);
        x = net.add(x, position);
    }
    if !sizes.pre_norm {
        let norm = Site::norm(at("LayerNorm"), Role::EmbeddingNorm, d);
        x = net.layer_norm(&norm, x, sizes.eps);
    }
    net.dropout(x, sizes.hidden_dropout)
}

/// Embeddings as wide as the blocks: `[T, embedding] → [T, hidden]`, by the map at `path`.
pub(super) fn widened(net: &mut Net<'_>, path: &str, sizes: &Sizes, x: Value) -> Value {
    let widths = (sizes.embedding, sizes.hidden);
    net.linear(Site::linear(path, Role::EmbeddingProjection, widths), x)
}

/// Module paths of a masked-LM head.
pub(super) struct LmPaths {
    pub dense: &'static str,
    pub norm: &'static str,
    /// The bias where the decoder is tied to the token embedding.
    pub bias: &'static str,
    /// The token embedding.
    pub embeddings: &'static str,
    /// The decoder of its own where it is not tied.
    pub decoder: &'static str,
    /// What stands between dense map and norm.
    pub activation: ActivationKind,
}

/// Logits of some words at the masks: `LN(act(dense(h))) · E[words]ᵀ + b[words]`, as wide as the embeddings. The rest of the
/// vocabulary is not computed; `None` is all of it.
pub(super) fn words(
    net: &mut Net<'_>,
    paths: &LmPaths,
    sizes: &Sizes,
    masked: Value,
    words: Option<&[u32]>,
) -> Value {
    let d = sizes.embedding;
    let dense = Site::linear(paths.dense, Role::LmDense, (sizes.hidden, d));
    let x = net.linear(dense, masked);
    let x = net.activation(paths.activation, x);
    let x = net.layer_norm(&Site::norm(paths.norm, Role::LmNorm, d), x, sizes.eps);
    let own = format!("{}.bias", paths.decoder);
    let (table, role, bias) = if sizes.tied {
        (paths.embeddings, Role::WordEmbedding, paths.bias)
    } else {
        (paths.decoder, Role::LmDecoder, own.as_str())
    };
    let table = Site::table(table, role, (sizes.vocab, d));
    net.decode(x, &table, Some(bias), words)
}

/// The bias of a masked-LM head under its two names: with and without the decoder's path. Those of the
/// decoder of its own come first where it has one.
pub(super) fn bias_names(name: &str, bias: &str, decoder: &str) -> Option<Vec<String>> {
    let own = format!("{decoder}.bias");
    if name == bias {
        Some(vec![bias.to_owned(), own])
    } else if name == own {
        Some(vec![own, bias.to_owned()])
    } else {
        None
    }
}

/// Present and old names of a parameter: with and without the model's prefix, `gamma`/`beta`.
pub(super) fn old_names(name: &str, prefixes: &[&str]) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    for prefix in prefixes {
        if let Some(rest) = name.strip_prefix(prefix) {
            names.push(rest.to_owned());
        }
    }
    let gamma = |n: &String| {
        n.strip_suffix("LayerNorm.weight")
            .map(|s| format!("{s}LayerNorm.gamma"))
            .or_else(|| {
                n.strip_suffix("LayerNorm.bias")
                    .map(|s| format!("{s}LayerNorm.beta"))
            })
    };
    let old: Vec<String> = names.iter().filter_map(gamma).collect();
    names.extend(old);
    names
}

/// RoBERTa's head on a sequence, a map with an activation before the one to the classes: `[S, hidden] → [S, classes]`.
pub(super) fn dense_head(
    net: &mut Net<'_>,
    sizes: &Sizes,
    activation: ActivationKind,
    (hidden, classes): (Value, u64),
) -> Value {
    let (d, p) = (sizes.hidden, sizes.head_dropout);
    let x = net.dropout(hidden, p);
    let x = net.linear(Site::linear("classifier.dense", Role::HeadDense, (d, d)), x);
    let x = net.activation(activation, x);
    let x = net.dropout(x, p);
    let site = Site::linear("classifier.out_proj", Role::HeadOutput, (d, classes));
    net.linear(site, x)
}

/// The head that scores options behind a pooler of RoBERTa's: `[N, hidden] → [N, 1]`. Its dropout is that of the blocks, whatever
/// `classifier_dropout` says.
pub(super) fn pooled_head(net: &mut Net<'_>, pooler: &str, sizes: &Sizes, hidden: Value) -> Value {
    let d = sizes.hidden;
    let x = net.linear(Site::linear(pooler, Role::HeadDense, (d, d)), hidden);
    let x = net.activation(ActivationKind::Tanh, x);
    let x = net.dropout(x, sizes.hidden_dropout);
    let site = Site::linear("classifier", Role::HeadOutput, (d, 1));
    net.linear(site, x)
}

/// A head on each token, as the classes of transformers for tokens have it: `[N, width] → [N, classes]`.
pub(super) fn token_head(
    net: &mut Net<'_>,
    (width, classes): (u64, u64),
    dropout: f64,
    hidden: Value,
) -> Value {
    let x = net.dropout(hidden, dropout);
    let site = Site::linear("classifier", Role::HeadOutput, (width, classes));
    net.linear(site, x)
}

/// The head for the bounds of answers, as most classes of transformers have it: `[N, width] → [N, 2]`.
pub(super) fn bounds_head(net: &mut Net<'_>, width: u64, dropout: f64, hidden: Value) -> Value {
    let x = net.dropout(hidden, dropout);
    net.linear(Site::linear("qa_outputs", Role::HeadOutput, (width, 2)), x)
}

/// Its module.
pub(super) const BOUNDS: &[&str] = &["qa_outputs"];
