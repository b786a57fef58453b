//! T5 (Raffel et al. 2020): T5, T5 v1.1, FLAN-T5 and mT5.

use super::super::generate::Rules;
use super::super::net::{Attend, Beside, Columns, KeyMaps, Net, Part, Role, Site};
use super::super::schema::Schema;
use super::pair::{CROSS, OWN, Reads};
use super::{Architecture, Behind, Facts, LmHead, Model, Seq2Seq, Sides};
use crate::library::counts::to_u32;
use crate::program::op::{ActivationKind, Attention, Heads, Mask};
use crate::program::{Bucketing, Distances, Feed, Real, Value};

mod config;

use config::parse;

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["t5", "mt5"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "t5",
    summary: "T5, T5 v1.1, FLAN-T5 and mT5: encoders with a decoder, from Hugging Face checkpoints",
    doc: "Norms by root mean squares before each sub-layer, no biases, scores without a scale, positions as a bias of the scores by \
          distance that the blocks of a stack share. `feed_forward_proj` says whether the feed-forward network is gated, \
          `tie_word_embeddings` whether the head is the table of embeddings; then states are divided by the root of the width. \
          `model_type` is `t5` or `mt5`. Blocks are counted from the encoder's first to the decoder's last.",
    paper: "Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv 1910.10683)",
    keys: &[],
};

/// The table of embeddings, which both stacks read.
const TABLE: &str = "shared";

#[derive(Clone, Debug)]
struct T5 {
    facts: Facts,
    class: &'static str,
    /// Blocks of the encoder.
    encoder: u64,
    /// Columns of a head.
    head: u64,
    ffn: u64,
    activation: ActivationKind,
    gated: bool,
    buckets: u32,
    furthest: u32,
    tied: bool,
    /// Factor of the states that the head reads.
    scale: f64,
    start: u32,
}

/// One of the two stacks.
#[derive(Clone, Copy)]
struct Stack {
    name: &'static str,
    blocks: u64,
    /// Blocks before its first.
    before: u64,
    distances: Distances,
    mask: Mask,
}

/// A block of a stack.
#[derive(Clone, Copy)]
struct Block {
    stack: Stack,
    number: u64,
}

impl Block {
    fn path(self, rest: &str) -> String {
        format!("{}.block.{}.layer.{rest}", self.stack.name, self.number)
    }

    fn layer(self) -> Option<u64> {
        Some(self.stack.before + self.number)
    }

    fn map(self, rest: &str, role: Role, sizes: (u64, u64)) -> Site {
        let site = Site::linear(self.path(rest), role, sizes);
        site.in_layer(self.layer()).without_bias()
    }
}

impl T5 {
    fn table(&self) -> Site {
        Site::table(
            TABLE,
            Role::WordEmbedding,
            (self.facts.vocab, self.facts.hidden),
        )
    }

    fn stack(&self, decoder: bool) -> Stack {
        let (name, blocks, before, mask) = if decoder {
            let blocks = self.facts.layers - self.encoder;
            ("decoder", blocks, self.encoder, Mask::CAUSAL)
        } else {
            ("encoder", self.encoder, 0, Mask::FULL)
        };
        Stack {
            name,
            blocks,
            before,
            mask,
            distances: Distances {
                buckets: self.buckets,
                furthest: self.furthest,
                by: if decoder {
                    Bucketing::OneSide
                } else {
                    Bucketing::BothSides
                },
                of_source: !decoder,
            },
        }
    }

    fn norm(&self, net: &mut Net<'_>, path: String, of: (Role, Option<u64>), x: Value) -> Value {
        let site = Site::norm(path, of.0, self.facts.hidden).in_layer(of.1);
        net.rms_norm(&site, x, self.facts.eps, false)
    }

    /// The residual with what a sub-layer adds, which read `read`.
    fn residual(
        &self,
        net: &mut Net<'_>,
        (path, of): (String, (Role, Option<u64>)),
        (x, read): (Value, Value),
        added: Value,
    ) -> Value {
        let part = Part::Sublayer {
            width: self.facts.hidden,
        };
        let site = Site::new(path, of.0, part).in_layer(of.1);
        let added = net.dropout(added, self.facts.dropout);
        let added = net.sublayer(site, None, (read, added));
        net.add(x, added)
    }

    /// The residual with what an attention adds.
    fn attention(&self, net: &mut Net<'_>, block: Block, x: Value, reads: Reads) -> Value {
        let (place, module, roles) = match reads {
            Reads::Itself(_) => (0, "SelfAttention", &OWN),
            Reads::Encoded(_) | Reads::Kept => (1, "EncDecAttention", &CROSS),
        };
        let (d, width) = (self.facts.hidden, self.facts.heads * self.head);
        let map =
            |part: &str, role, sizes| block.map(&format!("{place}.{module}.{part}"), role, sizes);
        let norm = block.path(&format!("{place}.layer_norm"));
        let read = self.norm(net, norm, (roles.norm, block.layer()), x);
        let (others, bias, mask) = match reads {
            Reads::Itself(bias) => (read, bias, block.stack.mask),
            Reads::Encoded(encoded) => (encoded, None, Mask::FULL),
            Reads::Kept => (read, None, Mask::FULL),
        };
        let op = Attention {
            mask,
            ..Attention::plain(Heads::each(to_u32(self.facts.heads)), Real::new(1.0))
        };
        let queries = net.linear(map("q", roles.query, (d, width)), read);
        // Methods stand at its maps, and at what it adds.
        let a = if let Reads::Kept = reads {
            net.attend_kept(&op, queries, width)
        } else {
            let (maps, keys, values) = self.keys(net, block, reads, others);
            net.plain_attention(Attend {
                op,
                read: others,
                maps,
                queries,
                keys,
                values,
                beside: bias.map_or(Beside::Nothing, Beside::Bias),
                dropout: self.facts.attention_dropout,
            })
        };
        let a = net.linear(map("o", roles.output, (width, d)), a);
        let path = block.path(&format!("{place}.{module}"));
        self.residual(net, (path, (roles.sublayer, block.layer())), (x, read), a)
    }

    /// The keys and values that a block's attention makes of rows, with their maps.
    fn keys(
        &self,
        net: &mut Net<'_>,
        block: Block,
        reads: Reads,
        rows: Value,
    ) -> (KeyMaps, Value, Value) {
        let (module, roles) = match reads {
            Reads::Itself(_) => ("0.SelfAttention", &OWN),
            Reads::Encoded(_) | Reads::Kept => ("1.EncDecAttention", &CROSS),
        };
        let sizes = (self.facts.hidden, self.facts.heads * self.head);
        let map = |part: &str, role| block.map(&format!("{module}.{part}"), role, sizes);
        let maps = KeyMaps {
            key: Columns::all(map("k", roles.key)),
            value: Columns::all(map("v", roles.value)),
        };
        let keys = net.linear(maps.key.map.clone(), rows);
        let values = net.linear(maps.value.map.clone(), rows);
        (maps, keys, values)
    }

    /// The residual with what the feed-forward network adds, which is so manieth of its block.
    fn ffn(&self, net: &mut Net<'_>, block: Block, place: u64, x: Value) -> Value {
        let (d, f) = (self.facts.hidden, self.ffn);
        let module = format!("{place}.DenseReluDense");
        let map = |part: &str, role, sizes| block.map(&format!("{module}.{part}"), role, sizes);
        let norm = block.path(&format!("{place}.layer_norm"));
        let read = self.norm(net, norm, (Role::FfnNorm, block.layer()), x);
        let y = if self.gated {
            let gate = net.linear(map("wi_0", Role::FfnGate, (d, f)), read);
            let up = net.linear(map("wi_1", Role::FfnUp, (d, f)), read);
            net.gated(self.activation, gate, up)
        } else {
            let up = net.linear(map("wi", Role::FfnUp, (d, f)), read);
            net.activation(self.activation, up)
        };
        let y = net.dropout(y, self.facts.dropout);
        let y = net.linear(map("wo", Role::FfnDown, (f, d)), y);
        let own = (Role::Ffn, block.layer());
        self.residual(net, (block.path(&module), own), (x, read), y)
    }

    /// The tokens of a stream through a stack, but for its last norm.
    fn through(&self, net: &mut Net<'_>, stack: Stack, of_source: Option<Reads>) -> Value {
        let mut x = match of_source {
            Some(_) => self.rows(net, Feed::TokenIds),
            None => self.embed(net),
        };
        let table = "block.0.layer.0.SelfAttention.relative_attention_bias";
        let table = Site::table(
            format!("{}.{table}", stack.name),
            Role::PositionEmbedding,
            (self.buckets.into(), self.facts.heads),
        );
        let bias = net.bias_by_distance(&table, stack.distances);
        for number in 0..stack.blocks {
            net.enter("block", stack.before + number);
            let block = Block { stack, number };
            x = self.attention(net, block, x, Reads::Itself(Some(bias)));
            if let Some(reads) = of_source {
                x = self.attention(net, block, x, reads);
            }
            x = self.ffn(net, block, if of_source.is_some() { 2 } else { 1 }, x);
        }
        net.enter("block", None);
        x
    }

    /// The embeddings of tokens.
    fn rows(&self, net: &mut Net<'_>, tokens: Feed) -> Value {
        let ids = net.b.feed(tokens);
        let x = net.embedding(&self.table(), ids);
        net.dropout(x, self.facts.dropout)
    }

    /// The sources through the encoder.
    fn encoded(&self, net: &mut Net<'_>) -> Value {
        let encoder = self.stack(false);
        let encoded = self.through(net, encoder, None);
        self.last_norm(net, encoder, encoded)
    }

    /// The norm behind a stack.
    fn last_norm(&self, net: &mut Net<'_>, stack: Stack, x: Value) -> Value {
        let path = format!("{}.final_layer_norm", stack.name);
        let x = self.norm(net, path, (Role::FinalNorm, None), x);
        net.dropout(x, self.facts.dropout)
    }
}

impl Model for T5 {
    fn family(&self) -> &'static str {
        "t5"
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    fn override_dropout(&mut self, rate: f64) {
        self.facts.dropout = rate;
        self.facts.attention_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        self.rows(net, Feed::SourceIds)
    }

    fn encode(&self, net: &mut Net<'_>) -> Value {
        let reads = Reads::sources(net, |net| self.encoded(net));
        self.through(net, self.stack(true), Some(reads))
    }

    fn finish(&self, net: &mut Net<'_>, x: Value) -> Value {
        self.last_norm(net, self.stack(true), x)
    }

    fn seq2seq(&self) -> Option<&dyn Seq2Seq> {
        Some(self)
    }

    fn checkpoint_names(&self, name: &str) -> Vec<String> {
        // Files may hold the table once more for each stack, and as the head where that is tied; it is the same.
        let mut names = vec![name.to_owned()];
        if name == "shared.weight" {
            let stacks = ["encoder", "decoder"];
            names.extend(stacks.map(|stack| format!("{stack}.embed_tokens.weight")));
            names.extend(self.tied.then(|| "lm_head.weight".to_owned()));
        }
        names
    }

    fn exported_class(&self) -> String {
        format!("{}ForConditionalGeneration", self.class)
    }

    fn lm_class(&self) -> String {
        self.exported_class()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &[]
    }
}

impl Seq2Seq for T5 {
    fn head(&self, net: &mut Net<'_>) -> LmHead {
        let sizes = (self.facts.hidden, self.facts.vocab);
        let own = Site::linear("lm_head", Role::LmDecoder, sizes).without_bias();
        let tied = self.tied.then(|| self.table());
        LmHead {
            table: net.head_table(&own, tied.as_ref()),
            scale: self.scale,
            cap: None,
            bias: None,
        }
    }

    fn keep_sources(&self, net: &mut Net<'_>) {
        let encoded = self.encoded(net);
        let stack = self.stack(true);
        for number in 0..stack.blocks {
            net.enter("block", stack.before + number);
            let block = Block { stack, number };
            let (_, keys, values) = self.keys(net, block, Reads::Kept, encoded);
            net.keep((keys, values));
        }
        net.enter("block", None);
    }

    fn sides(&self) -> Sides {
        Sides {
            behind: Behind::Token(self.start),
            rows: [self.facts.vocab; 2],
            longest: self.facts.max_length,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            start: self.start,
            ..Rules::default()
        }
    }
}
