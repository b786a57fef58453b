//! LoHa: `ΔW = s · (W₁ₐ W₁ᵦ) ⊙ (W₂ₐ W₂ᵦ)`, a Hadamard product of two products of rank `r`.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::Checked;
use super::lora::{self, ALPHA, MODULES_TO_SAVE, ON, RANK};
use super::weight_drop::{MODULE_DROPOUT, RANK_DROPOUT, drop_update};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, columns, number,
};
use crate::library::counts::to_u32;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, Indices, MatMul};

/// A Hadamard product of two low-rank products.
#[derive(Debug)]
pub struct Loha;

static SCHEMA: Schema = Schema {
    name: "loha",
    summary: "low-rank Hadamard product: two low-rank products multiplied element by element, of rank up to rank² together",
    doc: "y = x W0ᵀ + b + s · x ((W1a W1b) ⊙ (W2a W2b))ᵀ with W1a and W2a [out, rank] and W1b and W2b [rank, in], s = alpha / \
          rank. All are uniform as He et al. have it but W2b, which is zero, so the model starts unchanged. Where rank² is \
          small the update is computed as a product of rank rank², without a matrix of the weight's size. Merges exactly \
          into plain weights and is written in peft's format.",
    paper: "Hyeon-Woo et al. 2022 (arXiv 2108.06098); LyCORIS: Yeh et al. 2024 (arXiv 2309.14859)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        lora::RANKS.key(),
        lora::ALPHAS.key(),
        RANK_DROPOUT.key(),
        MODULE_DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// The factors: those on the left transposed `[rank, out]`, those on the right `[rank, in]`.
struct Factors {
    left: [Value; 2],
    right: [Value; 2],
}

const LEFT: [&str; 2] = ["hada_w1_a", "hada_w2_a"];
const RIGHT: [&str; 2] = ["hada_w1_b", "hada_w2_b"];

fn factors(at: &At<'_>, net: &mut Net<'_>) -> Factors {
    let (site, rank) = (at.site, RANK.get(at.values));
    // As `kaiming_uniform` draws matrices `[out, rank]` and `[rank, in]`.
    let bound = |width: u64| Init::Uniform(1.0 / (width as f64).sqrt());
    let left = |suffix| {
        Param::at(site, suffix)
            .shape(&[rank, site.output()])
            .start(bound(rank))
    };
    let right = |suffix| Param::at(site, suffix).shape(&[rank, site.input()]);
    let [w1a, w2a] = LEFT.map(|suffix| net.tensor(left(suffix)));
    let [w1b, w2b] = RIGHT;
    let w1b = net.tensor(right(w1b).start(bound(site.input())));
    let w2b = net.tensor(right(w2b));
    Factors {
        left: [w1a, w2a],
        right: [w1b, w2b],
    }
}

/// Whether the update is computed as a product of rank `rank²`.
fn in_pairs(at: &At<'_>) -> bool {
    let (site, rank) = (at.site, RANK.get(at.values));
    let pairs = rank.saturating_mul(rank);
    pairs.saturating_mul(site.input() + site.output()) <= site.input() * site.output()
}

/// Each row of one matrix times each row of the other: `[rank², n]`.
fn pairs(net: &mut Net<'_>, [one, other]: [Value; 2], rank: u64) -> Value {
    let rank = to_u32(rank);
    let outer = (0..rank).flat_map(|i| std::iter::repeat_n(i, rank as usize));
    let outer = Indices {
        list: outer.collect(),
    };
    let inner = Indices {
        list: (0..rank).flat_map(|_| 0..rank).collect(),
    };
    let (outer, inner) = (net.b.push1(outer, &[]), net.b.push1(inner, &[]));
    let (one, other) = (net.gather(one, outer), net.gather(other, inner));
    net.binary(BinaryKind::Mul, Broadcast::Full, one, other)
}

/// `s · (W₁ₐ W₁ᵦ) ⊙ (W₂ₐ W₂ᵦ)`
fn delta(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let Factors { left, right } = factors(at, net);
    let [one, other] = [0, 1].map(|i| {
        let scale = if i == 0 { lora::scale(at.values) } else { 1.0 };
        let op = MatMul::plain(true, false, Real::new(scale));
        net.b.push1(op, &[left[i], right[i]])
    });
    net.binary(BinaryKind::Mul, Broadcast::Full, one, other)
}

const PEFT_KEYS: Keys = &[
    ("alpha", Used),
    ("alpha_pattern", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("module_dropout", Used),
    ("r", Used),
    ("rank_dropout", Used),
    // Scales what is left in a training.
    ("rank_dropout_scale", Only(&["false"])),
    ("rank_pattern", Used),
    ("use_effective_conv2d", WithoutEffect("of convolutions")),
];

impl Method for Loha {
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
        let update = if in_pairs(at) {
            let rank = RANK.get(at.values);
            let Factors { left, right } = factors(at, net);
            let right = pairs(net, right, rank);
            let left = pairs(net, left, rank);
            let z = net.project(x, right);
            let op = MatMul::plain(false, false, Real::new(lora::scale(at.values)));
            net.b.push1(op, &[z, left])
        } else {
            let delta = delta(at, net);
            net.project(x, delta)
        };
        let update = drop_update(at, net, update);
        net.add(base, update)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let delta = delta(at, net);
        Some(net.add(weight, delta))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("alpha", number(ALPHA.get(values))),
            ("alpha_pattern", json!({})),
            ("init_weights", json!(true)),
            ("module_dropout", json!(MODULE_DROPOUT.get(values))),
            ("r", json!(RANK.get(values))),
            ("rank_dropout", json!(RANK_DROPOUT.get(values))),
            ("rank_pattern", json!({})),
            ("use_effective_conv2d", json!(false)),
        ];
        Some(PeftForm {
            kind: "LOHA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "LOHA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, alpha) = (config.positive("r", 8)?, config.number("alpha", 8.0)?);
        let ranks = config.patterns("rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?;
        let alphas = config.patterns("alpha_pattern", |v| v.as_f64().filter(|&a| a > 0.0))?;
        let (rows, whole) = (config.rate("rank_dropout")?, config.rate("module_dropout")?);
        for place in file.places()? {
            place.only(&[LEFT, RIGHT].concat())?;
            let rank = ranks.of(&place.module).unwrap_or(rank);
            let alpha = alphas.of(&place.module).unwrap_or(alpha);
            let site = place.site;
            for (left, right) in LEFT.into_iter().zip(RIGHT) {
                file.take_turned(&place.name(left), place.own(left), [rank, site.output()])?;
                file.take(&place.name(right), place.own(right), &[rank, site.input()])?;
            }
            file.idle(&place.name(RIGHT[1]), 0.0);
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (ALPHA.name(), Checked::Float(alpha)),
                (RANK_DROPOUT.name(), Checked::Float(rows)),
                (MODULE_DROPOUT.name(), Checked::Float(whole)),
            ];
            file.put(&Loha, site, values);
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
        let mut tensors = Vec::new();
        for (left, right) in LEFT.into_iter().zip(RIGHT) {
            let turned = columns(&get(left)?, output);
            tensors.push((left.to_owned(), vec![output, rank], turned));
            tensors.push((right.to_owned(), vec![rank, input], get(right)?));
        }
        Some(tensors)
    }
}
