//! `config.json` of decoders. A key that is missing has the value that its class in transformers gives it.

use serde_json::{Map, Value as Json};

use super::super::encoder::{Config, within_bounds};
use super::super::rope::{self, Base, Rope};
use super::{Biases, Fused, LLAMA_NAMES, Norms, QkNorm, Shape, alike, usual_scale};

/// Most columns of a head, far more than any model has.
const MOST_COLUMNS: u64 = 1 << 14;

/// What a class has where a key is missing; 0 or `None` where the key must be there.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Class {
    /// Heads of keys and values; `None` is as many as of queries.
    pub kv_heads: Option<u64>,
    /// Columns of a head; `None` is the model's width over the heads of queries.
    pub head: Option<u64>,
    /// `max_position_embeddings`.
    pub positions: u64,
    /// `rms_norm_eps`.
    pub eps: f64,
    /// The key of the activation, and its name.
    pub activation: (&'static str, &'static str),
    /// Whether the head is the table of embeddings.
    pub tied: bool,
    /// `rope_theta`.
    pub theta: f64,
}

/// LLaMA's.
pub(in super::super) const LLAMA: Class = Class {
    kv_heads: None,
    head: None,
    positions: 2048,
    eps: 1e-6,
    activation: ("hidden_act", "silu"),
    tied: false,
    theta: 10_000.0,
};

/// Reads one config.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Reader<'a> {
    pub config: &'a Json,
    pub class: &'a Class,
}

impl Reader<'_> {
    fn keys(&self) -> Config<'_> {
        Config(self.config)
    }

    fn written(&self, key: &str) -> Option<&Json> {
        self.config.get(key).filter(|v| !v.is_null())
    }

    /// A whole number that may be missing or `null`.
    pub(in super::super) fn size(&self, key: &str) -> Result<Option<u64>, String> {
        self.written(key).map(|_| self.keys().size(key)).transpose()
    }

    /// A number with a default.
    pub(in super::super) fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        self.keys().number_or(key, default)
    }

    /// The rate of a dropout, with a default.
    pub(in super::super) fn rate(&self, key: &str, default: f64) -> Result<f64, String> {
        self.keys().rate_or(key, default)
    }

    /// A number above 0; `null` is none, a missing key is `default`.
    pub(in super::super) fn bound(
        &self,
        key: &str,
        default: Option<f64>,
    ) -> Result<Option<f64>, String> {
        match self.config.get(key) {
            None => Ok(default),
            Some(Json::Null) => Ok(None),
            Some(v) => match v.as_f64().filter(|x| *x > 0.0) {
                Some(x) => Ok(Some(x)),
                None => Err(format!(
                    "config.json has `{key}` = {v}; a number above 0 is wanted"
                )),
            },
        }
    }

    /// Yes or no, with a default.
    pub(in super::super) fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.written(key) {
            None => Ok(default),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(v) => Err(format!(
                "config.json has `{key}` = {v}; true or false is wanted"
            )),
        }
    }

    /// A window in tokens; `null` is none, a missing key is `default`.
    pub(in super::super) fn window(
        &self,
        key: &str,
        default: Option<u32>,
    ) -> Result<Option<u32>, String> {
        match self.config.get(key) {
            None => Ok(default),
            Some(Json::Null) => Ok(None),
            Some(_) => {
                let n = self.keys().size(key)?;
                u32::try_from(n).map(Some).map_err(|_| {
                    format!("config.json has `{key}` = {n}; that is more than any text has")
                })
            }
        }
    }

    /// Whether each block looks through a window, as `layer_types` says, or by `usual`.
    pub(in super::super) fn slides(
        &self,
        layers: u64,
        usual: impl Fn(u64) -> bool,
    ) -> Result<Vec<bool>, String> {
        let Some(written) = self.written("layer_types") else {
            return Ok((0..layers).map(usual).collect());
        };
        let list = written
            .as_array()
            .filter(|list| list.len() as u64 == layers);
        let list = list.ok_or_else(|| {
            format!(
                "config.json has {layers} blocks, and `layer_types` is no list of as many names"
            )
        })?;
        list.iter()
            .map(|kind| match kind.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(format!(
                    "config.json has the layer type {kind}, which is not built; built are full_attention and \
                     sliding_attention"
                )),
            })
            .collect()
    }

    /// The rotary parameters, of one type of layers where there are several.
    pub(in super::super) fn rotary(
        &self,
        layers: Option<&str>,
    ) -> Result<Map<String, Json>, String> {
        rope::parameters(self.config, layers)
    }

    /// The rotary positions that these parameters give.
    pub(in super::super) fn rope(
        &self,
        parameters: &Map<String, Json>,
        shape: &Shape,
        theta: f64,
    ) -> Result<Rope, String> {
        let base = Base {
            head: shape.head,
            theta,
            partial: 1.0,
            positions: shape.positions,
        };
        rope::rope(parameters, base)
    }

    /// The number of blocks.
    pub(in super::super) fn layers(&self) -> Result<u64, String> {
        self.keys().size("num_hidden_layers")
    }

    /// A LLaMA with the config's sizes, which a family changes where it differs.
    pub(in super::super) fn shape(&self) -> Result<Shape, String> {
        let (keys, class) = (self.keys(), self.class);
        let (hidden, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
        let head = match self.size("head_dim")?.or(class.head) {
            Some(head) => head,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(format!(
                    "config.json: a width of {hidden} cannot be split into {heads} heads"
                ));
            }
        };
        let (key, usual) = class.activation;
        let activation = if self.written(key).is_some() {
            keys.activation(key)?
        } else {
            let own = serde_json::json!({ key: usual });
            Config(&own).activation(key)?
        };
        let mut shape = Shape {
            hidden,
            heads,
            kv_heads: self
                .size("num_key_value_heads")?
                .or(class.kv_heads)
                .unwrap_or(heads),
            head,
            ffn: keys.size("intermediate_size")?,
            vocab: keys.vocabulary()?,
            positions: self
                .size("max_position_embeddings")?
                .unwrap_or(class.positions),
            eps: self.number("rms_norm_eps", class.eps)?,
            activation,
            attention_dropout: keys.rate_or("attention_dropout", 0.0)?,
            dropout: 0.0,
            embedding_dropout: 0.0,
            names: &LLAMA_NAMES,
            tied: self.flag("tie_word_embeddings", class.tied)?,
            norms: Norms::Before,
            plus_one: false,
            layer_norm: false,
            parallel: false,
            gated: true,
            qk_norm: QkNorm::None,
            biases: Biases::default(),
            fused: Fused::Nothing,
            score_scale: usual_scale(head),
            score_cap: None,
            embedding_scale: 1.0,
            scales_rows: false,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_cap: None,
            rereads: false,
            layers: Vec::new(),
        };
        if shape.eps < 0.0 {
            return Err(format!(
                "config.json has `rms_norm_eps` = {}; a number of at least 0 is wanted",
                shape.eps
            ));
        }
        // Before lists are made of them.
        let (layers, width) = (self.layers()?, heads.saturating_mul(head));
        within_bounds(layers, (hidden, width), shape.ffn, shape.vocab)?;
        if head > MOST_COLUMNS {
            return Err(format!(
                "config.json has heads of {head} columns; {MOST_COLUMNS} are the most that are built"
            ));
        }
        let rope = self.rope(&self.rotary(None)?, &shape, class.theta)?;
        shape.layers = alike(layers, None, &rope);
        Ok(shape)
    }

    /// The same with biases as `attention_bias` says.
    pub(in super::super) fn attention_bias(&self, shape: &mut Shape) -> Result<(), String> {
        let bias = self.flag("attention_bias", false)?;
        shape.biases.qkv = bias;
        shape.biases.output = bias;
        Ok(())
    }
}
