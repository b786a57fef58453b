//! Uni-LoRA: the factors of all sites are made of the numbers of one trained vector.

use serde_json::{Map, Value as Json, json};

use super::super::derive::spread::{Dealt, Spread};
use super::super::net::{Init, Param, Role};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN, as_declared};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{self, DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, Epilogue, MatMul};

/// One vector for all.
#[derive(Debug)]
pub struct UniLora;

const RANK: Given<u64> = Given::<u64>::new("rank", kind::WIDTH, (4, "4"), "rank r of the update");
const LENGTH: Given<u64> = Given::<u64>::new(
    "length",
    kind::int(1, 1 << 24),
    (256, "256"),
    "numbers of the trained vector; peft calls it `theta_d_length`",
);
const SEED: Given<u64> = Given::<u64>::new(
    "projection_seed",
    kind::SEED,
    (42, "42"),
    "seed of the order in which the numbers are dealt to the factors; peft calls it `proj_seed`",
);
const BOUND: Given<f64> = Given::<f64>::new(
    "bound",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.02, "0.02"),
    "the vector starts uniform in ± this",
);

static SCHEMA: Schema = Schema {
    name: "unilora",
    summary: "one trained vector whose numbers are dealt to LoRA's factors of all sites",
    doc: "y = x W0ᵀ + b + (dropout(x) Aᵀ) Bᵀ, where each element of all A [rank, in] and B [out, rank] is a number of one \
          trained vector θ [length], over the root of how many elements that number is. The numbers are dealt evenly, in an \
          order that `projection_seed` draws as peft does. θ is uniform in ±`bound` at first, so that the model starts a \
          little changed. Merges exactly into plain weights; peft's format holds θ and the seed.",
    paper: "Li et al. 2025 (arXiv 2506.00799)",
    keys: &[
        RANK.key(),
        LENGTH.key(),
        SEED.key(),
        BOUND.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const THETA: &str = "unilora_theta_d";

/// Elements of the factors of a site.
fn elements(site: &Site, rank: u64) -> u64 {
    rank.saturating_mul(site.input().saturating_add(site.output()))
}

/// How the vector is spread over the factors of all sites, and where those of this one begin.
fn dealt(at: &At<'_>, net: &Net<'_>) -> (Spread, u64) {
    let rank = RANK.get(at.values);
    let (mut total, mut first) = (0_u64, 0);
    for site in as_declared(at.placed(net)) {
        if site.path == at.site.path {
            first = total;
        }
        total = total.saturating_add(elements(site, rank));
    }
    let by = Spread {
        length: LENGTH.get(at.values),
        total,
        seed: SEED.get(at.values),
    };
    (by, first)
}

/// `A [r, in]` and `B [out, r]`.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank, length) = (at.site, RANK.get(at.values), LENGTH.get(at.values));
    let (by, first) = dealt(at, net);
    let theta = Param::shared(THETA).shape(&[length]);
    let theta = net.tensor(theta.start(Init::Uniform(BOUND.get(at.values))));
    let dealt_as = |part| Init::Spread { by, part };
    let factors = Param::shared("unilora_factors").shape(&[length]).frozen();
    let factors = net.tensor(factors.start(dealt_as(Dealt::Factors)).unsaved());
    let numbers = net.binary(BinaryKind::Mul, Broadcast::Full, theta, factors);
    let numbers = net.reshaped(numbers, length, 1);
    let mut factor = |name: &str, first, rows: u64, width: u64| {
        let places = Param::at(site, name).shape(&[rows * width]).of_places();
        let places = places.start(dealt_as(Dealt::Indices(first))).unsaved();
        let places = net.places(places);
        let own = net.gather(numbers, places);
        net.reshaped(own, rows, width)
    };
    let a = factor("unilora_indices_A", first, rank, site.input());
    let first = first + rank * site.input();
    (a, factor("unilora_indices_B", first, site.output(), rank))
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("init_theta_d_bound", WithoutEffect(BEGAN)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("proj_seed", Used),
    ("r", Used),
    ("save_indices", Only(&["false"])),
    ("theta_d_length", Used),
    ("unilora_dropout", Used),
];

impl Method for UniLora {
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

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        lora::check_rank(values, &RANK, site).or_else(|| {
            let (length, own) = (LENGTH.get(values), elements(site, RANK.get(values)));
            (length > own).then(|| Complaint {
                key: LENGTH.name(),
                code: &BAD_METHOD_VALUES,
                message: format!(
                    "`length` is {length}, and the factors of `{}` have {own} elements",
                    site.path
                ),
                help: Some(format!("write at most `length = {own}`")),
            })
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (a, b) = factors(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let z = net.project(x, a);
        net.project_onto(base, z, b, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (a, b) = factors(at, net);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[b, a, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_theta_d_bound", json!(BOUND.get(values))),
            ("init_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("proj_seed", json!(SEED.get(values))),
            ("r", json!(RANK.get(values))),
            ("save_indices", json!(false)),
            ("theta_d_length", json!(LENGTH.get(values))),
            ("unilora_dropout", json!(DROPOUT.get(values))),
        ];
        Some(PeftForm {
            kind: "UNILORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "UNILORA").then_some(PEFT_KEYS)
    }

    /// No module has tensors of its own, so that the config alone says where it is.
    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, length) = (
            config.positive("r", 4)?,
            config.positive("theta_d_length", 256)?,
        );
        let dropout = config.rate("unilora_dropout")?;
        let seed = config.whole("proj_seed", 42)?;
        file.take(THETA, THETA.to_owned(), &[length])?;
        file.idle(THETA, 0.0);
        let maps = file.parts().sites.iter().filter(|s| s.is_linear());
        let mut seen = false;
        for site in maps {
            match config.places(file.theirs(&site.path)) {
                Some(false) => continue,
                Some(true) if site.role.is_head() || site.role.is_lm() => {
                    // All linear maps are those but the output.
                    if config.is_all_linear() && site.role != Role::HeadDense {
                        continue;
                    }
                    return Err(Misfit::not_built(format!(
                        "Uni-LoRA on the head's `{}`",
                        site.path
                    )));
                }
                Some(true) => {}
                None => {
                    let what = "`target_modules` has to say which modules a Uni-LoRA is on, by names or a plain pattern";
                    return Err(Misfit::of_config(what));
                }
            }
            seen = true;
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (LENGTH.name(), Checked::Int(length)),
                (SEED.name(), Checked::Int(seed)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&UniLora, site, values);
        }
        match seen {
            true => Ok(()),
            false => Err(Misfit::of_config(
                "`target_modules` names no linear map of this model",
            )),
        }
    }

    fn peft_tensors(&self, _: &Values, _: &Site, _: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        Some(Vec::new())
    }

    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![LENGTH.get(values) as usize];
        Some(vec![(THETA.to_owned(), shape, get(THETA)?)])
    }
}
