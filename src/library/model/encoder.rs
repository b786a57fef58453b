//! What BERT, RoBERTa and DistilBERT have in common: sizes read from `config.json`, and the
//! post-norm transformer block over packed tokens.

use serde_json::Value as Json;

use super::super::derive::prune::Pruner;
use super::super::net::{Attend, Columns, KeyMaps, Net, Normed, Part, Role, Site};
use super::{Mirror, Narrowing};
use crate::program::op::{ActivationKind, Attention, Heads};
use crate::program::{Feed, Real, Value};

/// Most blocks of a model: a program holds each of them, and the deepest encoders have 48.
const MOST_LAYERS: u64 = 512;
/// Most tokens of a vocabulary: their numbers are results in f32, which holds all whole numbers up to here.
const MOST_TOKENS: u64 = 1 << 24;
/// Most parameters of a model, far more than any machine holds.
const MOST_NUMBERS: u128 = 1_000_000_000_000;

/// Sizes of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizes {
    pub layers: u64,
    pub hidden: u64,
    pub heads: u64,
    pub ffn: u64,
    pub vocab: u64,
    pub positions: u64,
    pub eps: f64,
    pub activation: ActivationKind,
    pub hidden_dropout: f64,
    pub attention_dropout: f64,
    pub head_dropout: f64,
    /// Whether the masked-LM head reads the token embedding.
    pub tied: bool,
}

/// Module paths of one block, in the checkpoint's own words.
pub(super) struct BlockPaths {
    pub query: String,
    pub key: String,
    pub value: String,
    pub attention_output: String,
    /// The module that queries, keys and values meet in.
    pub heads: String,
    /// The module whose result is added to the residual.
    pub attention: String,
    pub attention_norm: String,
    pub ffn_up: String,
    pub ffn_down: String,
    /// The module whose result is added to the residual.
    pub ffn: String,
    pub ffn_norm: String,
}

/// Reads keys of a `config.json` and words the complaints.
pub(super) struct Config<'a>(pub &'a Json);

impl Config<'_> {
    /// A required size of at least 1.
    pub(super) fn size(&self, key: &str) -> Result<u64, String> {
        match self.0.get(key).map(|v| (v, v.as_u64())) {
            Some((_, Some(n))) if n > 0 && n <= 1 << 32 => Ok(n),
            Some((v, _)) => Err(format!(
                "config.json has `{key}` = {v}; a whole number of at least 1 is wanted"
            )),
            None => Err(format!("config.json has no `{key}`")),
        }
    }

    /// A size with a default.
    pub(super) fn size_or(&self, key: &str, default: u64) -> Result<u64, String> {
        if self.0.get(key).is_some_and(|v| !v.is_null()) {
            self.size(key)
        } else {
            Ok(default)
        }
    }

    /// A number with a default; `null` counts as absent.
    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|x| x.is_finite())
                .ok_or_else(|| format!("config.json has `{key}` = {v}; a number is wanted")),
        }
    }

    /// A dropout rate.
    pub(super) fn rate_or(&self, key: &str, default: f64) -> Result<f64, String> {
        let p = self.number_or(key, default)?;
        if (0.0..1.0).contains(&p) {
            Ok(p)
        } else {
            Err(format!(
                "config.json has `{key}` = {p}; a rate from 0 to below 1 is wanted"
            ))
        }
    }

    /// The activation.
    pub(super) fn activation(&self, key: &str) -> Result<ActivationKind, String> {
        let name = match self.0.get(key) {
            None => "gelu",
            Some(Json::String(name)) => name,
            Some(other) => {
                return Err(format!(
                    "config.json has `{key}` = {other}; the name of an activation is wanted"
                ));
            }
        };
        match name {
            "gelu" | "gelu_python" => Ok(ActivationKind::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh"
            | "gelu_accurate" => Ok(ActivationKind::GeluTanh),
            "relu" => Ok(ActivationKind::Relu),
            "silu" | "swish" => Ok(ActivationKind::Silu),
            other => Err(format!(
                "config.json asks for the activation `{other}`, which is not built yet; built are gelu, gelu_new, relu \
                 and silu"
            )),
        }
    }

    /// The first of several names of a key that is there, else the last.
    pub(super) fn name<'k>(&self, names: &[&'k str]) -> &'k str {
        let there = |name: &&&str| self.0.get(**name).is_some();
        let found = names.iter().find(there).or(names.last());
        found.copied().unwrap_or_default()
    }

    /// Whether the masked-LM head reads the token embedding.
    pub(super) fn tied(&self) -> Result<bool, String> {
        match self.0.get("tie_word_embeddings") {
            None => Ok(true),
            Some(Json::Bool(tied)) => Ok(*tied),
            Some(other) => Err(format!(
                "config.json has `tie_word_embeddings` = {other}; true or false is wanted"
            )),
        }
    }

    /// The tokens of the vocabulary.
    pub(super) fn vocabulary(&self) -> Result<u64, String> {
        let n = self.size("vocab_size")?;
        if n > MOST_TOKENS {
            return Err(format!(
                "config.json has `vocab_size` = {n}; {MOST_TOKENS} tokens are the most that are built"
            ));
        }
        Ok(n)
    }

    /// The addend of the variance in norms.
    fn eps(&self) -> Result<f64, String> {
        let eps = self.number_or("layer_norm_eps", 1e-12)?;
        if eps >= 0.0 {
            Ok(eps)
        } else {
            Err(format!(
                "config.json has `layer_norm_eps` = {eps}; a number of at least 0 is wanted"
            ))
        }
    }
}

/// Whether a model with so many blocks, of this width within and without its attention, is one that can be built.
pub(super) fn within_bounds(
    layers: u64,
    (hidden, width): (u64, u64),
    ffn: u64,
    rows: u64,
) -> Result<(), String> {
    if layers > MOST_LAYERS {
        return Err(format!(
            "config.json has {layers} blocks; {MOST_LAYERS} are the most that are built"
        ));
    }
    let [layers, hidden, width, ffn, rows] = [layers, hidden, width, ffn, rows].map(u128::from);
    let numbers = layers * hidden * (4 * width + 2 * ffn) + rows * hidden;
    if numbers > MOST_NUMBERS {
        return Err(format!(
            "config.json describes a model of about {numbers} parameters; {MOST_NUMBERS} are the most that are built"
        ));
    }
    Ok(())
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

    /// Checks what the sizes must satisfy together.
    pub(super) fn checked(self) -> Result<Self, String> {
        let rows = self.vocab + self.positions;
        within_bounds(self.layers, (self.hidden, self.hidden), self.ffn, rows)?;
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

/// The keys BERT and RoBERTa share.
pub(super) fn bert_sizes(config: &Config<'_>) -> Result<Sizes, String> {
    let hidden_dropout = config.rate_or("hidden_dropout_prob", 0.1)?;
    Sizes {
        layers: config.size("num_hidden_layers")?,
        hidden: config.size("hidden_size")?,
        heads: config.size("num_attention_heads")?,
        ffn: config.size("intermediate_size")?,
        vocab: config.vocabulary()?,
        positions: config.size("max_position_embeddings")?,
        eps: config.eps()?,
        activation: config.activation("hidden_act")?,
        hidden_dropout,
        attention_dropout: config.rate_or("attention_probs_dropout_prob", 0.1)?,
        head_dropout: config.rate_or("classifier_dropout", hidden_dropout)?,
        tied: config.tied()?,
    }
    .checked()
}

/// Paths of BERT's and RoBERTa's blocks under a prefix.
pub(super) fn bert_block(prefix: &str, layer: u64) -> BlockPaths {
    let at = |rest: &str| format!("{prefix}.encoder.layer.{layer}.{rest}");
    BlockPaths {
        query: at("attention.self.query"),
        key: at("attention.self.key"),
        value: at("attention.self.value"),
        attention_output: at("attention.output.dense"),
        heads: at("attention.self"),
        attention: at("attention.output"),
        attention_norm: at("attention.output.LayerNorm"),
        ffn_up: at("intermediate.dense"),
        ffn_down: at("output.dense"),
        ffn: at("output"),
        ffn_norm: at("output.LayerNorm"),
    }
}

/// Sum of word, position and (if any) segment embeddings, norm, dropout: `[T, hidden]`.
pub(super) fn embeddings(net: &mut Net<'_>, prefix: &str, sizes: &Sizes, segments: u64) -> Value {
    let (ids, positions) = (net.b.feed(Feed::TokenIds), net.b.feed(Feed::Positions));
    let d = sizes.hidden;
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
    let places = table(
        "position_embeddings",
        Role::PositionEmbedding,
        sizes.positions,
    );
    let position = net.embedding(&places, positions);
    x = net.add(x, position);
    let norm = Site::norm(at("LayerNorm"), Role::EmbeddingNorm, d);
    let x = net.layer_norm(&norm, x, sizes.eps);
    net.dropout(x, sizes.hidden_dropout)
}

/// One post-norm block; of the `last` one only the rows that are read: `h = LN(x + Drop(Attn(x)))`, `LN(h + Drop(W₂ act(W₁ h)))`.
pub(super) fn block(
    net: &mut Net<'_>,
    paths: &BlockPaths,
    sizes: &Sizes,
    (at, last): (Option<u64>, bool),
    x: Value,
) -> Value {
    let (d, f) = (sizes.hidden, sizes.ffn);
    let map = |path: &String, role, sizes| Site::linear(path, role, sizes).in_layer(at);
    let norm = |path: &String, role| Site::norm(path, role, d).in_layer(at);
    let added =
        |path: &String, role| Site::new(path, role, Part::Sublayer { width: d }).in_layer(at);
    let q = net.linear(map(&paths.query, Role::Query, (d, d)), x);
    let k = net.linear(map(&paths.key, Role::Key, (d, d)), x);
    let v = net.linear(map(&paths.value, Role::Value, (d, d)), x);
    let head = d / sizes.heads;
    let of = Attend {
        op: Attention::plain(
            Heads::each(sizes.heads as u32),
            Real::new(1.0 / (head as f64).sqrt()),
        ),
        read: x,
        maps: KeyMaps {
            key: Columns::all(map(&paths.key, Role::Key, (d, d))),
            value: Columns::all(map(&paths.value, Role::Value, (d, d))),
        },
        queries: q,
        keys: k,
        values: v,
        dropout: sizes.attention_dropout,
    };
    let (heads, keys) = (sizes.heads, sizes.heads);
    let part = Part::Attention { heads, keys, head };
    let site = Site::new(&paths.heads, Role::Attention, part);
    let a = net.attention(site.in_layer(at), of);
    let (a, x) = if last {
        (net.picked(a), net.picked(x))
    } else {
        (a, x)
    };
    let output = map(&paths.attention_output, Role::AttentionOutput, (d, d));
    let a = net.linear(output, a);
    let a = net.dropout(a, sizes.hidden_dropout);
    let eps = sizes.eps;
    let behind = norm(&paths.attention_norm, Role::AttentionNorm);
    let normed = Normed { site: &behind, eps };
    let site = added(&paths.attention, Role::Attention);
    let a = net.sublayer(site, Some(normed), (x, a));
    let h = net.add(a, x);
    let h = net.layer_norm(&behind, h, eps);
    let u = net.linear(map(&paths.ffn_up, Role::FfnUp, (d, f)), h);
    let u = net.activation(sizes.activation, u);
    let u = net.linear(map(&paths.ffn_down, Role::FfnDown, (f, d)), u);
    let u = net.dropout(u, sizes.hidden_dropout);
    let behind = norm(&paths.ffn_norm, Role::FfnNorm);
    let normed = Normed { site: &behind, eps };
    let u = net.sublayer(added(&paths.ffn, Role::Ffn), Some(normed), (h, u));
    let y = net.add(u, h);
    net.layer_norm(&behind, y, eps)
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

/// Logits of some words at the masks: `LN(act(dense(h))) · E[words]ᵀ + b[words]`. The rest of the
/// vocabulary is not computed; `None` is all of it.
pub(super) fn words(
    net: &mut Net<'_>,
    paths: &LmPaths,
    sizes: &Sizes,
    masked: Value,
    words: Option<&[u32]>,
) -> Value {
    let d = sizes.hidden;
    let x = net.linear(Site::linear(paths.dense, Role::LmDense, (d, d)), masked);
    let x = net.activation(paths.activation, x);
    let x = net.layer_norm(&Site::norm(paths.norm, Role::LmNorm, d), x, sizes.eps);
    let own = format!("{}.bias", paths.decoder);
    let (table, role, bias) = if sizes.tied {
        (paths.embeddings, Role::WordEmbedding, paths.bias)
    } else {
        (paths.decoder, Role::LmDecoder, own.as_str())
    };
    net.decode(x, &Site::table(table, role, (sizes.vocab, d)), bias, words)
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

/// A narrow copy of the block at `own`, with as many heads, under `path`; `table` is the module path of
/// the token embedding.
pub(super) fn mirror(
    net: &mut Net<'_>,
    path: &str,
    sizes: &Sizes,
    (table, own): (&str, &BlockPaths),
    mirror: Mirror,
    x: Value,
) -> Value {
    let at = |rest: &str| format!("{path}.{rest}");
    let paths = BlockPaths {
        query: at("attention.query"),
        key: at("attention.key"),
        value: at("attention.value"),
        attention_output: at("attention.output"),
        heads: at("attention"),
        attention: at("attention"),
        attention_norm: at("attention.norm"),
        ffn_up: at("ffn.up"),
        ffn_down: at("ffn.down"),
        ffn: at("ffn"),
        ffn_norm: at("ffn.norm"),
    };
    let narrow = Sizes {
        hidden: sizes.hidden / mirror.reduction,
        ffn: sizes.ffn / mirror.reduction,
        ..sizes.clone()
    };
    if let Some(pruner) = net.pruner() {
        pruner.enter(table, (sizes.vocab, sizes.hidden), narrow.hidden);
        follow(pruner, &paths, own, sizes, &narrow);
    }
    block(net, &paths, &narrow, (None, mirror.last), x)
}

/// Walks through a block from its input to its output.
fn follow(pruner: &mut Pruner, copy: &BlockPaths, own: &BlockPaths, wide: &Sizes, narrow: &Sizes) {
    let (d, f) = (wide.hidden, wide.ffn);
    let projections = [
        (copy.query.as_str(), own.query.as_str()),
        (&copy.key, &own.key),
        (&copy.value, &own.value),
    ];
    pruner.maps(&projections, (d, d), narrow.hidden);
    let output = [(
        copy.attention_output.as_str(),
        own.attention_output.as_str(),
    )];
    pruner.maps(&output, (d, d), narrow.hidden);
    pruner.norm((&copy.attention_norm, &own.attention_norm), d);
    pruner.maps(&[(&copy.ffn_up, &own.ffn_up)], (f, d), narrow.ffn);
    pruner.maps(&[(&copy.ffn_down, &own.ffn_down)], (d, f), narrow.hidden);
    pruner.norm((&copy.ffn_norm, &own.ffn_norm), d);
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
