//! The model registry: architectures. An architecture is one file and one row here. It never names
//! a method: it asks [`Net`] for its parts.

use std::fmt;

use serde_json::Value as Json;

pub use decoder::{Fused, Layer, Shape};
pub use heads::{Behind, CausalLm, Chooses, Extracts, LmHead, MaskedLm, Seq2Seq, Sides};
pub use rope::{Beyond, Rope};

use super::data::tokens::virtual_number;
use super::net::{Net, Site};
use super::schema::Schema;
use crate::library::counts::to_u32;
use crate::program::{Pick, Value};

mod albert;
mod bart;
mod bert;
mod deberta_v2;
mod decoder;
mod distilbert;
mod electra;
mod encoder;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod granite;
mod heads;
mod keys;
mod llama;
mod mistral;
mod modernbert;
mod mpnet;
mod olmo2;
mod pair;
mod phi3;
mod qwen2;
mod qwen3;
mod roberta;
mod rope;
mod smollm3;
mod t5;
mod xlm_roberta_xl;

/// An architecture the compiler knows.
#[derive(Debug)]
pub struct Architecture {
    /// Name, doc; no keys.
    pub schema: &'static Schema,
    /// Values of `model_type` in `config.json` that mean it.
    pub model_types: &'static [&'static str],
    /// Reads `config.json`; the error says which key is missing or cannot be honoured.
    pub parse: fn(&Json) -> Result<Box<dyn Model>, String>,
}

/// Every architecture.
pub const ARCHITECTURES: &[&Architecture] = &[
    &bert::ARCHITECTURE,
    &roberta::ARCHITECTURE,
    &distilbert::ARCHITECTURE,
    &electra::ARCHITECTURE,
    &albert::ARCHITECTURE,
    &modernbert::ARCHITECTURE,
    &xlm_roberta_xl::ARCHITECTURE,
    &mpnet::ARCHITECTURE,
    &deberta_v2::ARCHITECTURE,
    &llama::ARCHITECTURE,
    &mistral::ARCHITECTURE,
    &qwen2::ARCHITECTURE,
    &qwen3::ARCHITECTURE,
    &gemma::ARCHITECTURE,
    &gemma2::ARCHITECTURE,
    &gemma3::ARCHITECTURE,
    &phi3::ARCHITECTURE,
    &smollm3::ARCHITECTURE,
    &olmo2::ARCHITECTURE,
    &granite::ARCHITECTURE,
    &gpt_neox::ARCHITECTURE,
    &gpt2::ARCHITECTURE,
    &t5::ARCHITECTURE,
    &bart::ARCHITECTURE,
];

/// The figures of a model that others need.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Blocks, one behind the other; one that runs several times counts as often.
    pub layers: u64,
    /// Blocks with parameters of their own.
    pub blocks: u64,
    /// Width.
    pub hidden: u64,
    /// Width of the token embedding.
    pub embedding: u64,
    /// Attention heads.
    pub heads: u64,
    /// Rows of the token embedding.
    pub vocab: u64,
    /// Longest sequence in tokens, special tokens included.
    pub max_length: u64,
    /// How position ids are counted.
    pub positions: Positions,
    /// Which texts are long ones.
    pub long: LongTexts,
    /// Number of segment ids (1 or more); 0 if the model has none.
    pub segments: u64,
    /// Rate of the model's hidden dropout.
    pub dropout: f64,
    /// Rate of the dropout on its attention probabilities.
    pub attention_dropout: f64,
    /// Addend of the variance in its norms.
    pub eps: f64,
    /// Whether each token sees none behind it.
    pub causal: bool,
    /// How narrow copies of its blocks can be.
    pub narrow: Narrowing,
}

/// How narrow copies of a model's blocks can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrowing {
    /// Columns of a head, or pairs of columns, which a reduction must divide.
    pub unit: u64,
    /// Whether a copy can start as what pruning leaves of the block.
    pub prunes: bool,
}

/// Texts in which a model turns positions by other angles than in shorter ones (LongRoPE).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LongTexts {
    /// Each is a number of positions that a longer text is turned differently beyond, in order.
    pub borders: Vec<u32>,
    /// Whether a text that comes to be longer while it is generated is read again, so that none of its keys is turned as
    /// in a shorter one.
    pub rereads: bool,
}

impl LongTexts {
    /// Beyond how many of the borders a text of so many positions is.
    #[must_use]
    pub fn beyond(&self, length: u32) -> usize {
        self.borders.partition_point(|&border| border < length)
    }
}

/// Positions of a text that are not its own tokens'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Keys of a prefix before it.
    pub prefix: u32,
    /// Whether the text's positions begin behind the prefix.
    pub shifts: bool,
    /// Virtual tokens in it.
    pub within: u32,
}

/// Whether a class of transformers, by its name, makes targets of sources.
#[must_use]
pub fn is_pair(class: &str) -> bool {
    class.ends_with("ForConditionalGeneration") || class.ends_with("MTModel")
}

/// Whether a class of transformers, by its name, is a language model that goes on with texts.
#[must_use]
pub fn is_lm(class: &str) -> bool {
    class.ends_with("ForCausalLM") || class.ends_with("LMHeadModel")
}

/// How position ids are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// The first token's.
    pub first: u32,
    /// A token that is not counted and has the position of its own id: the padding token, where one
    /// stands in the text.
    pub skips: Option<u32>,
    /// Virtual tokens of a prefix: they are among a text's tokens where text is generated.
    pub prefix: u32,
    /// Whether positions begin behind the prefix, whether its tokens are among the text's or not.
    pub shifts: bool,
}

impl Positions {
    /// How many positions a text has: one more than the last of them. Those of a prefix that positions do not begin behind are
    /// not among them, whether its tokens are among the text's or not.
    #[must_use]
    pub fn count(self, ids: impl IntoIterator<Item = u32>) -> u32 {
        let apart = |id: u32| !self.shifts && (1..=self.prefix).contains(&virtual_number(id));
        let own = ids.into_iter().filter(|&id| !apart(id));
        self.of(own).max().map_or(0, |last| last + 1)
    }

    /// The position of each token of a text.
    pub fn of(self, ids: impl IntoIterator<Item = u32>) -> impl Iterator<Item = u32> {
        let mut next = self.first + if self.shifts { self.prefix } else { 0 };
        ids.into_iter().map(move |id| {
            if self.skips == Some(id) {
                return id;
            }
            let number = virtual_number(id);
            if (1..=self.prefix).contains(&number) {
                return self.first + number - 1;
            }
            next += 1;
            next - 1
        })
    }
}

/// A narrow copy of one of a model's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The block it is like, from 0.
    pub layer: u64,
    /// How many times narrower it is.
    pub reduction: u64,
    /// Whether nothing follows it, so that it makes only the rows that are read.
    pub last: bool,
}

/// A model that has narrow copies of its blocks, which ladders are made of.
pub trait Narrow {
    /// A block like one of the model's own, but narrower, with as many heads and with parameters under
    /// `path`. Tells [`Net::pruner`], if there is one, what each of them mirrors.
    fn mirror(&self, net: &mut Net<'_>, path: &str, mirror: Mirror, x: Value) -> Value;

    /// A norm like the model's own, at a site beside the model.
    fn norm(&self, net: &mut Net<'_>, site: &Site, x: Value) -> Value;

    /// Whether its blocks end in a norm; otherwise one follows the last.
    fn ends_in_norm(&self) -> bool;
}

/// An architecture with its sizes.
pub trait Model: fmt::Debug + Send + Sync {
    /// The registry's name.
    fn family(&self) -> &'static str;

    /// Its figures.
    fn facts(&self) -> &Facts;

    /// Replaces dropout rates.
    fn override_dropout(&mut self, rate: f64);

    /// Its figures, where a stage changes them.
    fn facts_mut(&mut self) -> &mut Facts;

    /// Leaves room for what methods put before texts, or into them.
    fn reserve_positions(&mut self, reserved: Reserved) {
        let facts = self.facts_mut();
        let taken = if reserved.shifts { reserved.prefix } else { 0 };
        let all = u64::from(taken) + u64::from(reserved.within);
        facts.max_length = facts.max_length.saturating_sub(all);
        (facts.positions.prefix, facts.positions.shifts) = (reserved.prefix, reserved.shifts);
        if reserved.within > 0 {
            // What is given as embeddings is counted token by token, padding too.
            facts.positions.skips = None;
        }
    }

    /// Packed tokens to the states that enter the first block, `[T, hidden]`.
    fn embed(&self, net: &mut Net<'_>) -> Value;

    /// Block `layer`: `[T, hidden] → [T, hidden]`. A model that is more than one stack says itself how it encodes.
    fn block(&self, net: &mut Net<'_>, layer: u64, x: Value) -> Value {
        let _ = (net, layer);
        x
    }

    /// The block, by its parameters, that runs as `layer`.
    fn block_of(&self, layer: u64) -> u64 {
        layer
    }

    /// What stands behind the last block, on the rows that are read.
    fn finish(&self, net: &mut Net<'_>, x: Value) -> Value {
        let _ = net;
        x
    }

    /// The token whose state stands for a whole sequence.
    fn sequence_pick(&self) -> Pick {
        Pick::First
    }

    /// Whether the mean of the states of all tokens stands for a whole sequence, and no token's.
    fn averages(&self) -> bool {
        false
    }

    /// Whether its scores depend on how far apart two tokens of a text are, so that nothing can stand before texts that is of none.
    fn scores_by_distance(&self) -> bool {
        false
    }

    /// Whether its maps of queries and keys also read rows that are of no text.
    fn maps_distances(&self) -> bool {
        false
    }

    /// Its narrow copies, if it has some; planning refuses ladders beside a model without.
    fn narrow(&self) -> Option<&dyn Narrow> {
        None
    }

    /// Its head for masked tokens, if it has one.
    fn masked_lm(&self) -> Option<&dyn MaskedLm> {
        None
    }

    /// Its head that scores options, if it has one.
    fn chooses(&self) -> Option<&dyn Chooses> {
        None
    }

    /// Its head for the bounds of answers, if it has one.
    fn extracts(&self) -> Option<&dyn Extracts> {
        None
    }

    /// Its head for the next token, if it has one.
    fn causal_lm(&self) -> Option<&dyn CausalLm> {
        None
    }

    /// What it is as an encoder with a decoder, if it is one. Programs are fed with two streams then, and its blocks are counted
    /// from the encoder's first to the decoder's last.
    fn seq2seq(&self) -> Option<&dyn Seq2Seq> {
        None
    }

    /// What it is as a decoder whose blocks are like LLaMA's, if it is one.
    fn decoder(&self) -> Option<&Shape> {
        None
    }

    /// The backbone: packed tokens to last hidden states, `[T, hidden]` or only the rows that are read.
    /// Each block's input, and the last one's output, is shown to the network as a feature.
    fn encode(&self, net: &mut Net<'_>) -> Value {
        stacked(self, net, |net, layer, x| self.block(net, layer, x))
    }

    /// The sequence head on the states of [`Self::sequence_pick`]: `[S, hidden] → [S, classes]`. Planning refuses a model
    /// without one.
    fn classify(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Value {
        let _ = (net, classes);
        hidden
    }

    /// The head on each token that is read: `[N, hidden] → [N, classes]`; `None` where it has none.
    fn classify_tokens(&self, net: &mut Net<'_>, hidden: Value, classes: u64) -> Option<Value> {
        let _ = (net, hidden, classes);
        None
    }

    /// Whether it has a head on each token.
    fn labels_tokens(&self) -> bool {
        false
    }

    /// Names under which checkpoints have a parameter: the present one first, then old ones
    /// (`gamma`, without the model's prefix, …).
    fn checkpoint_names(&self, name: &str) -> Vec<String>;

    /// Whether files hold a matrix `[out, in]` of the model's own as `[in, out]`.
    fn transposed(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Modules beside its backbone that tasks put on it which it does not have here: first parts of paths. They read its
    /// states and change none.
    fn other_heads(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether files may hold a tensor of this name that the model's class in `transformers` does not read either.
    fn passes_over(&self, name: &str) -> bool {
        let _ = name;
        false
    }

    /// Class name of the exported model in `transformers`.
    fn exported_class(&self) -> String;

    /// Class name in `transformers` of the model exported with its head for tokens.
    fn lm_class(&self) -> String {
        self.exported_class()
            .replace("SequenceClassification", "MaskedLM")
    }

    /// Last components of the module paths of the sequence head, for peft's `modules_to_save`.
    fn head_modules(&self) -> &'static [&'static str];
}

/// The backbone of a model of one stack, whose block `layer` is given: [`Model::encode`].
fn stacked<M: Model + ?Sized>(
    model: &M,
    net: &mut Net<'_>,
    mut block: impl FnMut(&mut Net<'_>, u64, Value) -> Value,
) -> Value {
    let mut x = model.embed(net);
    net.feature(x);
    for layer in 0..model.facts().layers {
        let own = model.block_of(layer);
        let before = (0..layer).filter(|&layer| model.block_of(layer) == own);
        net.again(to_u32(before.count()));
        net.enter("encoder", layer);
        x = net.entered((layer, own), x);
        x = block(net, layer, x);
        net.feature(x);
    }
    net.again(0);
    net.enter("encoder", None);
    x
}

/// The architecture of a `config.json`.
///
/// # Errors
/// A sentence: no `model_type`, an unknown one (with those known), or what `parse` says.
pub fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let known = || {
        let names: Vec<&str> = ARCHITECTURES
            .iter()
            .flat_map(|a| a.model_types.iter().copied())
            .collect();
        names.join(", ")
    };
    let Some(model_type) = config.get("model_type").and_then(Json::as_str) else {
        return Err(format!(
            "config.json has no `model_type`; known are {}",
            known()
        ));
    };
    match ARCHITECTURES
        .iter()
        .find(|a| a.model_types.contains(&model_type))
    {
        Some(architecture) => {
            if let Some(map) = config.as_object() {
                keys::check(model_type, map)?;
            }
            (architecture.parse)(config)
        }
        None => Err(format!(
            "`{model_type}` is an architecture that is not built yet; known are {}",
            known()
        )),
    }
}

/// Keys of a `config.json` that are not known, and so not followed.
#[must_use]
pub fn unknown_keys(config: &Json) -> Vec<String> {
    let model_type = config.get("model_type").and_then(Json::as_str);
    let (Some(model_type), Some(map)) = (model_type, config.as_object()) else {
        return Vec::new();
    };
    keys::unknown(model_type, map)
}
