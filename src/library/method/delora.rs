//! DeLoRA: `ΔW = (λ / r) · B diag(1 / (‖aᵢ‖ ‖bᵢ‖)) A diag(‖W₀‖)`, a low-rank update with a bounded norm.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, ColumnNorm};
use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{self, MODULES_TO_SAVE, ON, RANK};
use super::weight_drop::MODULE_DROPOUT;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, number,
};
use crate::program::Real;
use crate::program::op::{
    ActivationKind, BinaryKind, Broadcast, Constant, Epilogue, MatMul, MulRows, Over, ReduceKind,
    UnaryKind,
};

/// Normalised pairs with a trained bound.
#[derive(Debug)]
pub struct Delora;

const LAMBDA: Given<f64> = Given::<f64>::new(
    "lambda",
    kind::float(Bound::Excl(0.0), Bound::None),
    (15.0, "15"),
    "what the bound λ of the update's norm starts at",
);
const DROPOUT: Given<f64> = Given::<f64>::new(
    "dropout",
    kind::float(Bound::Incl(0.0), Bound::Excl(1.0)),
    (0.0, "0"),
    "dropout on the adapter's input, which peft calls `module_dropout`",
);

static SCHEMA: Schema = Schema {
    name: "delora",
    summary: "decoupled low-rank adaptation: normalised pairs of vectors, and one trained bound of the update's norm",
    doc: "y = x W0ᵀ + b + ((dropout(x) ⊙ w) Aᵀ ⊙ d) Bᵀ with d_i = λ / (rank · ‖a_i‖ · ‖b_i‖), A [rank, in], B [out, rank], and w \
          [in] the frozen norms of W0's columns. Norms count as at least 1e-4. A is uniform in ±1/√in and B zero, so the model \
          starts unchanged. λ [1] is trained too. Merges exactly into plain weights and is written in peft's format.",
    paper: "Bini et al. 2025, \"Decoupling Angles and Strength in Low-rank Adaptation\" (arXiv 2503.18225)",
    keys: &[
        RANK.key(),
        lora::RANKS.key(),
        LAMBDA.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "delora_A";
const B: &str = "delora_B";
const BOUND: &str = "delora_lambda";
const NORMS: &str = "delora_w_norm";

struct Parts {
    a: Value,
    b: Value,
    /// `d [rank]`
    factors: Value,
    /// `w [in]`
    norms: Value,
}

/// `1 / max(‖v‖, 10⁻⁴)` of each row or column.
fn one_over_norms(net: &mut Net<'_>, over: Over, x: Value) -> Value {
    const LEAST: f64 = 1e-8;
    let squares = net.reduce(ReduceKind::SumOfSquares, over, x);
    let dtype = net.b.ty(squares).dtype;
    let value = Real::new(LEAST);
    let least = net.b.push1(Constant { value, dtype }, &[]);
    // Nothing flows back through a norm below the least, as through a bound.
    let more = net.binary(BinaryKind::Sub, Broadcast::Scalar, squares, least);
    let more = net.activation(ActivationKind::Relu, more);
    let squares = net.binary(BinaryKind::Add, Broadcast::Scalar, more, least);
    net.unary(UnaryKind::Rsqrt, squares)
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let (site, rank) = (at.site, RANK.get(at.values));
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, A).shape(&[rank, site.input()]);
    let b = Param::at(site, B).shape(&[site.output(), rank]);
    let lambda = Param::at(site, BOUND).shape(&[1]);
    let lambda = lambda.start(Init::Constant(LAMBDA.get(at.values)));
    let weight = BaseParam::weight(&site.path, [site.output(), site.input()]);
    let by = ColumnNorm { weight }.into();
    let norms = Param::at(site, NORMS).shape(&[site.input()]).frozen();
    let norms = norms.start(Init::Derived { by, part: 0 });
    let (a, b) = (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b));
    let (lambda, norms) = (net.tensor(lambda), net.tensor(norms));
    let of_a = one_over_norms(net, Over::Columns, a);
    let of_b = one_over_norms(net, Over::Rows, b);
    let both = net.binary(BinaryKind::Mul, Broadcast::Full, of_a, of_b);
    let lambda = net.scaled(lambda, 1.0 / rank as f64);
    let factors = net.binary(BinaryKind::Mul, Broadcast::Scalar, both, lambda);
    Parts {
        a,
        b,
        factors,
        norms,
    }
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("delora_lambda", WithoutEffect(BEGAN)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("lambda_pattern", WithoutEffect(BEGAN)),
    ("module_dropout", Used),
    ("r", Used),
    ("rank_pattern", Used),
];

impl Method for Delora {
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

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let p = parts(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), p.a);
        // The norms go into A, which is smaller than the input.
        let a = net.b.push1(MulRows, &[p.a, p.norms]);
        let z = net.project(x, a);
        let z = net.b.push1(MulRows, &[z, p.factors]);
        net.project_onto(base, z, p.b, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net);
        let a = net.b.push1(MulRows, &[p.a, p.norms]);
        let b = net.b.push1(MulRows, &[p.b, p.factors]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("bias", json!("none")),
            ("delora_lambda", number(LAMBDA.get(values))),
            ("init_weights", json!(true)),
            ("lambda_pattern", json!({})),
            (MODULE_DROPOUT.name(), json!(DROPOUT.get(values))),
            ("r", json!(RANK.get(values))),
            ("rank_pattern", json!({})),
        ];
        Some(PeftForm {
            kind: "DELORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "DELORA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, dropout) = (config.positive("r", 8)?, config.rate("module_dropout")?);
        let ranks = config.patterns("rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?;
        for place in file.places()? {
            place.only(&[A, B, BOUND, NORMS])?;
            let rank = ranks.of(&place.module).unwrap_or(rank);
            let site = place.site;
            file.take(&place.name(A), place.own(A), &[rank, site.input()])?;
            file.take(&place.name(B), place.own(B), &[site.output(), rank])?;
            file.take(&place.name(BOUND), place.own(BOUND), &[1])?;
            file.take(&place.name(NORMS), place.own(NORMS), &[site.input()])?;
            file.idle(&place.name(B), 0.0);
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&Delora, site, values);
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
        let tensor = |suffix: &str, shape| Some((suffix.to_owned(), shape, get(suffix)?));
        Some(vec![
            tensor(A, vec![rank, input])?,
            tensor(B, vec![output, rank])?,
            tensor(BOUND, vec![1])?,
            tensor(NORMS, vec![input])?,
        ])
    }
}
