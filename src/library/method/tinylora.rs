//! TinyLoRA: between singular vectors of a weight stands a mixture of random matrices, of which the weights are trained.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, Basis, Split};
use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken, as_declared};
use super::super::schema::{Bound, Checked, Given, kind};
use super::super::torch::Generator;
use super::lora::{self, DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{Epilogue, MatMul};

/// A tiny vector between singular vectors.
#[derive(Debug)]
pub struct TinyLora;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (2, "2"),
    "singular triplets r of the weight that are kept around the mixture",
);
const NUMBERS: Given<u64> = Given::<u64>::new(
    "numbers",
    kind::int(1, 1 << 24),
    (64, "64"),
    "trained numbers u of a map, or of the maps that share them; peft calls it `u`",
);
const TYING: Given<f64> = Given::<f64>::new(
    "weight_tying",
    kind::float(Bound::Incl(0.0), Bound::Incl(1.0)),
    (0.0, "0"),
    "how far maps share their numbers: with 0 each has its own, with 1 all have the same",
);
const BOUND: Given<f64> = Given::<f64>::new(
    "bound",
    kind::float(Bound::Incl(0.0), Bound::None),
    (0.0, "0"),
    "the numbers start uniform in ± this; 0 starts the model unchanged (peft's `uniform` start is 0.02)",
);

static SCHEMA: Schema = Schema {
    name: "tinylora",
    summary: "a few trained numbers a map, which mix random matrices between singular vectors of the weight",
    doc: "y = x W0ᵀ + b + ((dropout(x) Aᵀ) Rᵀ) Bᵀ with R = Σ v_i P_i. A [rank, in] = √S V and B [out, rank] = U √S are of the \
          weight's first singular triplets, the P_i [rank, rank] are normal with standard deviation 1/√rank, and all of them are \
          frozen. v [numbers] is trained; with `weight_tying` neighbouring maps share one. Merges exactly into plain weights \
          and is written in peft's format, A, B and P included.",
    paper: "Learning to Reason in 13 Parameters (arXiv 2602.04118)",
    keys: &[
        RANK.key(),
        NUMBERS.key(),
        TYING.key(),
        BOUND.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "tinylora_A";
const B: &str = "tinylora_B";
const P: &str = "tinylora_P";

/// The name of the vector of a group of maps.
fn vector(group: u64) -> String {
    format!("tinylora_v.{group}")
}

/// Which vector the map with this number among so many has.
fn group(number: u64, maps: u64, tying: f64) -> u64 {
    let groups = ((maps as f64) * (1.0 - tying)).round_ties_even().max(1.0) as u64;
    let size = (maps / groups).max(1);
    (number / size).min(groups - 1)
}

/// The number of the map at a site among those of the method, and how many they are.
fn numbered(site: &Site, sites: Vec<&Site>) -> (u64, u64) {
    let sites = as_declared(sites);
    let number = sites.iter().position(|s| s.path == site.path);
    (number.unwrap_or_default() as u64, sites.len() as u64)
}

/// `A [r, in]`, `R [r, r]`, `B [out, r]`.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> [Value; 3] {
    let (site, rank, numbers) = (at.site, RANK.get(at.values), NUMBERS.get(at.values));
    let by = Split {
        weight: BaseParam::weight(&site.path, [site.output(), site.input()]),
        rank,
        scale: Real::new(1.0),
        basis: Basis::Singular,
    };
    let frozen = |suffix, shape: &[u64], part| {
        let by = by.clone().into();
        let param = Param::at(site, suffix).shape(shape).frozen();
        param.start(Init::Derived { by, part })
    };
    let a = net.tensor(frozen(A, &[rank, site.input()], Split::A));
    let b = net.tensor(frozen(B, &[site.output(), rank], Split::B));
    let p = Param::at(site, P).shape(&[numbers, rank * rank]).frozen();
    let p = net.tensor(p.start(Init::Normal(1.0 / (rank as f64).sqrt())));
    let (number, maps) = numbered(site, at.placed(net));
    let group = group(number, maps, TYING.get(at.values));
    let v = Param::shared(vector(group)).shape(&[numbers]);
    let bound = BOUND.get(at.values);
    let v = match bound > 0.0 {
        true => v.start(Init::Uniform(bound)),
        false => v,
    };
    let v = net.tensor(v);
    let v = net.reshaped(v, 1, numbers);
    let r = net.times((v, false), (p, false));
    [a, net.reshaped(r, rank, rank), b]
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("init_v_bound", WithoutEffect(BEGAN)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("projection_seed", Used),
    ("r", Used),
    ("save_projection", Used),
    ("tinylora_dropout", Used),
    ("u", Used),
    ("weight_tying", Used),
];

impl Method for TinyLora {
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
            let numbers = NUMBERS
                .get(values)
                .checked_mul(RANK.get(values).checked_pow(2)?);
            numbers.is_none().then(|| Complaint {
                key: NUMBERS.name(),
                code: &BAD_METHOD_VALUES,
                message: "`numbers` times the square of `rank` is no number of a machine"
                    .to_owned(),
                help: Some("write smaller ones".to_owned()),
            })
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let [a, r, b] = factors(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), r);
        let z = net.project(x, a);
        let z = net.project(z, r);
        net.project_onto(base, z, b, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let [a, r, b] = factors(at, net);
        let inner = net.times((r, false), (a, false));
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[b, inner, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_v_bound", json!(0.02)),
            ("init_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            // The matrices themselves are in the file.
            ("projection_seed", json!(42)),
            ("r", json!(RANK.get(values))),
            ("save_projection", json!(true)),
            ("tinylora_dropout", json!(DROPOUT.get(values))),
            ("u", json!(NUMBERS.get(values))),
            ("weight_tying", json!(TYING.get(values))),
        ];
        Some(PeftForm {
            kind: "TINYLORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "TINYLORA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, numbers) = (config.positive("r", 2)?, config.positive("u", 64)?);
        let dropout = config.rate("tinylora_dropout")?;
        let tying = config.number("weight_tying", 0.0)?;
        if !(0.0..=1.0).contains(&tying) {
            let what = format!("`weight_tying` must be between 0 and 1, not {tying}");
            return Err(Misfit::of_config(what));
        }
        let (seed, saved) = (
            config.whole("projection_seed", 42)?,
            config.flag("save_projection", true)?,
        );
        // The vectors are in no module.
        let prefix = vector(0);
        let prefix = prefix.trim_end_matches('0');
        for name in file.unread() {
            let number = name.strip_prefix(prefix);
            if let Some(number) = number.and_then(|n| n.parse().ok()) {
                file.take(&name, vector(number), &[numbers])?;
                file.idle(&name, 0.0);
            }
        }
        let places = file.places()?;
        let sites: Vec<&Site> = places.iter().map(|p| p.site).collect();
        for place in &places {
            place.only(&[A, B, P])?;
            let site = place.site;
            if rank > site.input().min(site.output()) {
                let what = format!("a rank of more than `{}` has", place.module);
                return Err(Misfit::not_built(what));
            }
            let (number, maps) = numbered(site, sites.clone());
            let own = vector(group(number, maps, tying));
            if !file.taken().contains(&own) {
                return Err(Misfit::damaged(format!("the adapter has no `{own}`")));
            }
            file.take(&place.name(A), place.own(A), &[rank, site.input()])?;
            file.take(&place.name(B), place.own(B), &[site.output(), rank])?;
            let (p, count) = (place.name(P), numbers.saturating_mul(rank * rank));
            let (from, make) = if file.shape(&p).is_some() {
                file.check_shape(&p, &[numbers, rank, rank])?;
                (vec![p], Make::Same)
            } else if saved {
                return Err(Misfit::damaged(format!("the adapter has no `{p}`")));
            } else {
                let std = 1.0 / (rank as f64).sqrt();
                let draw = move |_: &[(Vec<usize>, Vec<f32>)]| {
                    let mut generator = Generator::new(seed.wrapping_add(number));
                    Ok(generator.normal(count as usize, 0.0, std))
                };
                (Vec::new(), Make::by(draw))
            };
            file.make(Taken {
                own: place.own(P),
                shape: vec![numbers, rank * rank],
                from,
                make,
            })?;
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (NUMBERS.name(), Checked::Int(numbers)),
                (TYING.name(), Checked::Float(tying)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&TinyLora, site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let [rank, numbers] = [&RANK, &NUMBERS].map(|key| key.get(values) as usize);
        let (input, output) = (site.input() as usize, site.output() as usize);
        Some(vec![
            (A.to_owned(), vec![rank, input], get(A)?),
            (B.to_owned(), vec![output, rank], get(B)?),
            (P.to_owned(), vec![numbers, rank, rank], get(P)?),
        ])
    }

    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![NUMBERS.get(values) as usize];
        let named = (0..).map(vector);
        let own = named.map_while(|name| Some((name.clone(), shape.clone(), get(&name)?)));
        Some(own.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_share_vectors_as_in_peft() {
        let all = |maps, tying| -> Vec<u64> { (0..maps).map(|i| group(i, maps, tying)).collect() };
        assert_eq!(all(4, 0.0), [0, 1, 2, 3]);
        assert_eq!(all(4, 1.0), [0, 0, 0, 0]);
        assert_eq!(all(5, 0.5), [0, 0, 1, 1, 1]);
        assert_eq!(all(6, 0.3), [0, 1, 2, 3, 3, 3]);
    }
}
