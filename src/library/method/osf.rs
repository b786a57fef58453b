//! Orthogonal subspace fine-tuning: the smaller singular triplets of each matrix are trained, off the span of the others.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, Derivation, Halves};
use super::super::net::{Init, Param};
use super::super::peft::Fate::WithoutEffect;
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Maybe, kind};
use super::lora::ON;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::RANK_TOO_LARGE;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, Epilogue, MatMul, MulRows};

/// Trained triplets beside those that stay.
#[derive(Debug)]
pub struct Osf;

const KEEP: Maybe<u64> = Maybe::new(
    "keep",
    kind::COUNT,
    "number of the largest singular triplets that stay as they are; half of all if not written",
);

/// The trained tensors, as peft has them.
const LOW: [&str; 3] = [
    "osf_svd_params.U_low",
    "osf_svd_params.S_low",
    "osf_svd_params.V_low",
];
/// The frozen ones.
const HIGH: [&str; 2] = ["osf_U_high", "osf_V_high"];

static SCHEMA: Schema = Schema {
    name: "osf",
    summary: "orthogonal subspace fine-tuning: the smaller singular triplets of each matrix are trained, the largest stay",
    doc: "W0 = U Σ V is decomposed once. The `keep` largest triplets are frozen, all others are trained: \
          y = x Whᵀ + ((x Vᵀ) ⊙ σ) Uᵀ + b, where Wh = Uh Σh Vh takes W0's place in memory. Gradients of U and V are projected off the span of Uh and Vh before the \
          optimizer reads them, so that what the model has learned along the largest triplets is kept. Adapters keep both halves; 16 bytes a \
          trained number, n (out + in + 1) of n triplets. The model starts unchanged but for rounding. Merges exactly. In peft it is OSF.",
    paper: "Nayak et al. 2025, \"Sculpting Subspaces\" (arXiv 2504.07097)",
    keys: &[KEEP.key(), ON.key()],
};

/// Triplets of a site that stay, and that are trained.
fn counts(values: &Values, site: &Site) -> (u64, u64) {
    let all = site.input().min(site.output());
    let high = KEEP.get(values).unwrap_or(all / 2).min(all);
    (high, all - high)
}

fn derivation(at: &At<'_>) -> Derivation {
    Derivation::from(Halves {
        weight: BaseParam::weight(&at.site.path, [at.site.output(), at.site.input()]),
        high: counts(at.values, at.site).0,
    })
}

/// The product of the half that stays, in the weight's place.
fn product(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let (by, part) = (derivation(at), Halves::PRODUCT);
    let name = by.rule().source().name.clone();
    let product = Param::at(at.site, "osf_W").shape(&[at.site.output(), at.site.input()]);
    let product = product.start(Init::Derived { by, part });
    net.tensor(product.frozen().replacing(name).unsaved())
}

/// A tensor of the decomposition.
fn part(at: &At<'_>, (name, part): (&str, usize), shape: &[u64]) -> Param {
    let by = derivation(at);
    let param = Param::at(at.site, name).shape(shape);
    param.start(Init::Derived { by, part })
}

/// `U` and `V` of the half that stays.
fn high(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let ([u, v], [first, second]) = (HIGH, Halves::HIGH);
    let (n, _) = counts(at.values, at.site);
    let u = part(at, (u, first), &[at.site.output(), n]).frozen();
    let v = part(at, (v, second), &[n, at.site.input()]).frozen();
    (net.tensor(u), net.tensor(v))
}

/// `U`, `S` and `V` of the half that is trained.
fn low(at: &At<'_>, net: &mut Net<'_>) -> [Value; 3] {
    let ([u, s, v], [first, second, third]) = (LOW, Halves::LOW);
    let (_, n) = counts(at.values, at.site);
    [
        net.tensor(part(at, (u, first), &[at.site.output(), n])),
        net.tensor(part(at, (s, second), &[n])),
        net.tensor(part(at, (v, third), &[n, at.site.input()])),
    ]
}

/// `x`, whose gradient is projected off the span of orthonormal columns `q`; of rows if `rows`.
fn projected(net: &mut Net<'_>, x: Value, q: Value, rows: bool) -> Value {
    if !net.is_training() {
        return x;
    }
    let along = if rows {
        let z = net.times((x, false), (q, true));
        net.times((z, false), (q, false))
    } else {
        let z = net.times((q, true), (x, false));
        net.times((q, false), (z, false))
    };
    let off = net.binary(BinaryKind::Sub, Broadcast::Full, x, along);
    let along = net.detach(along);
    net.add(off, along)
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    (
        "effective_rank",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("init_weights", WithoutEffect(BEGAN)),
    (
        "rank_pattern",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("target_svd_config", WithoutEffect("peft does not read it")),
];

impl Method for Osf {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (keep, all) = (KEEP.get(values)?, site.input().min(site.output()));
        (keep >= all).then(|| Complaint {
            key: KEEP.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`keep` is {keep}, but `{}` has {all} singular triplets, so that none is trained",
                site.path
            ),
            help: Some(format!("write less than `keep = {all}`, or leave it out")),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Base
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let product = product(at, net);
        let (u_high, v_high) = high(at, net);
        let [u, s, v] = low(at, net);
        let (u, v) = (
            projected(net, u, u_high, false),
            projected(net, v, v_high, true),
        );
        let base = net.affine(at.site, x, product);
        let z = net.project(x, v);
        let z = net.b.push1(MulRows, &[z, s]);
        net.project_onto(base, z, u, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let product = product(at, net);
        high(at, net);
        let [u, s, v] = low(at, net);
        let left = net.b.push1(MulRows, &[u, s]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[left, v, product]))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "OSF",
            keys: vec![
                ("effective_rank", json!(KEEP.get(values))),
                ("init_weights", json!(true)),
                ("rank_pattern", json!(null)),
                ("target_svd_config", json!(null)),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "OSF").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        for place in file.places()? {
            place.only(&LOW)?;
            let (input, output) = (place.site.input(), place.site.output());
            let all = input.min(output);
            let [_, values, _] = LOW.map(|name| place.name(name));
            let low = file.shape(&values).and_then(|s| s.first()).copied();
            let low = low.unwrap_or_default();
            if low == 0 || low >= all {
                return Err(Misfit::damaged(format!(
                    "`{values}` has {low} singular values, and the matrix has {all}, of which some are trained and some stay"
                )));
            }
            let shapes = [vec![output, low], vec![low], vec![low, input]];
            for (name, shape) in LOW.iter().zip(shapes) {
                file.take(&place.name(name), place.own(name), &shape)?;
            }
            let values = vec![(KEEP.name(), Checked::Int(all - low))];
            file.put(&Osf, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (_, low) = counts(values, site);
        let [low, output, input] = [low, site.output(), site.input()].map(|n| n as usize);
        let shapes = [vec![output, low], vec![low], vec![low, input]];
        let made = LOW.iter().zip(shapes);
        made.map(|(name, shape)| Some(((*name).to_owned(), shape, get(name)?)))
            .collect()
    }
}
