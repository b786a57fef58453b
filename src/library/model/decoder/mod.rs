//! Decoders: one block described by data. A family is one file that reads its `config.json` into a [`Shape`].

mod config;
mod rope;

use serde_json::Value as Json;

use super::super::net::{Net, Part, Role, Site};
use super::{CausalLm, Facts, LmHead, Model, Positions};
use crate::program::op::{ActivationKind, Attention, Heads, Mask};
use crate::program::{Feed, Pick, Real, Value};

pub(super) use config::{Class, LLAMA, Reader};
pub use rope::Rope;

/// Where a block's norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before each sub-layer.
    Before,
    /// Behind each sub-layer, before what it gives is added.
    Behind,
    /// Both.
    Both,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Over the columns of each head, with one weight for all heads.
    Head,
    /// Over all heads together.
    Width,
}

/// Which linear maps have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Those of queries, keys and values.
    pub qkv: bool,
    /// The one behind the attention.
    pub output: bool,
    /// Those of the feed-forward network.
    pub ffn: bool,
}

/// What tells one block of a model from another.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// How many tokens a token sees, itself among them; `None` is all before it.
    pub window: Option<u32>,
    /// Its rotary positions; `None` where it has none.
    pub rope: Option<Rope>,
}

/// A decoder as data.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Width of the residual.
    pub hidden: u64,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values.
    pub kv_heads: u64,
    /// Columns of a head.
    pub head: u64,
    /// Width inside of the feed-forward network.
    pub ffn: u64,
    /// Rows of the table of embeddings.
    pub vocab: u64,
    /// Tokens of the longest text.
    pub positions: u64,
    /// Added to the mean square in norms.
    pub eps: f64,
    /// Of the gate.
    pub activation: ActivationKind,
    /// Dropout of the scores.
    pub attention_dropout: f64,
    /// Whether the head is the table of embeddings.
    pub tied: bool,
    /// Where norms stand.
    pub norms: Norms,
    /// Whether norms multiply by one more than their weight.
    pub plus_one: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Which maps have biases.
    pub biases: Biases,
    /// Whether query, key and value are one map, and gate and up another.
    pub fused: bool,
    /// Factor of the scores.
    pub score_scale: f64,
    /// Bound of the scores.
    pub score_cap: Option<f64>,
    /// Factor of the embeddings.
    pub embedding_scale: f64,
    /// Factor of what a sub-layer adds to the residual.
    pub residual_scale: f64,
    /// Factor of the logits.
    pub logit_scale: f64,
    /// Bound of the logits.
    pub logit_cap: Option<f64>,
    /// What tells blocks apart.
    pub layers: Vec<Layer>,
}

/// A family's model.
#[derive(Debug)]
pub(super) struct Decoder {
    family: &'static str,
    /// Name of its classes in `transformers`, without `ForCausalLM`.
    class: &'static str,
    shape: Shape,
    facts: Facts,
}

/// A model of a family.
///
/// # Errors
/// Sizes that do not fit each other.
pub(super) fn model(
    family: &'static str,
    class: &'static str,
    shape: Shape,
) -> Result<Box<dyn Model>, String> {
    let shape = shape.checked()?;
    let facts = Facts {
        layers: shape.layers.len() as u64,
        hidden: shape.hidden,
        heads: shape.heads,
        vocab: shape.vocab,
        max_length: shape.positions,
        positions: Positions::default(),
        segments: 0,
        dropout: 0.0,
        attention_dropout: shape.attention_dropout,
        eps: shape.eps,
        narrow: false,
    };
    Ok(Box::new(Decoder {
        family,
        class,
        shape,
        facts,
    }))
}

impl Shape {
    /// Checks what the sizes must satisfy together.
    fn checked(self) -> Result<Self, String> {
        let layers = self.layers.len() as u64;
        super::encoder::within_bounds(
            layers,
            (self.hidden, self.heads * self.head),
            self.ffn * 3 / 2,
            self.vocab,
        )?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!(
                "config.json: {} heads of queries cannot share {} heads of keys evenly",
                self.heads, self.kv_heads
            ));
        }
        Ok(self)
    }

    const fn width(&self) -> u64 {
        self.heads * self.head
    }

    const fn kv_width(&self) -> u64 {
        self.kv_heads * self.head
    }
}

/// One block being built.
struct Block<'a> {
    shape: &'a Shape,
    own: &'a Layer,
    layer: u64,
    prefix: String,
}

impl Block<'_> {
    fn linear(&self, name: &str, role: Role, sizes: (u64, u64), bias: bool) -> Site {
        let path = format!("{}.{name}", self.prefix);
        let site = Site::linear(path, role, sizes).in_layer(Some(self.layer));
        if bias { site } else { site.without_bias() }
    }

    fn norm(&self, net: &mut Net<'_>, name: &str, role: Role, x: Value) -> Value {
        let path = format!("{}.{name}", self.prefix);
        let site = Site::norm(path, role, self.shape.hidden).in_layer(Some(self.layer));
        net.rms_norm(&site, x, self.shape.eps, self.shape.plus_one)
    }

    /// A norm of queries or keys.
    fn qk_norm(
        &self,
        net: &mut Net<'_>,
        name: &str,
        role: Role,
        (x, width): (Value, u64),
    ) -> Value {
        let width = match self.shape.qk_norm {
            QkNorm::None => return x,
            QkNorm::Head => self.shape.head,
            QkNorm::Width => width,
        };
        let path = format!("{}.self_attn.{name}", self.prefix);
        let site = Site::norm(path, role, width).in_layer(Some(self.layer));
        net.rms_norm(&site, x, self.shape.eps, self.shape.plus_one)
    }

    /// `[T, hidden]` to queries, keys and values.
    fn projections(&self, net: &mut Net<'_>, x: Value) -> [Value; 3] {
        let s = self.shape;
        let (d, w, kw, bias) = (s.hidden, s.width(), s.kv_width(), s.biases.qkv);
        if s.fused {
            let map = self.linear("self_attn.qkv_proj", Role::Qkv, (d, w + 2 * kw), bias);
            let all = net.linear(map, x);
            return [(0, w), (w, w + kw), (w + kw, w + 2 * kw)]
                .map(|(from, to)| net.columns(all, from, to));
        }
        [
            ("q_proj", Role::Query, w),
            ("k_proj", Role::Key, kw),
            ("v_proj", Role::Value, kw),
        ]
        .map(|(name, role, width)| {
            let map = self.linear(&format!("self_attn.{name}"), role, (d, width), bias);
            net.linear(map, x)
        })
    }

    /// What the attention adds to the residual, of the rows that are read.
    fn attention(&self, net: &mut Net<'_>, x: Value, last: bool) -> Value {
        let s = self.shape;
        let [q, k, v] = self.projections(net, x);
        let q = self.qk_norm(net, "q_norm", Role::QueryNorm, (q, s.width()));
        let k = self.qk_norm(net, "k_norm", Role::KeyNorm, (k, s.kv_width()));
        let (q, k) = match &self.own.rope {
            Some(rope) => (
                net.rotary(q, s.head, &rope.inverse, rope.factor),
                net.rotary(k, s.head, &rope.inverse, rope.factor),
            ),
            None => (q, k),
        };
        let op = Attention {
            mask: self.own.window.map_or(Mask::CAUSAL, Mask::window),
            softcap: s.score_cap.map(Real::new),
            ..Attention::plain(
                Heads {
                    queries: s.heads as u32,
                    keys: s.kv_heads as u32,
                },
                Real::new(s.score_scale),
            )
        };
        let a = net.attend(op, (q, k, v), s.attention_dropout);
        let a = if last { net.picked(a) } else { a };
        let output = self.linear(
            "self_attn.o_proj",
            Role::AttentionOutput,
            (s.width(), s.hidden),
            s.biases.output,
        );
        net.linear(output, a)
    }

    /// What the feed-forward network adds to the residual.
    fn ffn(&self, net: &mut Net<'_>, x: Value) -> Value {
        let s = self.shape;
        let (d, f, bias) = (s.hidden, s.ffn, s.biases.ffn);
        let (gate, up) = if s.fused {
            let map = self.linear("mlp.gate_up_proj", Role::FfnGateUp, (d, 2 * f), bias);
            let both = net.linear(map, x);
            (net.columns(both, 0, f), net.columns(both, f, 2 * f))
        } else {
            let gate = self.linear("mlp.gate_proj", Role::FfnGate, (d, f), bias);
            let up = self.linear("mlp.up_proj", Role::FfnUp, (d, f), bias);
            (net.linear(gate, x), net.linear(up, x))
        };
        let y = net.gated(s.activation, gate, up);
        net.linear(self.linear("mlp.down_proj", Role::FfnDown, (f, d), bias), y)
    }

    /// The residual with what a sub-layer adds, which read `read`.
    fn residual(
        &self,
        net: &mut Net<'_>,
        role: Role,
        (x, read): (Value, Value),
        added: Value,
    ) -> Value {
        let path = match role {
            Role::Attention => "self_attn",
            _ => "mlp",
        };
        let part = Part::Sublayer {
            width: self.shape.hidden,
        };
        let site = Site::new(format!("{}.{path}", self.prefix), role, part);
        let added = net.sublayer(site.in_layer(Some(self.layer)), read, added);
        let added = net.scaled(added, self.shape.residual_scale);
        net.add(x, added)
    }

    /// The block; of the `last` one only the rows that are read.
    fn build(&self, net: &mut Net<'_>, x: Value, last: bool) -> Value {
        use Role::{AttentionNorm, AttentionPostNorm, FfnNorm, FfnPostNorm};
        let norms = self.shape.norms;
        let (before, behind) = (norms != Norms::Behind, norms != Norms::Before);
        let h = if before {
            self.norm(net, "input_layernorm", AttentionNorm, x)
        } else {
            x
        };
        let a = self.attention(net, h, last);
        let (x, h) = if last {
            (net.picked(x), net.picked(h))
        } else {
            (x, h)
        };
        let a = match norms {
            Norms::Before => a,
            Norms::Behind => self.norm(net, "post_attention_layernorm", AttentionNorm, a),
            Norms::Both => self.norm(net, "post_attention_layernorm", AttentionPostNorm, a),
        };
        let x = self.residual(net, Role::Attention, (x, h), a);
        let h = match norms {
            Norms::Before => self.norm(net, "post_attention_layernorm", FfnNorm, x),
            Norms::Behind => x,
            Norms::Both => self.norm(net, "pre_feedforward_layernorm", FfnNorm, x),
        };
        let y = self.ffn(net, h);
        let role = if before { FfnPostNorm } else { FfnNorm };
        let y = if behind {
            self.norm(net, "post_feedforward_layernorm", role, y)
        } else {
            y
        };
        self.residual(net, Role::Ffn, (x, h), y)
    }
}

impl Decoder {
    fn table(&self) -> Site {
        let sizes = (self.shape.vocab, self.shape.hidden);
        Site::table("model.embed_tokens", Role::WordEmbedding, sizes)
    }
}

impl Model for Decoder {
    fn family(&self) -> &'static str {
        self.family
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.shape.attention_dropout = rate;
        self.facts.attention_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        let ids = net.b.feed(Feed::TokenIds);
        let x = net.embedding(&self.table(), ids);
        net.scaled(x, self.shape.embedding_scale)
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        let Some(own) = self.shape.layers.get(layer as usize) else {
            return x;
        };
        let block = Block {
            shape: &self.shape,
            own,
            layer,
            prefix: format!("model.layers.{layer}"),
        };
        block.build(net, x, layer + 1 == self.facts.layers)
    }

    fn finish(&self, net: &mut Net<'_>, x: Value) -> Value {
        let site = Site::norm("model.norm", Role::FinalNorm, self.shape.hidden);
        net.rms_norm(&site, x, self.shape.eps, self.shape.plus_one)
    }

    fn sequence_pick(&self) -> Pick {
        Pick::Last
    }

    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        let head = Site::linear("score", Role::HeadOutput, (self.shape.hidden, classes));
        net.linear(head.without_bias(), hidden)
    }

    fn causal_lm(&self) -> Option<&dyn CausalLm> {
        Some(self)
    }

    fn decoder(&self) -> Option<&Shape> {
        Some(&self.shape)
    }

    fn checkpoint_names(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_owned()];
        // Files of the bare model have no prefix.
        names.extend(name.strip_prefix("model.").map(str::to_owned));
        names
    }

    fn exported_class(&self) -> String {
        format!("{}ForSequenceClassification", self.class)
    }

    fn lm_class(&self) -> String {
        format!("{}ForCausalLM", self.class)
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["score"]
    }
}

impl CausalLm for Decoder {
    fn head(&self, net: &mut Net<'_>) -> LmHead {
        let sizes = (self.shape.vocab, self.shape.hidden);
        let table = if self.shape.tied {
            self.table()
        } else {
            Site::table("lm_head", Role::LmDecoder, sizes)
        };
        LmHead {
            table: net.head_table(&table),
            scale: self.shape.logit_scale,
            cap: self.shape.logit_cap,
        }
    }
}

/// Factor of a product of two columns of a head.
pub(super) fn usual_scale(head: u64) -> f64 {
    1.0 / (head as f64).sqrt()
}

/// Blocks that are all alike.
pub(super) fn alike(layers: u64, window: Option<u32>, rope: &Rope) -> Vec<Layer> {
    (0..layers)
        .map(|_| Layer {
            window,
            rope: Some(rope.clone()),
        })
        .collect()
}

/// The config of a family, with what its class has where a key is missing.
pub(super) fn reader<'a>(config: &'a Json, class: &'a Class) -> Reader<'a> {
    Reader { config, class }
}
