//! The heads that some models have: a trait each.

use super::super::generate::Rules;
use super::super::net::Net;
use super::Model;
use super::encoder::{BOUNDS, bounds_head};
use crate::program::Value;

/// A model with a head for masked tokens.
pub trait MaskedLm {
    /// The head on the states at the masks, for some words only or for the whole vocabulary:
    /// `[N, hidden] → [N, words]`.
    fn words(&self, net: &mut Net<'_>, masked: Value, words: Option<&[u32]>) -> Value;

    /// Tensors of a decoder of its own, and what they are where it is tied: names in files.
    fn tied_names(&self) -> &'static [(&'static str, &'static str)];
}

/// A model with a head that gives each text one score, by which options are compared (`…ForMultipleChoice` of transformers).
pub trait Chooses {
    /// The head on the states of [`Model::sequence_pick`]: `[N, hidden] → [N, 1]`.
    fn score(&self, net: &mut Net<'_>, hidden: Value) -> Value;

    /// Last components of the paths of its modules, for peft's `modules_to_save`.
    fn modules(&self) -> &'static [&'static str];
}

/// A model with a head that gives each token two scores: as the first of an answer, and as its last (`…ForQuestionAnswering` of transformers).
/// Most classes have a linear map without a dropout before it.
pub trait Extracts: Model {
    /// The head on the states of tokens: `[N, hidden] → [N, 2]`.
    fn bounds(&self, net: &mut Net<'_>, hidden: Value) -> Value {
        bounds_head(net, self.facts().hidden, 0.0, hidden)
    }

    /// Last components of the paths of its modules, for peft's `modules_to_save`.
    fn modules(&self) -> &'static [&'static str] {
        BOUNDS
    }
}

/// The head of a language model: `logit = cap(scale · x tableᵀ + bias)`.
#[derive(Clone, Copy, Debug)]
pub struct LmHead {
    /// `[vocabulary, hidden]`
    pub table: Value,
    /// Factor of the products.
    pub scale: f64,
    /// Bound that logits approach.
    pub cap: Option<f64>,
    /// What is added to the products, `[vocabulary]`; a constant.
    pub bias: Option<Value>,
}

/// A model with a head for the next token.
pub trait CausalLm {
    /// The head.
    fn head(&self, net: &mut Net<'_>) -> LmHead;
}

/// A model that makes a text of another: its encoder reads the source, its decoder tells the target from that.
pub trait Seq2Seq {
    /// The head for the next token of a target.
    fn head(&self, net: &mut Net<'_>) -> LmHead;

    /// Reads the sources, and keeps of them what a decoder's attention to them reads ([`Net::keep`]).
    fn keep_sources(&self, net: &mut Net<'_>);

    /// What it wants of the pairs that it learns.
    fn sides(&self) -> Sides;

    /// What its config says of the tokens that are made.
    fn rules(&self) -> Rules;
}

/// Sources and targets as an encoder with a decoder learns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sides {
    /// What its decoder reads before a target's tokens.
    pub behind: Behind,
    /// How many tokens there are that sources, and that targets, are made of.
    pub rows: [u64; 2],
    /// Most tokens of a target.
    pub longest: u64,
}

/// What stands before a target that is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Behind {
    /// This token.
    Token(u32),
    /// The target's own last token, which says its language.
    ItsLast,
}
