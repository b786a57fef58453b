//! PVeRA: VeRA whose inner vector is drawn from a learned normal distribution in training.

use serde_json::{Map, Value as Json};

use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::Given;
use super::super::schema::kind;
use super::lora::{DROPOUT, MODULES_TO_SAVE, ON};
use super::vera::{D_INITIAL, Family, RANK, added, keys_of, parts, read, shared_of, vectors_of};
use super::{At, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values};
use crate::program::op::{MulRows, UnaryKind};

/// Trained vectors between frozen random matrices, with a mean and a variance.
#[derive(Debug)]
pub struct Pvera;

const FAMILY: Family = Family {
    method: &Pvera,
    shared: ["pvera_A", "pvera_B"],
    vectors: ["pvera_lambda_d", "pvera_lambda_b"],
    halves: 2,
    dropout: "pvera_dropout",
};

const SAMPLE: Given<bool> = Given::<bool>::tacit(
    "sample",
    kind::BOOL,
    (true, "true"),
    "whether a training draws the inner vector; with `false` it is the mean there too",
);

static SCHEMA: Schema = Schema {
    name: "pvera",
    summary: "probabilistic VeRA: trained vectors around shared random matrices, and an inner vector that is drawn in training",
    doc: "y = x W0ᵀ + b + λ_b ⊙ (z Bᵀ), where (μ, ν) = λ_d ⊙ (dropout(x) Aᵀ) and z = μ + ε ⊙ exp(ν / 2) in training, with ε \
          standard normal, and z = μ elsewhere. A [2·rank, in] and B [out, rank] are drawn once, uniform in ±1/√in and \
          ±1/√rank for the widest site, stay frozen, and serve all sites. Each site trains λ_d [2·rank], which starts at \
          `d_initial`, and λ_b [out], which starts at 0, so the model starts unchanged. The mean merges exactly into plain \
          weights; written in peft's format, A and B included.",
    paper: "peft's PVeRA (arXiv 2512.07703)",
    keys: &[
        RANK.key(),
        D_INITIAL.key(),
        SAMPLE.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// The keys of peft's `PveraConfig`.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("d_initial", WithoutEffect(BEGAN)),
    (
        "generator_seed",
        WithoutEffect("draws are a function of the stage's `seed`"),
    ),
    ("init_weights", WithoutEffect(BEGAN)),
    ("projection_prng_key", Used),
    ("pvera_dropout", Used),
    ("r", Used),
    ("sample_at_inference", Only(&["false"])),
    ("save_projection", Used),
];

impl Method for Pvera {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let p = parts(at, net, &FAMILY);
        let x = net.dropout_before(x, DROPOUT.get(at.values), p.d);
        let z = net.times((x, false), (p.a, false));
        let z = net.b.push1(MulRows, &[z, p.d]);
        let rank = RANK.get(at.values);
        let mut drawn = net.columns(z, 0, rank);
        if net.is_training() && SAMPLE.get(at.values) {
            let half = net.columns(z, rank, 2 * rank);
            let half = net.scaled(half, 0.5);
            let deviation = net.unary(UnaryKind::Exp, half);
            let noise = net.noise(deviation, &at.site.path);
            drawn = net.add(drawn, noise);
        }
        let y = net.project(drawn, p.b);
        let y = net.b.push1(MulRows, &[y, p.out]);
        net.add(base, y)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net, &FAMILY);
        let scaled = net.b.push1(MulRows, &[p.a, p.d]);
        let mean = net.columns(scaled, 0, RANK.get(at.values));
        Some(added(net, weight, (p.b, mean), p.out))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let mut keys = keys_of(values, &FAMILY);
        keys.push(("generator_seed", Json::Null));
        keys.push(("sample_at_inference", false.into()));
        Some(PeftForm {
            kind: "PVERA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "PVERA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        read(file, &FAMILY)
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        vectors_of((values, site), &FAMILY, get)
    }

    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        shared_of(values, &FAMILY, get)
    }
}
