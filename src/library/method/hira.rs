//! HiRA: `ΔW = W₀ ⊙ (B A)`, a low-rank product that scales the weight element by element.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::lora::{self, DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Value, Values,
};
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, MatMul};

/// A Hadamard product of the weight and a low-rank product.
#[derive(Debug)]
pub struct Hira;

const RANK: Given<u64> =
    Given::<u64>::new("rank", kind::WIDTH, (32, "32"), "rank r of the product");

static SCHEMA: Schema = Schema {
    name: "hira",
    summary: "Hadamard high-rank adaptation: the frozen weight scaled element by element by a trained low-rank product",
    doc: "y = x W0ᵀ + b + dropout(x) (W0 ⊙ (B A))ᵀ with A [rank, in] uniform in ±1/√in and B [out, rank] zero, so the model \
          starts unchanged. The update has up to the rank of W0 times `rank`. A training keeps a matrix of the weight's size \
          for each adapted map. Merges exactly into plain weights and is written in peft's format.",
    paper: "Huang et al. 2025, \"HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models\" (ICLR)",
    keys: &[
        RANK.key(),
        lora::RANKS.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "hira_A";
const B: &str = "hira_B";

/// `W₀ ⊙ (B A)`, and the weight.
fn delta(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank) = (at.site, RANK.get(at.values));
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, A).shape(&[rank, site.input()]);
    let b = Param::at(site, B).shape(&[site.output(), rank]);
    let (a, b) = (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b));
    let product = MatMul::plain(false, false, Real::new(1.0));
    let product = net.b.push1(product, &[b, a]);
    let weight = net.weight(site);
    let delta = net.binary(BinaryKind::Mul, Broadcast::Full, product, weight);
    (delta, weight)
}

const PEFT_KEYS: Keys = &[
    ("hira_dropout", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("r", Used),
    ("rank_pattern", Used),
];

impl Method for Hira {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        lora::check_rank(values, &RANK, site)
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (delta, _) = delta(at, net);
        let dropped = net.dropout_before(x, DROPOUT.get(at.values), delta);
        net.project_onto(base, dropped, delta, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let (delta, weight) = delta(at, net);
        Some(net.add(weight, delta))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("fan_in_fan_out", json!(false)),
            ("hira_dropout", json!(DROPOUT.get(values))),
            ("init_weights", json!(true)),
            ("r", json!(RANK.get(values))),
            ("rank_pattern", json!({})),
        ];
        Some(PeftForm {
            kind: "HIRA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "HIRA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, dropout) = (config.positive("r", 32)?, config.rate("hira_dropout")?);
        let ranks = config.patterns("rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?;
        for place in file.places()? {
            place.only(&[A, B])?;
            let rank = ranks.of(&place.module).unwrap_or(rank);
            let site = place.site;
            file.take(&place.name(A), place.own(A), &[rank, site.input()])?;
            file.take(&place.name(B), place.own(B), &[site.output(), rank])?;
            file.idle(&place.name(B), 0.0);
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&Hira, site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (rank, input, output) = (
            RANK.get(values) as usize,
            site.input() as usize,
            site.output() as usize,
        );
        Some(vec![
            (A.to_owned(), vec![rank, input], get(A)?),
            (B.to_owned(), vec![output, rank], get(B)?),
        ])
    }
}
