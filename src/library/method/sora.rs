//! SoRA (methods R11): LoRA with a gate between A and B, which a proximal step makes sparse.

use super::super::net::{Init, Param};
use super::super::schema::{Bound, Given, kind};
use super::lora::{self, DROPOUT, ON, RANK};
use super::{
    After, At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site,
    Stacking, Value, Values,
};
use crate::program::Real;
use crate::program::op::{
    ActivationKind, BinaryKind, Broadcast, Constant, Epilogue, MatMul, MulRows, Over, ReduceKind,
    UnaryKind,
};

/// A gated pair.
#[derive(Debug)]
pub struct Sora;

const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    (16.0, "16"),
    "scale: the update is multiplied by alpha / rank",
);
const L1: Given<f64> = Given::<f64>::new(
    "l1",
    kind::float(Bound::Incl(0.0), Bound::None),
    (10.0, "10"),
    "weight in the loss of the mean magnitude of all gates; the reference calls it `sparse_lambda`",
);
const THRESHOLD: Given<f64> = Given::<f64>::new(
    "threshold",
    kind::float(Bound::Incl(0.0), Bound::None),
    (3e-4, "3e-4"),
    "threshold ξ of the proximal step; the reference calls it `sparse_lambda_2`",
);
const PROX: Given<str> = Given::<str>::new(
    "prox",
    kind::choice(&["soft", "reference"]),
    ("soft", "soft"),
    "the proximal step: `soft` moves each gate by ξ towards 0, as the paper has it; `reference` also sets to 0 what is below 2ξ, as its code does",
);
const RATE_GATE: Given<f64> = Given::<f64>::new(
    "rate_gate",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "factor of the learning rate for the gates",
);

static SCHEMA: Schema = Schema {
    name: "sora",
    summary: "sparse low-rank adaptation: LoRA with a gate for each rank, made sparse by a proximal step",
    doc: "y = x W0ᵀ + b + s · ((dropout(x) Aᵀ) ⊙ g) Bᵀ with A [rank, in] uniform in ±1/√in, B [out, rank] zero, so that the model \
          starts unchanged, and a gate g [rank], normal. s = alpha / rank. The loss has `l1` times the mean of |g| over all \
          gates. After each update a gate becomes sign(g) · max(|g| - threshold, 0), whatever the learning rate. Gates have \
          no weight decay. Merges exactly into plain weights and is written in peft's format as LoRA, where closed gates \
          leave rows of 0.",
    paper: "Ding et al. 2023 (arXiv 2311.11696), section 3",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        L1.key(),
        THRESHOLD.key(),
        PROX.key(),
        RATE_GATE.key(),
        ON.key(),
    ],
};

const A: &str = "sora_A";
const B: &str = "sora_B";
const GATE: &str = "sora_gate";

fn gate(site: &Site, values: &Values, net: &mut Net<'_>) -> Value {
    let gate = Param::at(site, GATE).shape(&[RANK.get(values)]);
    let gate = gate.start(Init::Normal(1.0)).undecayed();
    net.tensor(gate.rate(RATE_GATE.get(values)))
}

/// `A [r, in]`, `B [out, r]` and `g [r]`.
fn parts(at: &At<'_>, net: &mut Net<'_>) -> [Value; 3] {
    let (site, rank) = (at.site, RANK.get(at.values));
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, A).shape(&[rank, site.input()]);
    let b = Param::at(site, B).shape(&[site.output(), rank]);
    let (a, b) = (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b));
    [a, b, gate(site, at.values, net)]
}

fn scale(values: &Values) -> f64 {
    ALPHA.get(values) / RANK.get(values) as f64
}

impl Method for Sora {
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

    fn penalty(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Option<Value> {
        let weight = L1.get(values);
        if weight == 0.0 {
            return None;
        }
        let mut sum = None;
        for site in sites {
            let gate = gate(site, values, net);
            let size = net.unary(UnaryKind::Abs, gate);
            let own = net.reduce(ReduceKind::Sum, Over::All, size);
            sum = Some(sum.map_or(own, |sum| net.add(sum, own)));
        }
        let gates = sites.len() as f64 * RANK.get(values) as f64;
        Some(net.scaled(sum?, weight / gates))
    }

    fn after_update(&self, values: &Values, sites: &[&Site], after: &mut After<'_, '_>) {
        let threshold = THRESHOLD.get(values);
        if threshold == 0.0 {
            return;
        }
        for site in sites {
            let gate = gate(site, values, after.net);
            let net = &mut *after.net;
            let dtype = net.b.ty(gate).dtype;
            let value = Real::new(threshold);
            let by = net.b.push1(Constant { value, dtype }, &[]);
            let size = net.unary(UnaryKind::Abs, gate);
            let less = net.binary(BinaryKind::Sub, Broadcast::Scalar, size, by);
            let mut less = net.activation(ActivationKind::Relu, less);
            if PROX.get(values) == "reference" {
                // What was moved is compared with the threshold again.
                let above = net.binary(BinaryKind::Sub, Broadcast::Scalar, less, by);
                let equal = net.binary(BinaryKind::Equal, Broadcast::Scalar, less, by);
                let above = net.activation(ActivationKind::Relu, above);
                let above = net.unary(UnaryKind::Sign, above);
                let open = net.add(above, equal);
                less = net.binary(BinaryKind::Mul, Broadcast::Full, less, open);
            }
            let sign = net.unary(UnaryKind::Sign, gate);
            let moved = net.binary(BinaryKind::Mul, Broadcast::Full, less, sign);
            after.set(gate, moved);
        }
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let [a, b, gate] = parts(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(x, a);
        let z = net.b.push1(MulRows, &[z, gate]);
        net.project_onto(base, z, b, scale(at.values))
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let [a, b, gate] = parts(at, net);
        let b = net.b.push1(MulRows, &[b, gate]);
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

    /// `A = diag(g) A`.
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
        let (mut a, gate) = (get(A)?, get(GATE)?);
        for (row, gate) in a.chunks_exact_mut(input.max(1)).zip(gate) {
            row.iter_mut().for_each(|x| *x *= gate);
        }
        Some(vec![
            ("lora_A.weight".to_owned(), vec![rank, input], a),
            ("lora_B.weight".to_owned(), vec![output, rank], get(B)?),
        ])
    }
}
