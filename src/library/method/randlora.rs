//! RandLoRA: `ΔW = s · Σᵢ Bᵢ diag(λᵢ) A diag(γᵢ)`, full-rank updates of random bases that all sites share.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    At, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
    first_rows, number,
};
use crate::library::counts::to_u32;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, Epilogue, Indices, MatMul};

/// Trained scales of random bases.
#[derive(Debug)]
pub struct RandLora;

const RANK: Given<u64> = Given::<u64>::new("rank", kind::WIDTH, (32, "32"), "rank r of each basis");
const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    (640.0, "640"),
    "scale: the update is multiplied by alpha / rank",
);

static SCHEMA: Schema = Schema {
    name: "randlora",
    summary: "full-rank adaptation of random bases: trained scales of frozen random matrices that all sites share",
    doc: "ΔW = s · Σ B_i diag(λ_i) A diag(γ_i) over n = ⌈min(in, out) / rank⌉ bases, so that the update can have the full rank. A \
          [rank, min] and the B_i [max, rank] are drawn once with a standard deviation of 1, stay frozen and serve all sites, \
          narrower ones by their first rows and columns; where a map has fewer outputs than inputs the product stands \
          transposed. Each site trains λ [rank · n], which starts at 0, so the model starts unchanged, and γ [n, min], which \
          starts at 1 / max(n, min). s = alpha / rank. Merges exactly into plain weights and is written in peft's format, A and \
          B included.",
    paper: "Albert et al. 2025 (arXiv 2502.00987)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "randlora_A";
const B: &str = "randlora_B";
const LAMBDA: &str = "randlora_lambda";
const GAMMA: &str = "randlora_gamma";

/// The smaller and the larger side of a map.
fn sides(site: &Site) -> (u64, u64) {
    let (input, output) = (site.input(), site.output());
    (input.min(output), input.max(output))
}

/// The sides that the shared matrices have for all sites: those of the largest input and output.
fn largest(at: &At<'_>, net: &Net<'_>) -> (u64, u64) {
    let placed = at.placed(net);
    let widest = |of: fn(&Site) -> u64| placed.iter().map(|s| of(s)).max().unwrap_or(1);
    let (input, output) = (widest(Site::input), widest(Site::output));
    (input.min(output), input.max(output))
}

/// The update's factors: `[r · n, min]`, scaled, and `[max, r · n]`.
fn bases(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank) = (at.site, RANK.get(at.values));
    let ((min, max), (most, widest)) = (sides(site), largest(at, net));
    let (count, all) = (min.div_ceil(rank), most.div_ceil(rank));
    // Uniform with a standard deviation of 1.
    let drawn = |name: &str, shape: &[u64]| {
        Param::shared(name)
            .shape(shape)
            .frozen()
            .start(Init::Uniform(3.0_f64.sqrt()))
    };
    let a = net.tensor(drawn(A, &[rank, most]));
    let b = net.tensor(drawn(B, &[widest, all * rank]));
    let lambda = net.tensor(Param::at(site, LAMBDA).shape(&[rank * count]));
    let gamma = Param::at(site, GAMMA).shape(&[count, min]);
    let even = Init::Constant(1.0 / count.max(min) as f64);
    let gamma = net.tensor(gamma.start(even));
    let a = if min < most {
        net.columns(a, 0, min)
    } else {
        a
    };
    let b = first_rows(net, b, (max, widest));
    let b = if count < all {
        net.columns(b, 0, count * rank)
    } else {
        b
    };
    let (rank, count) = (to_u32(rank), to_u32(count));
    let rows = (0..rank).flat_map(|k| std::iter::repeat_n(k, count as usize));
    let rows = Indices {
        list: rows.collect(),
    };
    let turns = Indices {
        list: (0..rank).flat_map(|_| 0..count).collect(),
    };
    let (rows, turns) = (net.b.push1(rows, &[]), net.b.push1(turns, &[]));
    let (a, gamma) = (net.gather(a, rows), net.gather(gamma, turns));
    let scaled = net.binary(BinaryKind::Mul, Broadcast::Full, gamma, a);
    let scaled = net.binary(BinaryKind::Mul, Broadcast::Column, scaled, lambda);
    (scaled, b)
}

fn scale(values: &Values) -> f64 {
    ALPHA.get(values) / RANK.get(values) as f64
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("init_weights", WithoutEffect(BEGAN)),
    (
        "projection_prng_key",
        WithoutEffect("of matrices that are in the file"),
    ),
    ("r", Used),
    ("randlora_alpha", Used),
    ("randlora_dropout", Used),
    ("save_projection", Only(&["true"])),
    ("sparse", WithoutEffect("of matrices that are in the file")),
    (
        "very_sparse",
        WithoutEffect("of matrices that are in the file"),
    ),
];

impl Method for RandLora {
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
        let (a, b) = bases(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let scale = scale(at.values);
        if at.site.input() <= at.site.output() {
            let z = net.project(x, a);
            return net.project_onto(base, z, b, scale);
        }
        let z = net
            .b
            .push1(MatMul::plain(false, false, Real::new(1.0)), &[x, b]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(scale))
        };
        net.b.push1(op, &[z, a, base])
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (a, b) = bases(at, net);
        let wide = at.site.input() <= at.site.output();
        let (left, right) = if wide { (b, a) } else { (a, b) };
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(!wide, !wide, Real::new(scale(at.values)))
        };
        Some(net.b.push1(op, &[left, right, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            // The matrices themselves are in the file.
            ("projection_prng_key", json!(0)),
            ("r", json!(RANK.get(values))),
            ("randlora_alpha", number(ALPHA.get(values))),
            ("randlora_dropout", json!(DROPOUT.get(values))),
            ("save_projection", json!(true)),
            ("sparse", json!(false)),
            ("very_sparse", json!(false)),
        ];
        Some(PeftForm {
            kind: "RANDLORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "RANDLORA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, dropout) = (config.positive("r", 32)?, config.rate("randlora_dropout")?);
        let alpha = config.number("randlora_alpha", 640.0)?;
        let side = |name: &str, at: usize| {
            let shape = file.shape(name);
            shape.and_then(|s| s.get(at).copied()).unwrap_or_default()
        };
        let (most, widest) = (side(A, 2), side(B, 0));
        let all = most.div_ceil(rank);
        let shared = [
            (A, [rank, 1, most], [rank, most]),
            (B, [widest, all, rank], [widest, all * rank]),
        ];
        for (name, theirs, own) in shared {
            file.check_shape(name, &theirs)?;
            file.make(Taken {
                own: name.to_owned(),
                shape: own.to_vec(),
                from: vec![name.to_owned()],
                make: Make::Same,
            })?;
        }
        for place in file.places()? {
            place.only(&[LAMBDA, GAMMA, A, B])?;
            let (min, _) = sides(place.site);
            let count = min.div_ceil(rank);
            let lambda = place.name(LAMBDA);
            file.check_shape(&lambda, &[rank, count])?;
            file.idle(&lambda, 0.0);
            file.make(Taken {
                own: place.own(LAMBDA),
                shape: vec![rank * count],
                from: vec![lambda],
                make: Make::Same,
            })?;
            file.take(&place.name(GAMMA), place.own(GAMMA), &[count, min])?;
            // peft writes the shared matrices once more for each module.
            for name in [A, B].map(|name| place.name(name)) {
                if file.shape(&name).is_some() {
                    file.read(&name)?;
                }
            }
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (ALPHA.name(), Checked::Float(alpha)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&RandLora, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let rank = RANK.get(values);
        let (min, _) = sides(site);
        let count = min.div_ceil(rank) as usize;
        let (rank, min) = (rank as usize, min as usize);
        Some(vec![
            (LAMBDA.to_owned(), vec![rank, count], get(LAMBDA)?),
            (GAMMA.to_owned(), vec![count, min], get(GAMMA)?),
        ])
    }

    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let rank = RANK.get(values) as usize;
        let (a, b) = (get(A)?, get(B)?);
        let most = a.len() / rank.max(1);
        let count = most.div_ceil(rank.max(1));
        let widest = b.len() / (count * rank).max(1);
        Some(vec![
            (A.to_owned(), vec![rank, 1, most], a),
            (B.to_owned(), vec![widest, count, rank], b),
        ])
    }
}
