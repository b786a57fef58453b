//! BART (Lewis et al. 2020) and its kin: mBART, Marian, Pegasus, PLBart, Blenderbot-small and M2M100.

use super::super::generate::Rules;
use super::super::net::{
    Attend, Beside, Columns, Init, KeyMaps, Net, Normed, Param, ParamKind, Part, Role, Site, Waves,
};
use super::super::schema::Schema;
use super::pair::{CROSS, OWN, Reads};
use super::{Architecture, Behind, Facts, LmHead, Model, Seq2Seq, Sides};
use crate::library::counts::to_u32;
use crate::program::op::{ActivationKind, Attention, Heads, Mask};
use crate::program::{DType, Feed, Format, Real, Value};

mod config;
mod kinds;

use config::parse;
use kinds::{Kind, Norms, Places};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &[
        "bart",
        "mbart",
        "marian",
        "pegasus",
        "plbart",
        "blenderbot-small",
        "m2m_100",
    ],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "bart",
    summary: "BART, mBART, Marian, Pegasus, PLBart, Blenderbot-small and M2M100: encoders with a decoder, from Hugging Face checkpoints",
    doc: "Layer norms behind each sub-layer (BART, Marian, PLBart, Blenderbot-small) or before it, with one behind each stack (mBART, Pegasus, \
          M2M100); positions that are learned or sines and cosines; one table of embeddings for both stacks and the head, \
          or several (`tie_word_embeddings`, `share_encoder_decoder_embeddings`); `scale_embedding`; a constant that is added to the \
          logits. `model_type` says which it is. Blocks are counted from the encoder's first to the decoder's last.",
    paper: "Lewis et al. 2020, BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and \
            Comprehension (arXiv 1910.13461); Liu et al. 2020 (arXiv 2001.08210); Junczys-Dowmunt et al. 2018 (arXiv 1804.00344)",
    keys: &[],
};

/// The table that both stacks and the head read, if they share one.
const SHARED: &str = "model.shared";
const HEAD: &str = "lm_head";
/// What is added to the logits.
const BIAS: &str = "final_logits_bias";

#[derive(Clone, Debug)]
struct Bart {
    facts: Facts,
    kind: &'static Kind,
    encoder: Sizes,
    decoder: Sizes,
    activation: ActivationKind,
    /// Rate of the dropout behind the activation.
    inner_dropout: f64,
    /// Factor of the rows of the tables of embeddings.
    scale: f64,
    /// Rows of the tables of sources and of targets.
    rows: [u64; 2],
    /// Rows of the tables of positions.
    places: u64,
    /// Whether both stacks read one table.
    shared: bool,
    /// Whether the head is the table of targets.
    tied: bool,
    /// The token of whose rows lookups learn nothing.
    padding: Option<u32>,
    behind: Behind,
    rules: Rules,
}

/// Sizes of a stack.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    blocks: u64,
    heads: u64,
    ffn: u64,
}

/// One of the two stacks.
#[derive(Clone, Copy)]
struct Stack {
    decodes: bool,
    sizes: Sizes,
    /// Blocks before its first.
    before: u64,
    mask: Mask,
}

impl Stack {
    fn path(self, rest: &str) -> String {
        let name = if self.decodes { "decoder" } else { "encoder" };
        format!("model.{name}.{rest}")
    }
}

/// A block of a stack.
#[derive(Clone, Copy)]
struct Block {
    stack: Stack,
    number: u64,
}

impl Block {
    fn path(self, rest: &str) -> String {
        self.stack.path(&format!("layers.{}.{rest}", self.number))
    }

    fn layer(self) -> Option<u64> {
        Some(self.stack.before + self.number)
    }

    fn map(self, rest: &str, role: Role, sizes: (u64, u64)) -> Site {
        Site::linear(self.path(rest), role, sizes).in_layer(self.layer())
    }

    fn norm(self, rest: &str, role: Role, width: u64) -> Site {
        Site::norm(self.path(rest), role, width).in_layer(self.layer())
    }
}

impl Bart {
    /// The table of a stack's tokens.
    fn table(&self, decodes: bool) -> Site {
        let sizes = (self.rows[usize::from(decodes)], self.facts.hidden);
        let path = match (self.shared, decodes) {
            (true, _) => SHARED,
            (false, true) => "model.decoder.embed_tokens",
            (false, false) => "model.encoder.embed_tokens",
        };
        Site::table(path, Role::WordEmbedding, sizes)
    }

    fn stack(&self, decodes: bool) -> Stack {
        let (sizes, before, mask) = match decodes {
            true => (self.decoder, self.encoder.blocks, Mask::CAUSAL),
            false => (self.encoder, 0, Mask::FULL),
        };
        Stack {
            decodes,
            sizes,
            before,
            mask,
        }
    }

    /// The rows that stand for the places of a stack's tokens.
    fn places(&self, net: &mut Net<'_>, stack: Stack) -> Value {
        let feed = match stack.decodes {
            true => Feed::Positions,
            false => Feed::SourcePositions,
        };
        let (at, d) = (net.b.feed(feed), self.facts.hidden);
        let (path, role) = (stack.path("embed_positions"), Role::PositionEmbedding);
        let waves = |name: &str, waves| {
            let param = Param::own(name, &[self.places, d], ParamKind::Embedding, role);
            param.start(Init::Waves(waves))
        };
        let table = match self.kind.places {
            Places::Learned { .. } => {
                return net.embedding(&Site::table(path, role, (self.places, d)), at);
            }
            Places::Waves => net.buffer(waves(&format!("{path}.weight"), Waves::Halves)),
            // No file holds them.
            Places::BehindPadding => {
                let own = Waves::Geometric {
                    zero: self.padding.map(u64::from),
                };
                net.buffer(waves("model.embed_positions.weights", own).unsaved())
            }
        };
        net.gather(table, at)
    }

    /// The tokens of a stream as they enter a stack.
    fn embedded(&self, net: &mut Net<'_>, stack: Stack) -> Value {
        let feed = match stack.decodes {
            true => Feed::TokenIds,
            false => Feed::SourceIds,
        };
        let ids = net.b.feed(feed);
        let table = self.table(stack.decodes);
        let (before, behind) = match self.kind.embedding_norms {
            Norms::None => (false, false),
            Norms::OfSums => (false, true),
            Norms::OfTargetsAlone => (stack.decodes, !stack.decodes),
        };
        // What a norm follows at once has no factor.
        let scale = if before { 1.0 } else { self.scale };
        let mut x = net.embedding_padded(&table, ids, (scale, self.padding));
        let path = stack.path("layernorm_embedding");
        let norm = Site::norm(path, Role::EmbeddingNorm, self.facts.hidden);
        if before {
            x = net.layer_norm(&norm, x, self.facts.eps);
        }
        let places = self.places(net, stack);
        x = net.add(x, places);
        if behind {
            x = net.layer_norm(&norm, x, self.facts.eps);
        }
        net.dropout(x, self.facts.dropout)
    }

    /// What a sub-layer reads: the residual, or its norm.
    fn read(&self, net: &mut Net<'_>, norm: &Site, x: Value) -> Value {
        match self.kind.pre_norm {
            true => net.layer_norm(norm, x, self.facts.eps),
            false => x,
        }
    }

    /// The residual with what a sub-layer adds, which read `read`, and the norm behind it, if one stands there.
    fn residual(
        &self,
        net: &mut Net<'_>,
        (site, norm): (Site, &Site),
        (x, read): (Value, Value),
        added: Value,
    ) -> Value {
        let eps = self.facts.eps;
        let behind = (!self.kind.pre_norm).then_some(Normed { site: norm, eps });
        let added = net.dropout(added, self.facts.dropout);
        let added = net.sublayer(site, behind, (read, added));
        let sum = net.add(x, added);
        match behind {
            Some(_) => net.layer_norm(norm, sum, eps),
            None => sum,
        }
    }

    /// What a sub-layer adds to the residual of a block.
    fn sublayer(&self, block: Block, module: &str, role: Role) -> Site {
        let part = Part::Sublayer {
            width: self.facts.hidden,
        };
        Site::new(block.path(module), role, part).in_layer(block.layer())
    }

    /// The residual with what an attention adds.
    fn attention(&self, net: &mut Net<'_>, block: Block, x: Value, reads: Reads) -> Value {
        let (module, roles) = match reads {
            Reads::Itself(_) => ("self_attn", &OWN),
            Reads::Encoded(_) | Reads::Kept => ("encoder_attn", &CROSS),
        };
        let (d, heads) = (self.facts.hidden, block.stack.sizes.heads);
        let map = |part: &str, role| block.map(&format!("{module}.{part}"), role, (d, d));
        let norm = block.norm(&format!("{module}_layer_norm"), roles.norm, d);
        let read = self.read(net, &norm, x);
        let (others, mask) = match reads {
            Reads::Itself(_) => (read, block.stack.mask),
            Reads::Encoded(encoded) => (encoded, Mask::FULL),
            Reads::Kept => (read, Mask::FULL),
        };
        let scale = 1.0 / ((d / heads) as f64).sqrt();
        let op = Attention {
            mask,
            ..Attention::plain(Heads::each(to_u32(heads)), Real::new(scale))
        };
        let queries = net.linear(map("q_proj", roles.query), read);
        // Methods stand at its maps, and at what it adds.
        let a = if let Reads::Kept = reads {
            net.attend_kept(&op, queries, d)
        } else {
            let (maps, keys, values) = self.keys(net, block, reads, others);
            net.plain_attention(Attend {
                op,
                read: others,
                maps,
                queries,
                keys,
                values,
                beside: Beside::Nothing,
                dropout: self.facts.attention_dropout,
            })
        };
        let a = net.linear(map("out_proj", roles.output), a);
        let site = self.sublayer(block, module, roles.sublayer);
        self.residual(net, (site, &norm), (x, read), a)
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
            Reads::Itself(_) => ("self_attn", &OWN),
            Reads::Encoded(_) | Reads::Kept => ("encoder_attn", &CROSS),
        };
        let sizes = (self.facts.hidden, self.facts.hidden);
        let map = |part: &str, role| block.map(&format!("{module}.{part}"), role, sizes);
        let maps = KeyMaps {
            key: Columns::all(map("k_proj", roles.key)),
            value: Columns::all(map("v_proj", roles.value)),
        };
        let keys = net.linear(maps.key.map.clone(), rows);
        let values = net.linear(maps.value.map.clone(), rows);
        (maps, keys, values)
    }

    /// The residual with what the feed-forward network adds.
    fn ffn(&self, net: &mut Net<'_>, block: Block, x: Value) -> Value {
        let (d, f) = (self.facts.hidden, block.stack.sizes.ffn);
        let norm = block.norm("final_layer_norm", Role::FfnNorm, d);
        let read = self.read(net, &norm, x);
        let y = net.linear(block.map("fc1", Role::FfnUp, (d, f)), read);
        let y = net.activation(self.activation, y);
        let y = net.dropout(y, self.inner_dropout);
        let y = net.linear(block.map("fc2", Role::FfnDown, (f, d)), y);
        let site = self.sublayer(block, "ffn", Role::Ffn);
        self.residual(net, (site, &norm), (x, read), y)
    }

    /// The tokens of a stream through a stack, but for its last norm.
    fn through(&self, net: &mut Net<'_>, stack: Stack, of_source: Option<Reads>) -> Value {
        let mut x = self.embedded(net, stack);
        for number in 0..stack.sizes.blocks {
            net.enter("block", stack.before + number);
            let block = Block { stack, number };
            x = self.attention(net, block, x, Reads::Itself(None));
            if let Some(reads) = of_source {
                x = self.attention(net, block, x, reads);
            }
            x = self.ffn(net, block, x);
        }
        net.enter("block", None);
        x
    }

    /// The sources through the encoder.
    fn encoded(&self, net: &mut Net<'_>) -> Value {
        let encoder = self.stack(false);
        let encoded = self.through(net, encoder, None);
        self.last_norm(net, encoder, encoded)
    }

    /// The norm behind a stack, if one stands there.
    fn last_norm(&self, net: &mut Net<'_>, stack: Stack, x: Value) -> Value {
        if !self.kind.pre_norm {
            return x;
        }
        let norm = Site::norm(stack.path("layer_norm"), Role::FinalNorm, self.facts.hidden);
        net.layer_norm(&norm, x, self.facts.eps)
    }
}

impl Model for Bart {
    fn family(&self) -> &'static str {
        "bart"
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
        self.inner_dropout = rate;
    }

    fn embed(&self, net: &mut Net<'_>) -> Value {
        self.embedded(net, self.stack(false))
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
        // Where tables are one, files hold it under any of their names.
        let others: &[&str] = match name {
            "model.shared.weight" if self.shared => &[
                "model.encoder.embed_tokens.weight",
                "model.decoder.embed_tokens.weight",
                "lm_head.weight",
            ],
            "model.decoder.embed_tokens.weight" if self.tied => &["lm_head.weight"],
            _ => &[],
        };
        let names = std::iter::once(name).chain(others.iter().copied());
        let mut all: Vec<String> = names.clone().map(str::to_owned).collect();
        // A backbone alone was saved without its prefix.
        let bare = names.filter_map(|name| name.strip_prefix("model."));
        all.extend(bare.map(str::to_owned));
        all
    }

    fn passes_over(&self, name: &str) -> bool {
        let name = name.strip_prefix("model.").unwrap_or(name);
        let stacks = ["encoder.", "decoder."].map(|stack| name.strip_prefix(stack));
        let rest = stacks.into_iter().flatten().next();
        match rest {
            Some("version") => true,
            Some("embed_positions.weights") => matches!(self.kind.places, Places::BehindPadding),
            _ => name == "shared.weight" && !self.shared,
        }
    }

    fn other_heads(&self) -> &'static [&'static str] {
        &["classification_head"]
    }

    fn exported_class(&self) -> String {
        self.kind.class.to_owned()
    }

    fn lm_class(&self) -> String {
        self.exported_class()
    }

    fn head_modules(&self) -> &'static [&'static str] {
        &[]
    }
}

impl Seq2Seq for Bart {
    fn head(&self, net: &mut Net<'_>) -> LmHead {
        let sizes = (self.facts.hidden, self.rows[1]);
        let own = Site::linear(HEAD, Role::LmDecoder, sizes).without_bias();
        let tied = self.tied.then(|| self.table(true));
        let table = net.head_table(&own, tied.as_ref());
        let bias = self.kind.adds_to_logits.then(|| {
            let row = [1, self.rows[1]];
            let param = Param::own(BIAS, &row, ParamKind::Bias, Role::LmDecoder);
            let bias = net.buffer(param.stored_in(Some(Format::Plain(DType::F32))));
            net.flat(bias, self.rows[1])
        });
        LmHead {
            table,
            scale: 1.0,
            cap: None,
            bias,
        }
    }

    fn keep_sources(&self, net: &mut Net<'_>) {
        let encoded = self.encoded(net);
        let stack = self.stack(true);
        for number in 0..stack.sizes.blocks {
            net.enter("block", stack.before + number);
            let block = Block { stack, number };
            let (_, keys, values) = self.keys(net, block, Reads::Kept, encoded);
            net.keep((keys, values));
        }
        net.enter("block", None);
    }

    fn sides(&self) -> Sides {
        Sides {
            behind: self.behind,
            rows: self.rows,
            longest: self.facts.max_length,
        }
    }

    fn rules(&self) -> Rules {
        self.rules.clone()
    }
}
