//! AdaMix with LoRA (methods A4): pairs of which one is drawn for each step.

use super::super::net::Init;
use super::super::schema::{Given, kind};
use super::experts::{CONSISTENCY, EXPERTS, mean, mixed};
use super::lora::{self, ALPHA, DROPOUT, ON, RANK};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values,
};
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul};

/// Pairs that are drawn, and averaged in the end.
#[derive(Debug)]
pub struct AdaMixLora;

const SHARE_A: Given<bool> = Given::<bool>::new(
    "share_a",
    kind::BOOL,
    (false, "false"),
    "whether all routes have one A",
);
const SHARE_B: Given<bool> = Given::<bool>::new(
    "share_b",
    kind::BOOL,
    (true, "true"),
    "whether all routes have one B",
);

static SCHEMA: Schema = Schema {
    name: "adamix_lora",
    summary: "AdaMix with LoRA: several pairs a map, one drawn for each step, made one LoRA by averaging",
    doc: "y = x W0ᵀ + b + (alpha / rank) · (dropout(x) A_iᵀ) B_jᵀ. In each step i and j are drawn evenly for every map, one draw for \
          the whole batch; A starts uniform in ±1/√in and B at 0, as LoRA's. The second route, `consistency`, and what the \
          optimizer does are those of `adamix`. Evaluations, merges and exports use the means of all A and of all B: a \
          LoRA of the same rank, which peft reads.",
    paper: "Wang et al. 2022 (arXiv 2205.12410)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        EXPERTS.key(),
        SHARE_A.key(),
        SHARE_B.key(),
        CONSISTENCY.key(),
        ON.key(),
    ],
};

const A: &str = "adamix_A";
const B: &str = "adamix_B";

/// How many of each there are.
fn counts(values: &Values) -> [u64; 2] {
    [SHARE_A.get(values), SHARE_B.get(values)].map(|shared| match shared {
        true => 1,
        false => EXPERTS.get(values),
    })
}

/// `A [rank, in]` and `B [out, rank]` of the step, or their means.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank) = (at.site, RANK.get(at.values));
    let [a, b] = counts(at.values);
    let bound = 1.0 / (site.input() as f64).sqrt();
    let first = mixed(net, (site, A), (a, [rank, site.input()]), |p| {
        p.start(Init::Uniform(bound))
    });
    let second = mixed(net, (site, B), (b, [site.output(), rank]), |p| p);
    (first, second)
}

fn scale(values: &Values) -> f64 {
    ALPHA.get(values) / RANK.get(values) as f64
}

impl Method for AdaMixLora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        lora::check_rank(values, &RANK, site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn steps(&self, _: &Values) -> bool {
        true
    }

    fn consistency(&self, values: &Values) -> Option<f64> {
        Some(CONSISTENCY.get(values)).filter(|&c| c > 0.0)
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (a, b) = factors(at, net);
        let dropped = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(dropped, a);
        net.project_onto(base, z, b, scale(at.values))
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (a, b) = factors(at, net);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(scale(at.values)))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let product = Product {
            rank: RANK.get(values),
            scale: scale(values),
            dropout: DROPOUT.get(values),
            rs_lora: false,
        };
        Some(PeftForm::lora(product, false))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let rank = RANK.get(values) as usize;
        let (input, output) = (site.input() as usize, site.output() as usize);
        let [a, b] = counts(values);
        let (first, second) = (mean(&get(A)?, a), mean(&get(B)?, b));
        Some(vec![
            ("lora_A.weight".to_owned(), vec![rank, input], first),
            ("lora_B.weight".to_owned(), vec![output, rank], second),
        ])
    }
}
