//! Decoders: one block described by data. A family is one file that reads its `config.json` into a [`Shape`].

mod block;
mod config;
mod names;

use serde_json::Value as Json;

use super::super::net::{Net, Role, Site};
use super::rope::{Rope, borders};
use super::{CausalLm, Facts, LmHead, LongTexts, Mirror, Model, Narrow, Narrowing, Positions};
use crate::program::op::ActivationKind;
use crate::program::{Feed, Pick, Value};

use block::Block;
pub(super) use config::{Class, LLAMA, Reader};
pub(super) use names::LLAMA_NAMES;
pub use names::Names;

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

/// Which linear maps are stored as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fused {
    /// None.
    Nothing,
    /// Query, key and value, one behind the other, and gate and up, if there is a gate.
    Whole,
    /// Query, key and value of each head.
    Heads,
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
    /// Factor of its scores beside that of all blocks.
    pub score_scale: f64,
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
    /// Rate of the dropout on what a sub-layer adds to the residual.
    pub dropout: f64,
    /// Rate of the dropout on the embeddings.
    pub embedding_dropout: f64,
    /// Its module names.
    pub names: &'static Names,
    /// Whether the head is the table of embeddings.
    pub tied: bool,
    /// Where norms stand.
    pub norms: Norms,
    /// Whether norms multiply by one more than their weight.
    pub plus_one: bool,
    /// Whether norms take the mean away and have a bias.
    pub layer_norm: bool,
    /// Whether both sub-layers of a block read the same state.
    pub parallel: bool,
    /// Whether the feed-forward network has a gate.
    pub gated: bool,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Which maps have biases.
    pub biases: Biases,
    /// Which maps are stored as one.
    pub fused: Fused,
    /// Factor of the scores.
    pub score_scale: f64,
    /// Bound of the scores.
    pub score_cap: Option<f64>,
    /// Factor of the embeddings.
    pub embedding_scale: f64,
    /// Whether that factor belongs to the table, so that what else stands for tokens is without it.
    pub scales_rows: bool,
    /// Factor of what a sub-layer adds to the residual.
    pub residual_scale: f64,
    /// Factor of the logits.
    pub logit_scale: f64,
    /// Bound of the logits.
    pub logit_cap: Option<f64>,
    /// Whether a text that becomes long while it is generated is read again from its beginning.
    pub rereads: bool,
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
        blocks: shape.layers.len() as u64,
        hidden: shape.hidden,
        embedding: shape.hidden,
        heads: shape.heads,
        vocab: shape.vocab,
        max_length: shape.positions,
        positions: Positions::default(),
        long: shape.long(),
        segments: 0,
        dropout: shape.dropout,
        attention_dropout: shape.attention_dropout,
        eps: shape.eps,
        causal: true,
        narrow: shape.narrowing(),
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

    /// Where texts begin to be long ones for its rotary positions.
    fn long(&self) -> LongTexts {
        let ropes = self.layers.iter().filter_map(|own| own.rope.as_ref());
        LongTexts {
            borders: borders(ropes),
            rereads: self.rereads,
        }
    }

    /// How much narrower its blocks can be.
    fn narrowing(&self) -> Narrowing {
        let rotary = self.layers.iter().any(|own| own.rope.is_some());
        Narrowing {
            // Rotary positions turn pairs of columns.
            unit: if rotary { self.head / 2 } else { self.head },
            prunes: self.fused == Fused::Nothing,
        }
    }

    /// That of a block so many times narrower, with as many heads.
    fn narrower(&self, times: u64) -> Self {
        Self {
            hidden: self.hidden / times,
            head: self.head / times,
            ffn: (self.ffn / times).max(1),
            score_scale: self.score_scale * (times as f64).sqrt(),
            layers: Vec::new(),
            ..self.clone()
        }
    }

    /// A norm of rows: `[N, width]`.
    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        if self.layer_norm {
            net.layer_norm(site, x, self.eps)
        } else {
            net.rms_norm(site, x, self.eps, self.plus_one)
        }
    }
}

impl Decoder {
    fn table(&self) -> Site {
        let sizes = (self.shape.vocab, self.shape.hidden);
        Site::table(self.shape.names.table, Role::WordEmbedding, sizes)
    }

    /// The module path of a block.
    fn path(&self, layer: u64) -> String {
        format!("{}.{layer}", self.shape.names.layers)
    }
}

impl Model for Decoder {
    fn family(&self) -> &'static str {
        self.family
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.shape.attention_dropout = rate;
        self.facts.attention_dropout = rate;
        self.shape.dropout = rate;
        self.shape.embedding_dropout = rate;
        self.facts.dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        let ids = net.b.feed(Feed::TokenIds);
        let scale = self.shape.embedding_scale;
        let (of_rows, of_all) = if self.shape.scales_rows {
            (scale, 1.0)
        } else {
            (1.0, scale)
        };
        let mut x = net.embedding_scaled(&self.table(), ids, of_rows);
        if let Some(path) = self.shape.names.positions {
            let sizes = (self.shape.positions, self.shape.hidden);
            let table = Site::table(path, Role::PositionEmbedding, sizes);
            let positions = net.b.feed(Feed::Positions);
            let places = net.embedding(&table, positions);
            x = net.add(x, places);
        }
        let x = net.scaled(x, of_all);
        if self.shape.embedding_dropout > 0.0 {
            net.dropout(x, self.shape.embedding_dropout)
        } else {
            x
        }
    }

    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        let Some(own) = self.shape.layers.get(layer as usize) else {
            return x;
        };
        let block = Block {
            shape: &self.shape,
            own,
            layer: Some(layer),
            prefix: self.path(layer),
        };
        block.build(net, x, layer + 1 == self.facts.layers)
    }

    fn finish(&self, net: &mut Net<'_>, x: Value) -> Value {
        let site = Site::norm(
            self.shape.names.final_norm,
            Role::FinalNorm,
            self.shape.hidden,
        );
        self.shape.norm(net, &site, x)
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

    fn narrow(&self) -> Option<&dyn Narrow> {
        Some(self)
    }

    fn checkpoint_names(&self, name: &str) -> Vec<String> {
        let mut names = vec![name.to_owned()];
        // Files of the bare model have no prefix.
        let bare = name.strip_prefix(self.shape.names.root);
        names.extend(bare.map(str::to_owned));
        // A head has the usual name in some versions of transformers, whatever it is called in files.
        let head = name.strip_prefix(self.shape.names.head);
        let usual = |rest| format!("{}{rest}", LLAMA_NAMES.head);
        names.extend(head.map(usual).filter(|usual| usual != name));
        names
    }

    fn transposed(&self, name: &str) -> bool {
        let names = self.shape.names;
        let inside = name
            .strip_prefix(names.layers)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(_, rest)| rest.strip_suffix(".weight"));
        let maps = [names.qkv, names.output, names.up, names.down];
        names.transposed && inside.is_some_and(|path| maps.contains(&path))
    }

    fn exported_class(&self) -> String {
        format!("{}ForSequenceClassification", self.class)
    }

    fn lm_class(&self) -> String {
        match self.class {
            "GPT2" => "GPT2LMHeadModel".to_owned(),
            class => format!("{class}ForCausalLM"),
        }
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &["score"]
    }
}

impl CausalLm for Decoder {
    fn head(&self, net: &mut Net<'_>) -> LmHead {
        let sizes = (self.shape.vocab, self.shape.hidden);
        let own = Site::linear(self.shape.names.head, Role::LmDecoder, (sizes.1, sizes.0));
        let tied = self.shape.tied.then(|| self.table());
        LmHead {
            table: net.head_table(&own.without_bias(), tied.as_ref()),
            scale: self.shape.logit_scale,
            bias: None,
            cap: self.shape.logit_cap,
        }
    }
}

impl Narrow for Decoder {
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value {
        let Some(own) = self.shape.layers.get(mirror.layer as usize) else {
            return x;
        };
        let shape = self.shape.narrower(mirror.reduction);
        let own = Layer {
            rope: own
                .rope
                .as_ref()
                .map(|rope| rope.narrower(mirror.reduction)),
            ..own.clone()
        };
        let copy = Block {
            shape: &shape,
            own: &own,
            layer: None,
            prefix: path.to_owned(),
        };
        if let Some(pruner) = net.pruner() {
            let table = (self.shape.vocab, self.shape.hidden);
            pruner.enter(self.shape.names.table, table, shape.hidden);
            copy.follow(pruner, &self.shape, &self.path(mirror.layer));
        }
        copy.build(net, x, mirror.last)
    }

    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value {
        self.shape.norm(net, site, x)
    }

    fn ends_in_norm(&self) -> bool {
        false
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
            score_scale: 1.0,
        })
        .collect()
}

/// The config of a family, with what its class has where a key is missing.
pub(super) fn reader<'a>(config: &'a Json, class: &'a Class) -> Reader<'a> {
    Reader { config, class }
}
