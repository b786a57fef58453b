//! ModernBERT's `config.json`.

use serde_json::{Map, Value as Json};

use super::super::super::net::{Net, Site};
use super::super::encoder::{Config, within_bounds};
use super::super::rope::{self, Base, Rope, borders};
use super::super::{Facts, LongTexts, Narrowing, Positions, decoder};
use crate::program::Value;
use crate::program::op::ActivationKind;

/// Which parts have biases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Biases {
    pub attention: bool,
    pub ffn: bool,
    pub norms: bool,
    /// The layer before the scores.
    pub head: bool,
    /// The decoder of the masked-LM head.
    pub decoder: bool,
}

/// Rates of dropout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropout {
    pub embedding: f64,
    /// On the probabilities, and on what the attention gives.
    pub attention: f64,
    /// Inside of the feed-forward network.
    pub ffn: f64,
    pub head: f64,
}

/// What tells one block from another.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// How far a token sees on both sides; `None` is everything.
    pub distance: Option<u32>,
    pub rope: Rope,
    /// Whether a norm stands before its attention.
    pub normed: bool,
}

impl Layer {
    /// That of heads so many times narrower.
    pub(super) fn narrower(&self, times: u64) -> Self {
        Self {
            rope: self.rope.narrower(times),
            ..self.clone()
        }
    }
}

/// Its sizes.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub hidden: u64,
    pub heads: u64,
    pub ffn: u64,
    pub vocab: u64,
    pub positions: u64,
    pub eps: f64,
    pub activation: ActivationKind,
    pub head_activation: ActivationKind,
    pub biases: Biases,
    pub dropout: Dropout,
    /// Whether the mean of all tokens is classified, and not the first.
    pub averages: bool,
    /// Whether the masked-LM head reads the token embedding.
    pub tied: bool,
    pub layers: Vec<Layer>,
}

impl Shape {
    /// Columns of a head.
    pub(super) const fn head(&self) -> u64 {
        self.hidden / self.heads
    }

    /// A linear map with or without its bias.
    pub(super) fn biased(&self, bias: bool, site: Site) -> Site {
        if bias { site } else { site.without_bias() }
    }

    /// A norm of rows.
    pub(super) fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        match self.biases.norms {
            true => net.layer_norm(site, x, self.eps),
            false => net.layer_norm_unbiased(site, x, self.eps),
        }
    }

    /// Replaces every dropout rate.
    pub(super) fn set_dropout(&mut self, rate: f64) {
        self.dropout = Dropout {
            embedding: rate,
            attention: rate,
            ffn: rate,
            head: rate,
        };
    }

    /// That of a block so many times narrower, with as many heads.
    pub(super) fn narrower(&self, times: u64) -> Self {
        Self {
            hidden: self.hidden / times,
            ffn: (self.ffn / times).max(1),
            layers: Vec::new(),
            ..self.clone()
        }
    }

    /// The figures that others need.
    pub(super) fn facts(&self) -> Facts {
        let layers = self.layers.len() as u64;
        Facts {
            layers,
            blocks: layers,
            hidden: self.hidden,
            embedding: self.hidden,
            heads: self.heads,
            vocab: self.vocab,
            max_length: self.positions,
            positions: Positions::default(),
            long: LongTexts {
                borders: borders(self.layers.iter().map(|own| &own.rope)),
                rereads: false,
            },
            segments: 0,
            dropout: self.dropout.ffn,
            attention_dropout: self.dropout.attention,
            eps: self.eps,
            causal: false,
            narrow: Narrowing {
                // Rotary positions turn pairs of columns.
                unit: self.head() / 2,
                prunes: false,
            },
        }
    }
}

/// Reads a config; where a key is missing, the class of transformers decides.
///
/// # Errors
/// A key that is missing, or cannot be honoured.
pub(super) fn shape(config: &Json) -> Result<Shape, String> {
    let keys = Config(config);
    let (hidden, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
    let (layers, ffn) = (
        keys.size("num_hidden_layers")?,
        keys.size("intermediate_size")?,
    );
    let vocab = keys.vocabulary()?;
    within_bounds(layers, (hidden, hidden), ffn.saturating_mul(2), vocab)?;
    if !hidden.is_multiple_of(heads) {
        return Err(format!(
            "config.json: a width of {hidden} cannot be split into {heads} heads"
        ));
    }
    let averages = match config.get("classifier_pooling").map(Json::as_str) {
        None | Some(Some("cls")) => false,
        Some(Some("mean")) => true,
        Some(_) => {
            return Err(format!(
                "config.json has `classifier_pooling` = {}; cls or mean is wanted",
                config["classifier_pooling"]
            ));
        }
    };
    let mut shape = Shape {
        hidden,
        heads,
        ffn,
        vocab,
        positions: keys.size_or("max_position_embeddings", 8192)?,
        eps: keys.eps("norm_eps", 1e-5)?,
        activation: keys.activation("hidden_activation")?,
        head_activation: keys.activation("classifier_activation")?,
        biases: Biases {
            attention: keys.flag("attention_bias", false)?,
            ffn: keys.flag("mlp_bias", false)?,
            norms: keys.flag("norm_bias", false)?,
            head: keys.flag("classifier_bias", false)?,
            decoder: keys.flag("decoder_bias", true)?,
        },
        dropout: Dropout {
            embedding: keys.rate_or("embedding_dropout", 0.0)?,
            attention: keys.rate_or("attention_dropout", 0.0)?,
            ffn: keys.rate_or("mlp_dropout", 0.0)?,
            head: keys.rate_or("classifier_dropout", 0.0)?,
        },
        averages,
        tied: keys.tied()?,
        layers: Vec::new(),
    };
    let distance = match keys.0.get("sliding_window") {
        // What transformers sets it by beside `local_attention`.
        Some(_) => keys.size("sliding_window")?,
        None => keys.size_or("local_attention", 128)? / 2,
    };
    let distance = u32::try_from(distance).unwrap_or(u32::MAX);
    let every = keys.size_or("global_attn_every_n_layers", 3)?;
    let reader = decoder::reader(config, &decoder::LLAMA);
    let slides = reader.slides(layers, |i| !i.is_multiple_of(every))?;
    let global = rope(
        config,
        &shape,
        ("full_attention", "global_rope_theta", 160_000.0),
    )?;
    let local = rope(
        config,
        &shape,
        ("sliding_attention", "local_rope_theta", 10_000.0),
    )?;
    let layer = |(i, slides): (usize, bool)| Layer {
        distance: slides.then_some(distance),
        rope: if slides {
            local.clone()
        } else {
            global.clone()
        },
        // What stands before the first is that of the embeddings.
        normed: i > 0,
    };
    shape.layers = slides.into_iter().enumerate().map(layer).collect();
    Ok(shape)
}

/// The rotary positions of a type of layers, whose theta stands in a key of its own in old files.
fn rope(
    config: &Json,
    shape: &Shape,
    (kind, theta_key, theta): (&str, &str, f64),
) -> Result<Rope, String> {
    let object = |key: &str| match config.get(key) {
        None | Some(Json::Null) => Ok(Map::new()),
        Some(Json::Object(map)) => Ok(map.clone()),
        Some(v) => Err(format!(
            "config.json has `{key}` = {v}; an object is wanted"
        )),
    };
    let written = object("rope_parameters")?;
    let mut own = match written.get(kind) {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(own)) => own.clone(),
        Some(v) => {
            return Err(format!(
                "config.json has `{kind}` = {v} in `rope_parameters`; an object is wanted"
            ));
        }
    };
    let flat = |(key, _): &(&String, &Json)| {
        !matches!(key.as_str(), "full_attention" | "sliding_attention")
    };
    if let Some((key, _)) = written.iter().find(flat) {
        return Err(format!(
            "config.json has `{key}` in `rope_parameters`, which must name full_attention and sliding_attention"
        ));
    }
    own.extend(object("rope_scaling")?);
    if own
        .get("partial_rotary_factor")
        .is_some_and(|v| v.as_f64() != Some(1.0))
    {
        return Err(
            "config.json has a `partial_rotary_factor` other than 1, which is not built: heads are turned whole".to_owned(),
        );
    }
    if !own.contains_key("rope_theta")
        && let Some(theta) = config.get(theta_key)
    {
        own.insert("rope_theta".to_owned(), theta.clone());
    }
    let base = Base {
        head: shape.head(),
        theta,
        partial: 1.0,
        positions: shape.positions,
    };
    rope::rope(&own, base)
}
