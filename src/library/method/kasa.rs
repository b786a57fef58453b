//! KaSA: LoRA with trained singular values between its factors, on a weight without its smallest singular triplets.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, Truncated};
use super::super::net::{Init, Param};
use super::super::peft::{Keys, Misfit, Place, Reading};
use super::super::schema::{Bound, Checked, Given, kind};
use super::adalora::distance;
use super::lora::{self, ALPHA, DROPOUT, MODULES_TO_SAVE, ON, RANK, RS_LORA};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values, lora_import, number,
};
use crate::library::error::RANK_TOO_LARGE;
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul, MulRows, Over, ReduceKind};

/// Knowledge-aware singular-value adaptation.
#[derive(Debug)]
pub struct Kasa;

pub(super) const BETA: Given<f64> = Given::<f64>::new(
    "beta",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1e-4, "1e-4"),
    "weight in the loss of the squared singular values",
);
pub(super) const GAMMA: Given<f64> = Given::<f64>::new(
    "gamma",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1e-3, "1e-3"),
    "weight in the loss of the distances of BᵀB and AAᵀ from the identity",
);

static SCHEMA: Schema = Schema {
    name: "kasa",
    summary: "knowledge-aware singular-value adaptation: LoRA with trained singular values, in place of the weight's smallest ones",
    doc: "y = x W'ᵀ + b + s · ((dropout(x) Aᵀ) ⊙ d) Bᵀ, where W' is W0 without its `rank` smallest singular triplets, so that the \
          model starts a little changed. d [rank] is normal at first, A as LoRA's and B zero. s = alpha / rank, or alpha / √rank \
          with `rs_lora`. The loss has beta · ‖d‖² + gamma · (‖BᵀB − I‖ + ‖AAᵀ − I‖) of every map in it. Merges exactly into plain \
          weights and is written in peft's format, which takes the triplets out again.",
    paper: "Wang et al. 2025 (arXiv 2412.06071)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        RS_LORA.key(),
        BETA.key(),
        GAMMA.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";
const DIAGONAL: &str = "lora_diag";

/// `A [r, in]`, `B [out, r]`, `d [r]`.
fn triplets(site: &Site, values: &Values, net: &mut Net<'_>) -> [Value; 3] {
    let rank = RANK.get(values);
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, A).shape(&[rank, site.input()]);
    let b = Param::at(site, B).shape(&[site.output(), rank]);
    let d = Param::at(site, DIAGONAL).shape(&[rank]);
    [
        net.tensor(a.start(Init::Uniform(bound))),
        net.tensor(b),
        net.tensor(d.start(Init::Normal(1.0))),
    ]
}

/// The weight `[out, in]` without its smallest triplets.
fn rest(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let site = at.site;
    let shape = [site.output(), site.input()];
    let weight = BaseParam::weight(&site.path, shape);
    let name = weight.name.clone();
    let dropped = RANK.get(at.values);
    let by = Truncated { weight, dropped }.into();
    let rest = Param::at(site, "kasa_W").shape(&shape);
    let rest = rest.start(Init::Derived { by, part: 0 });
    net.tensor(rest.frozen().replacing(name).unsaved())
}

impl Method for Kasa {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (rank, all) = (RANK.get(values), site.input().min(site.output()));
        (rank >= all).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`rank` is {rank}, and `{}` has {all} singular triplets, of which one has to stay",
                site.path
            ),
            help: Some(format!("write at most `rank = {}`", all - 1)),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Base
    }

    fn steps(&self, values: &Values) -> bool {
        BETA.get(values) + GAMMA.get(values) > 0.0
    }

    fn penalty(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Option<Value> {
        let (beta, gamma) = (BETA.get(values), GAMMA.get(values));
        let mut sum = None;
        for site in sites {
            let [a, b, d] = triplets(site, values, net);
            let squares = net.reduce(ReduceKind::SumOfSquares, Over::All, d);
            let mut terms = vec![net.scaled(squares, beta)];
            let (rows, columns) = (
                net.times((a, false), (a, true)),
                net.times((b, true), (b, false)),
            );
            for gram in [rows, columns] {
                let own = distance(net, gram, RANK.get(values));
                terms.push(net.scaled(own, gamma));
            }
            for term in terms {
                sum = Some(sum.map_or(term, |sum| net.add(sum, term)));
            }
        }
        sum
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let rest = rest(at, net);
        let base = net.affine(at.site, x, rest);
        let [a, b, d] = triplets(at.site, at.values, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(x, a);
        let z = net.b.push1(MulRows, &[z, d]);
        net.project_onto(base, z, b, lora::scale(at.values))
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let rest = rest(at, net);
        let [a, b, d] = triplets(at.site, at.values, net);
        let b = net.b.push1(MulRows, &[b, d]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(lora::scale(at.values)))
        };
        Some(net.b.push1(op, &[b, a, rest]))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let product = Product {
            rank: RANK.get(values),
            scale: lora::scale(values),
            dropout: DROPOUT.get(values),
            rs_lora: RS_LORA.get(values),
        };
        let mut form = PeftForm::lora(product, false);
        let (beta, gamma) = (number(BETA.get(values)), number(GAMMA.get(values)));
        let own = json!({ "beta": beta, "gamma": gamma });
        form.keys.push((lora_import::KASA, own));
        Some(form)
    }

    fn peft_keys(&self, kind: &str, config: &Map<String, Json>) -> Option<Keys> {
        (kind == "LORA" && lora_import::is_kasa(config)).then_some(lora_import::KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let more = |file: &mut Reading<'_>, place: &Place<'_>, rank: u64| {
            let diagonal = place.name(DIAGONAL);
            file.take(&diagonal, place.own(DIAGONAL), &[rank])?;
            let found = file.config().get(lora_import::KASA);
            if let Some(other) = found.filter(|own| !own.is_object()) {
                let what =
                    format!("`kasa_config` must be a map of `beta` and `gamma`, not {other}");
                return Err(Misfit::of_config(what));
            }
            let own = file
                .config()
                .get(lora_import::KASA)
                .and_then(Json::as_object);
            let weight = |key: &Given<f64>, least: f64| {
                let found = own.and_then(|own| own.get(key.name()));
                let given = found.map_or(Some(least), Json::as_f64);
                let given = given.filter(|x| x.is_finite() && *x >= 0.0);
                let wrong = || {
                    let key = key.name();
                    Misfit::of_config(format!(
                        "`{key}` of `kasa_config` must be a number of at least 0"
                    ))
                };
                Ok((key.name(), Checked::Float(given.ok_or_else(wrong)?)))
            };
            Ok(vec![weight(&BETA, 1e-4)?, weight(&GAMMA, 1e-3)?])
        };
        lora_import::read(file, &Kasa, (&[DIAGONAL], more))
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let [rank, input, output] =
            [RANK.get(values), site.input(), site.output()].map(|n| n as usize);
        Some(vec![
            (A.to_owned(), vec![rank, input], get(A)?),
            (B.to_owned(), vec![output, rank], get(B)?),
            (DIAGONAL.to_owned(), vec![rank], get(DIAGONAL)?),
        ])
    }
}
