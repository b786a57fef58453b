//! Generating text: what a recipe and a command say of it, and how a token is chosen.

use super::error::IDLE_KEY;
use super::schema::{Bound, Filled, Given, Maybe, Of, Schema, Values, kind};
use crate::base::{Diag, Diags};

mod beams;
mod ends;
mod rules;
mod runs;
mod sample;
mod tail;

pub use beams::{Beams, Early, Search};
pub use ends::{FILE, end_tokens, with_stops};
pub use rules::Rules;
pub use runs::{CHUNK, Piece, prefill, rereads, whole};
pub use sample::Sampler;
pub use tail::Tail;

static GENERATE: Schema = Schema {
    name: "generate",
    summary: "how text is generated",
    doc: "Of each row the model is given the prompt and goes on until it gives a token that ends a text, a string of `stop` \
          appears, or `max_new_tokens` are made. With `temperature = 0` the likeliest token is taken every time. Otherwise tokens \
          are drawn: what is drawn depends on `seed`, the row and the token's place alone. With `num_beams` above 1 the likeliest \
          whole text is searched for, as `generate` of transformers does.",
    paper: "",
    keys: &[
        MAX_NEW_TOKENS.key(),
        TEMPERATURE.key(),
        TOP_K.key(),
        TOP_P.key(),
        MIN_P.key(),
        REPETITION_PENALTY.key(),
        SEED.key(),
        STOP.key(),
        beams::COUNT.key(),
        beams::LENGTH_PENALTY.key(),
        beams::EARLY.key(),
    ],
};

/// The kind of a key that such a block is the value of.
pub const KIND: Of<Filled> = kind::block(&GENERATE);

const MAX_NEW_TOKENS: Given<u64> = Given::<u64>::new(
    "max_new_tokens",
    kind::int(1, 1 << 20),
    (64, "64"),
    "most tokens that are made of a row",
);
const TEMPERATURE: Given<f64> = Given::<f64>::new(
    "temperature",
    kind::float(Bound::Incl(0.0), Bound::Incl(100.0)),
    (0.0, "0"),
    "what logits are divided by before a token is drawn; 0 takes the likeliest",
);
const TOP_K: Maybe<u64> = Maybe::new(
    "top_k",
    kind::int(1, 1 << 32),
    "draw from so many of the likeliest tokens",
);
const TOP_P: Maybe<f64> = Maybe::new(
    "top_p",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    "draw from the likeliest tokens that together have this probability",
);
const MIN_P: Maybe<f64> = Maybe::new(
    "min_p",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    "draw from tokens with at least this share of the likeliest one's probability",
);
const REPETITION_PENALTY: Given<f64> = Given::<f64>::new(
    "repetition_penalty",
    kind::float(Bound::Excl(0.0), Bound::Incl(100.0)),
    (1.0, "1"),
    "what positive logits of tokens that occurred are divided by, and negative ones multiplied",
);
const SEED: Given<u64> = Given::<u64>::new("seed", kind::SEED, (0, "0"), "seed of the draws");
const STOP: Maybe<[String]> = Maybe::new(
    "stop",
    kind::TEXTS,
    "strings at which the text ends; they are no part of it",
);

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; 0 for the likeliest token.
    pub temperature: f64,
    /// How many of the likeliest tokens are drawn from.
    pub top_k: Option<u64>,
    /// What probability the tokens that are drawn from have together.
    pub top_p: Option<f64>,
    /// The least share of the likeliest token's probability.
    pub min_p: Option<f64>,
    /// Factor against tokens that occurred.
    pub repetition_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// The first setting that has no effect because the likeliest token is always taken.
    #[must_use]
    pub fn idle(&self) -> Option<&'static str> {
        if self.temperature > 0.0 {
            return None;
        }
        [
            (TOP_K.name(), self.top_k.is_some()),
            (TOP_P.name(), self.top_p.is_some()),
            (MIN_P.name(), self.min_p.is_some()),
        ]
        .into_iter()
        .find_map(|(name, is_set)| is_set.then_some(name))
    }
}

/// How text is generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Most tokens that are made.
    pub max_new_tokens: u64,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Strings at which the text ends.
    pub stop: Vec<String>,
    /// How many texts are gone on with at once of each row, and which is taken.
    pub beams: Beams,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(&Values::default())
    }
}

impl Settings {
    /// What a block says.
    #[must_use]
    pub fn of(values: &Values) -> Self {
        Self {
            max_new_tokens: MAX_NEW_TOKENS.get(values),
            sampling: Sampling {
                temperature: TEMPERATURE.get(values),
                top_k: TOP_K.get(values),
                top_p: TOP_P.get(values),
                min_p: MIN_P.get(values),
                repetition_penalty: REPETITION_PENALTY.get(values),
                seed: SEED.get(values),
            },
            stop: STOP.get(values).unwrap_or_default().to_vec(),
            beams: Beams::of(values),
        }
    }
}

impl Settings {
    /// What of these settings excludes each other, by its keys, and why.
    #[must_use]
    pub fn conflict(&self) -> Option<(&'static str, &'static str)> {
        if !self.beams.searches() {
            let beams = &self.beams;
            let searched = "it says which text of a search is taken, and `num_beams` is 1";
            let idle = [
                (beams::LENGTH_PENALTY.name(), beams.length_penalty != 1.0),
                (beams::EARLY.name(), beams.early != Early::Off),
            ];
            let idle = idle.into_iter().find(|(_, set)| *set);
            return idle.map(|(name, _)| (name, searched));
        }
        if self.sampling.temperature > 0.0 {
            let why = "tokens are either drawn or searched for, and drawing beside `num_beams` is not built";
            return Some((TEMPERATURE.name(), why));
        }
        if !self.stop.is_empty() {
            let why = "strings that stop a text are not built beside `num_beams`";
            return Some((STOP.name(), why));
        }
        None
    }
}

/// Complains about what a block of settings says.
pub fn check(block: &Filled, diags: &mut Diags) {
    let settings = Settings::of(&block.values);
    if let Some(name) = settings.sampling.idle() {
        let message = format!(
            "`{name}` has no effect: without `temperature` the likeliest token is always taken"
        );
        diags.push(
            Diag::error(&IDLE_KEY, block.values.span(name), message)
                .help(format!("add `temperature = 0.7`, say, or remove `{name}`")),
        );
    }
    if let Some((name, why)) = settings.conflict() {
        let message = format!("`{name}` cannot be followed here: {why}");
        diags.push(
            Diag::error(&IDLE_KEY, block.values.span(name), message)
                .help(format!("remove `{name}`, or write another `num_beams`")),
        );
    }
    if settings.stop.iter().any(String::is_empty) {
        let message = "an empty string ends every text before it begins";
        diags.push(
            Diag::error(&IDLE_KEY, STOP.span(&block.values), message).help("remove it from `stop`"),
        );
    }
}
