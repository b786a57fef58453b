//! Sites: the named places of a model where methods act.

use super::Net;
use crate::program::op::Attention;
use crate::program::{Distances, Value};

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
    /// `attention.qkv`: query, key and value as one map
    Qkv,
    /// `attention.query_norm`
    QueryNorm,
    /// `attention.key_norm`
    KeyNorm,
    /// `attention.position_query`: what makes queries of rows that stand for distances
    PositionQuery,
    /// `attention.position_key`: what makes keys of them
    PositionKey,
    /// `attention.post_norm`: behind the attention, where another norm stands before it
    AttentionPostNorm,
    /// `ffn.gate`
    FfnGate,
    /// `ffn.gate_up`: gate and up as one map
    FfnGateUp,
    /// `ffn.up`
    FfnUp,
    /// `ffn.down`
    FfnDown,
    /// `ffn.norm`
    FfnNorm,
    /// `ffn.post_norm`: behind the feed-forward network, where another norm stands before it
    FfnPostNorm,
    /// `cross_attention.query`: of a decoder's attention to what its encoder gave
    CrossQuery,
    /// `cross_attention.key`
    CrossKey,
    /// `cross_attention.value`
    CrossValue,
    /// `cross_attention.output`
    CrossOutput,
    /// `cross_attention.norm`
    CrossNorm,
    /// `norm`: behind the last block
    FinalNorm,
    /// `attention`: what the attention adds to the residual
    Attention,
    /// `cross_attention`: what the attention to another stream adds to the residual
    Cross,
    /// `ffn`: what the feed-forward network adds to the residual
    Ffn,
    /// `block`: what enters a block
    Block,
    /// `convolution`: along the tokens, behind the first block
    Convolution,
    /// `convolution.norm`: behind that
    ConvolutionNorm,
    /// `embeddings.word`
    WordEmbedding,
    /// `embeddings.position`
    PositionEmbedding,
    /// `embeddings.segment`
    SegmentEmbedding,
    /// `embeddings.norm`
    EmbeddingNorm,
    /// `embeddings.position_norm`: of rows that stand for distances
    PositionNorm,
    /// `embeddings.projection`: what makes embeddings as wide as the blocks
    EmbeddingProjection,
    /// `head.dense`: what stands between the backbone and the scores
    HeadDense,
    /// `head.norm`: between that and the scores
    HeadNorm,
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
    (Role::Qkv, "attention.qkv"),
    (Role::QueryNorm, "attention.query_norm"),
    (Role::KeyNorm, "attention.key_norm"),
    (Role::PositionQuery, "attention.position_query"),
    (Role::PositionKey, "attention.position_key"),
    (Role::AttentionPostNorm, "attention.post_norm"),
    (Role::FfnGate, "ffn.gate"),
    (Role::FfnGateUp, "ffn.gate_up"),
    (Role::FfnUp, "ffn.up"),
    (Role::FfnDown, "ffn.down"),
    (Role::FfnNorm, "ffn.norm"),
    (Role::FfnPostNorm, "ffn.post_norm"),
    (Role::CrossQuery, "cross_attention.query"),
    (Role::CrossKey, "cross_attention.key"),
    (Role::CrossValue, "cross_attention.value"),
    (Role::CrossOutput, "cross_attention.output"),
    (Role::CrossNorm, "cross_attention.norm"),
    (Role::FinalNorm, "norm"),
    (Role::Attention, "attention"),
    (Role::Cross, "cross_attention"),
    (Role::Ffn, "ffn"),
    (Role::Block, "block"),
    (Role::Convolution, "convolution"),
    (Role::ConvolutionNorm, "convolution.norm"),
    (Role::WordEmbedding, "embeddings.word"),
    (Role::PositionEmbedding, "embeddings.position"),
    (Role::SegmentEmbedding, "embeddings.segment"),
    (Role::EmbeddingNorm, "embeddings.norm"),
    (Role::PositionNorm, "embeddings.position_norm"),
    (Role::EmbeddingProjection, "embeddings.projection"),
    (Role::HeadDense, "head.dense"),
    (Role::HeadNorm, "head.norm"),
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
        matches!(self, Self::HeadDense | Self::HeadNorm | Self::HeadOutput)
    }
}

/// What stands at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A linear map `[N, input] → [N, output]`.
    Linear {
        /// Input width.
        input: u64,
        /// Output width.
        output: u64,
        /// Whether it has a bias.
        bias: bool,
    },
    /// A norm of rows `[N, width]`.
    Norm {
        /// Width of a row.
        width: u64,
    },
    /// A table of embeddings `[rows, width]`.
    Table {
        /// Entries.
        rows: u64,
        /// Width of an entry.
        width: u64,
    },
    /// What a sub-layer adds to the residual, `[N, width]`.
    Sublayer {
        /// Width of a row.
        width: u64,
    },
    /// A whole block, which reads and gives `[N, width]`.
    Block {
        /// Width of a row.
        width: u64,
    },
    /// Queries against keys and values, between the maps that make them and the one that reads what it gives.
    Attention {
        /// Heads of the queries.
        heads: u64,
        /// Heads of keys and values.
        keys: u64,
        /// Columns of a head.
        head: u64,
    },
}

impl Part {
    /// What it is, in a word that is used of several.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear maps",
            Self::Norm { .. } => "norms",
            Self::Table { .. } => "tables of embeddings",
            Self::Sublayer { .. } => "sub-layers",
            Self::Block { .. } => "blocks",
            Self::Attention { .. } => "attentions",
        }
    }
}

/// A named place in a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Module path in the Hugging Face checkpoint.
    pub path: String,
    /// What it does.
    pub role: Role,
    /// Its block, counted from 0.
    pub layer: Option<u64>,
    /// What stands there.
    pub part: Part,
}

impl Site {
    /// A site outside of the blocks.
    #[must_use]
    pub fn new(path: impl Into<String>, role: Role, part: Part) -> Self {
        Self {
            path: path.into(),
            role,
            layer: None,
            part,
        }
    }

    /// The same in a block.
    #[must_use]
    pub fn in_layer(self, layer: Option<u64>) -> Self {
        Self { layer, ..self }
    }

    /// A linear map outside of the blocks.
    #[must_use]
    pub fn linear(path: impl Into<String>, role: Role, (input, output): (u64, u64)) -> Self {
        let bias = true;
        Self::new(
            path,
            role,
            Part::Linear {
                input,
                output,
                bias,
            },
        )
    }

    /// The same without a bias, if it is a linear map.
    #[must_use]
    pub const fn without_bias(mut self) -> Self {
        if let Part::Linear { bias, .. } = &mut self.part {
            *bias = false;
        }
        self
    }

    /// Whether it is a linear map with a bias.
    #[must_use]
    pub const fn has_bias(&self) -> bool {
        matches!(self.part, Part::Linear { bias: true, .. })
    }

    /// A norm outside of the blocks.
    #[must_use]
    pub fn norm(path: impl Into<String>, role: Role, width: u64) -> Self {
        Self::new(path, role, Part::Norm { width })
    }

    /// A table of embeddings.
    #[must_use]
    pub fn table(path: impl Into<String>, role: Role, (rows, width): (u64, u64)) -> Self {
        Self::new(path, role, Part::Table { rows, width })
    }

    /// Whether a linear map stands there.
    #[must_use]
    pub const fn is_linear(&self) -> bool {
        matches!(self.part, Part::Linear { .. })
    }

    /// Whether a norm stands there.
    #[must_use]
    pub const fn is_norm(&self) -> bool {
        matches!(self.part, Part::Norm { .. })
    }

    /// Width of what goes in; the number of entries of a table; of an attention that of its keys.
    #[must_use]
    pub const fn input(&self) -> u64 {
        match self.part {
            Part::Linear { input, .. } => input,
            Part::Table { rows, .. } => rows,
            Part::Norm { width } | Part::Sublayer { width } | Part::Block { width } => width,
            Part::Attention { keys, head, .. } => keys * head,
        }
    }

    /// Width of what comes out.
    #[must_use]
    pub const fn output(&self) -> u64 {
        match self.part {
            Part::Linear { output, .. } => output,
            Part::Norm { width }
            | Part::Table { width, .. }
            | Part::Sublayer { width }
            | Part::Block { width } => width,
            Part::Attention { heads, head, .. } => heads * head,
        }
    }
}

/// A layer norm of the model.
#[derive(Clone, Copy, Debug)]
pub struct Normed<'a> {
    /// Where it stands.
    pub site: &'a Site,
    /// Added to the variance.
    pub eps: f64,
}

/// The maps that make keys and values.
#[derive(Clone, Debug)]
pub struct KeyMaps {
    /// That of the keys.
    pub key: Columns,
    /// That of the values.
    pub value: Columns,
}

impl KeyMaps {
    /// Columns of what they read.
    #[must_use]
    pub const fn width(&self) -> u64 {
        self.key.map.input()
    }
}

/// Some columns of what a linear map gives.
#[derive(Clone, Debug)]
pub struct Columns {
    /// The map.
    pub map: Site,
    /// From and to which of the columns of each group, and how many groups there are; all if `None`.
    pub taken: Option<(u64, u64, u64)>,
}

impl Columns {
    /// All columns.
    #[must_use]
    pub const fn all(map: Site) -> Self {
        Self { map, taken: None }
    }

    /// Those of the model's own map of `x`, without any method.
    pub fn of(&self, net: &mut Net<'_>, x: Value) -> Value {
        let y = net.plain_linear(&self.map, x);
        match self.taken {
            Some((from, to, groups)) => net.grouped_columns(y, (from, to), groups),
            None => y,
        }
    }
}

/// What scores are made of beside products of queries and keys.
#[derive(Clone, Copy, Debug, Default)]
pub enum Beside {
    /// Nothing.
    #[default]
    Nothing,
    /// What is added by distance, `[2L+1, heads]`.
    Bias(Value),
    /// Products with keys and queries of distances.
    Distances(AtDistances),
}

/// Keys and queries of distances, `[buckets, width]`, that queries and keys meet.
#[derive(Clone, Copy, Debug)]
pub struct AtDistances {
    /// The bucket of each distance.
    pub distances: Distances,
    /// What queries meet.
    pub keys: Option<Value>,
    /// What keys meet.
    pub queries: Option<Value>,
}

/// An attention that is to be computed.
#[derive(Clone, Debug)]
pub struct Attend {
    /// Its heads, scale, mask and bound.
    pub op: Attention,
    /// What its sub-layer reads, `[T, hidden]`.
    pub read: Value,
    /// The maps that make its keys and values of that.
    pub maps: KeyMaps,
    /// Queries, `[T, width]`, with their positions.
    pub queries: Value,
    /// Keys, `[T, width of keys]`, with their positions.
    pub keys: Value,
    /// Values.
    pub values: Value,
    /// What its scores are made of beside products of queries and keys.
    pub beside: Beside,
    /// Rate of the dropout on the probabilities.
    pub dropout: f64,
}
