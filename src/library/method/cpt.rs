//! Context-aware prompt tuning: virtual tokens that stay near those of a context.

use super::super::net::Param;
use super::super::schema::{Bound, Given, Maybe, kind};
use super::prompt_tuning::{self, ON, PLACE, TEXT, TOKEN_IDS, is_words, peft_keys};
use super::{
    After, At, Complaint, Facts, Marking, Method, Net, PeftForm, PeftKeys, Schema, Site, Stacking,
    Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_VIRTUAL_TOKENS;
use crate::program::DType;
use crate::program::Real;
use crate::program::op::{
    ActivationKind, BinaryKind, Broadcast, Constant, Indices, Over, ReduceKind, Scatter, UnaryKind,
};

/// A context whose embeddings are moved a little.
#[derive(Debug)]
pub struct Cpt;

const TYPES: Maybe<[String]> = Maybe::new(
    "types",
    kind::NUMBERS,
    "what each token of the context is, as peft's `cpt_tokens_type_mask` counts: of every four numbers the first is a template in front of an input, the second an input, the third a template in front of an answer, and the fourth (4, 8, …) an answer, which stays as it is. All are templates if not written",
);
const EPSILON: Given<f64> = Given::<f64>::new(
    "epsilon",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.1, "0.1"),
    "how far an input's token may move from its embedding, times √(width / 2048)",
);
const FORMAT_EPSILON: Given<f64> = Given::<f64>::new(
    "format_epsilon",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.1, "0.1"),
    "the same of a template's token",
);

static SCHEMA: Schema = Schema {
    name: "cpt",
    summary: "context-aware prompt tuning: virtual tokens that start at a context's and stay near it",
    doc: "The embeddings of each text, E [T, hidden], become [C + D; E]: C are those of the context, `text` or `token_ids`, frozen, \
          and D is trained from 0. Behind each update a row of D that is longer than its epsilon is shortened to it, and rows \
          of answers are always 0. Positions count the context like any text. The loss is that of the texts; peft adds the \
          loss of the context's own answers, which is not built. Backward goes through the whole model; 16 bytes a trained \
          number. It cannot be merged. peft gets C + D as PROMPT_TUNING, since its CPT wants a language model.",
    paper: "Blau et al. 2024 (arXiv 2410.17222)",
    keys: &[
        TEXT.key(),
        TOKEN_IDS.key(),
        TYPES.key(),
        EPSILON.key(),
        FORMAT_EPSILON.key(),
        PLACE.key(),
        ON.key(),
    ],
};

/// The tokens of the context.
fn context(values: &Values) -> Vec<u32> {
    let ids = TOKEN_IDS.get(values).unwrap_or_default();
    ids.iter().filter_map(|id| id.parse().ok()).collect()
}

/// What a token is, of every four.
fn kind_of(values: &Values, at: usize) -> u64 {
    let types = TYPES.get(values).unwrap_or_default();
    let own = types.get(at).and_then(|t| t.parse::<u64>().ok());
    own.unwrap_or(1)
}

/// The tensors of trained rows, each with its tokens' places and how far they may move.
fn parts(values: &Values, site: &Site) -> Vec<(&'static str, Vec<u32>, f64)> {
    let scale = (site.output() as f64 / 2048.0).sqrt();
    let count = context(values).len();
    let of = |wanted: fn(u64) -> bool| -> Vec<u32> {
        let own = (0..count).filter(|&i| wanted(kind_of(values, i)));
        own.map(to_u32).collect()
    };
    let all = [
        (
            "format_delta",
            of(|t| t % 4 == 1 || t % 4 == 3),
            FORMAT_EPSILON,
        ),
        ("input_delta", of(|t| t % 4 == 2), EPSILON),
    ];
    let some = all.into_iter().filter(|(_, list, _)| !list.is_empty());
    some.map(|(name, list, epsilon)| (name, list, epsilon.get(values) * scale))
        .collect()
}

fn delta(net: &mut Net<'_>, site: &Site, name: &str, count: usize) -> Value {
    net.tensor(Param::at(site, name).shape(&[count as u64, site.output()]))
}

/// The rows that stand for the virtual tokens.
fn prompt(values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
    let rows = context(values);
    let count = rows.len() as u64;
    let start = prompt_tuning::rows_of(site, rows, net.table_scale());
    let own = Param::at(site, "context").shape(&[count, site.output()]);
    let mut sum = net.tensor(own.frozen().start(start));
    for (name, list, _) in parts(values, site) {
        let delta = delta(net, site, name, list.len());
        let rows = Scatter { rows: count.into() };
        let list = net.b.push1(Indices { list }, &[]);
        let delta = net.b.push1(rows, &[list, delta]);
        sum = net.add(sum, delta);
    }
    sum
}

/// Rows that are longer than `most` shortened to it: `x · most / max(‖x‖, most)`.
fn shortened(net: &mut Net<'_>, x: Value, most: f64) -> Value {
    let number = |net: &mut Net<'_>, value: f64| {
        let (value, dtype) = (Real::new(value), DType::F32);
        net.b.push1(Constant { value, dtype }, &[])
    };
    let squares = net.reduce(ReduceKind::SumOfSquares, Over::Columns, x);
    let length = net.unary(UnaryKind::Sqrt, squares);
    let limit = number(net, most);
    let over = net.binary(BinaryKind::Sub, Broadcast::Scalar, length, limit);
    let over = net.activation(ActivationKind::Relu, over);
    let longer = net.binary(BinaryKind::Add, Broadcast::Scalar, over, limit);
    let share = net.unary(UnaryKind::Recip, longer);
    let share = net.binary(BinaryKind::Mul, Broadcast::Scalar, share, limit);
    net.binary(BinaryKind::Mul, Broadcast::Column, x, share)
}

impl Method for Cpt {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn fits(&self, site: &Site) -> bool {
        is_words(site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn text<'a>(&self, values: &'a Values) -> Option<&'a str> {
        TEXT.get(values)
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let count = context(values).len();
        let complaint = |key, message: String, help: &str| {
            Some(Complaint {
                key,
                code: &BAD_VIRTUAL_TOKENS,
                message,
                help: Some(help.to_owned()),
            })
        };
        if count == 0 && TOKEN_IDS.get(values).is_none() {
            let message = "`cpt` has no context to start at".to_owned();
            return complaint(
                TEXT.name(),
                message,
                "write `text = \"…\"` or `token_ids = […]`",
            );
        }
        let types = TYPES.get(values).map(<[String]>::len);
        if let Some(types) = types.filter(|&n| n != count) {
            let message = format!("`types` names {types} tokens, and the context has {count}");
            return complaint(TYPES.name(), message, "write one number for each token");
        }
        if parts(values, site).is_empty() {
            let message = "every token of the context is an answer, so that nothing is trained";
            return complaint(TYPES.name(), message.to_owned(), "mark inputs or templates");
        }
        prompt_tuning::check_ids(values, site)
    }

    fn marking(&self, values: &Values) -> Marking {
        Marking {
            virtual_tokens: to_u32(context(values).len()),
            behind_first: PLACE.get(values) == "behind_first",
            specials: false,
        }
    }

    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
        let prompt = prompt(at.values, at.site, net);
        net.replaced(rows, prompt)
    }

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn after_update(&self, values: &Values, sites: &[&Site], after: &mut After<'_, '_>) {
        for site in sites {
            for (name, list, most) in parts(values, site) {
                let own = delta(after.net, site, name, list.len());
                let short = shortened(after.net, own, most);
                after.set(own, short);
            }
        }
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        (PLACE.get(values) == "first").then(prompt_tuning::form)
    }

    fn prompt_keys(&self, values: &Values, facts: &Facts, _: &[&Site]) -> PeftKeys {
        peft_keys(context(values).len() as u64, facts)
    }

    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        let sites = sites.iter();
        sites.map(|site| prompt(values, site, net)).collect()
    }
}
