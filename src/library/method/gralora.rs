//! GraLoRA: a weight cut into `k · k` blocks, each with a low-rank update of its own.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{DROPOUT, MODULES_TO_SAVE, ON, check_rank};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, number,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{Arrange, BlockProduct, Blocks, Epilogue, Indices, MatMul, Scatter};

/// Low-rank blocks.
#[derive(Debug)]
pub struct Gralora;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (32, "32"),
    "rank r of the update; each block has a k-th of it",
);
const ALPHA: Given<f64> = Given::<f64>::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    (64.0, "64"),
    "scale: the update is multiplied by alpha / (rank + hybrid_rank)",
);
const K: Given<u64> = Given::<u64>::new(
    "k",
    kind::int(1, 1 << 16),
    (2, "2"),
    "into how many parts each side of the weight is cut",
);
const HYBRID: Given<u64> = Given::<u64>::new(
    "hybrid_rank",
    kind::int(0, kind::WIDEST),
    (0, "0"),
    "rank of a LoRA of the whole weight beside it",
);

static SCHEMA: Schema = Schema {
    name: "gralora",
    summary: "granular low-rank adaptation: a low-rank update for each of k by k blocks of a weight",
    doc: "The input's parts x_n each go through A_n [rank, in / k]. What they give is cut into k pieces, and the pieces of all \
          parts that belong to an output part j go through B_j [out / k, rank] together. The A_n are uniform in ±1/√(in / k) and \
          the B_j zero, so the model starts unchanged. With `hybrid_rank` a LoRA of that rank is added. All is multiplied by \
          alpha / (rank + hybrid_rank). Merges exactly into plain weights and is written in peft's format.",
    paper: "Jung et al. 2025 (arXiv 2505.20355)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        K.key(),
        HYBRID.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const A: &str = "gralora_A";
const B: &str = "gralora_B";
const GENERAL_A: &str = "gralora_A_general.weight";
const GENERAL_B: &str = "gralora_B_general.weight";

/// The blocks of A one below the other `[in, rank]`, and those of B `[k · rank, out / k]`.
fn blocks(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (site, rank, k) = (at.site, RANK.get(at.values), K.get(at.values));
    let bound = 1.0 / ((site.input() / k) as f64).sqrt();
    let a = Param::at(site, A).shape(&[site.input(), rank]);
    let b = Param::at(site, B).shape(&[k * rank, site.output() / k]);
    (net.tensor(a.start(Init::Uniform(bound))), net.tensor(b))
}

/// The pair of the whole weight, if there is one.
fn general(at: &At<'_>, net: &mut Net<'_>) -> Option<(Value, Value)> {
    let (site, rank) = (at.site, HYBRID.get(at.values));
    if rank == 0 {
        return None;
    }
    let bound = 1.0 / (site.input() as f64).sqrt();
    let a = Param::at(site, GENERAL_A).shape(&[rank, site.input()]);
    let b = Param::at(site, GENERAL_B).shape(&[site.output(), rank]);
    Some((net.tensor(a.start(Init::Uniform(bound))), net.tensor(b)))
}

fn scale(values: &Values) -> f64 {
    ALPHA.get(values) / (RANK.get(values) + HYBRID.get(values)) as f64
}

const PEFT_KEYS: Keys = &[
    ("alpha", Used),
    ("bias", Only(&["\"none\""])),
    ("gralora_dropout", Used),
    ("gralora_k", Used),
    ("hybrid_r", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("r", Used),
];

impl Method for Gralora {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let ranks = [&RANK, &HYBRID].map(|key| check_rank(values, key, site));
        if let Some(complaint) = ranks.into_iter().flatten().next() {
            return Some(complaint);
        }
        let (rank, k) = (RANK.get(values), K.get(values));
        let (input, output, path) = (site.input(), site.output(), &site.path);
        let message = if rank % k != 0 {
            format!("`rank` is {rank}, which {k} blocks do not share evenly")
        } else if input % k != 0 || output % k != 0 {
            format!("`{path}` of {output} × {input} is not made of {k} even parts a side")
        } else {
            return None;
        };
        Some(Complaint {
            key: "k",
            code: &BAD_METHOD_VALUES,
            message,
            help: Some("write a `k` that divides `rank` and both sides of the weights".to_owned()),
        })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (rank, k) = (RANK.get(at.values), K.get(at.values));
        let (a, b) = blocks(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), a);
        let by_blocks = BlockProduct::of_rows(to_u32(k), Blocks::STACKED);
        let z = net.b.push1(by_blocks.clone(), &[x, a]);
        // Piece j of part n becomes piece n of part j.
        let piece = rank / k;
        let order = (0..k).flat_map(|j| {
            (0..k).flat_map(move |n| (0..piece).map(move |i| [(n * rank + j * piece + i, false)]))
        });
        let z = net.b.push1(Arrange::new(k * rank, order), &[z]);
        let y = net.b.push1(by_blocks, &[z, b]);
        let y = net.scaled(y, scale(at.values));
        let mut sum = net.add(base, y);
        if let Some((a, b)) = general(at, net) {
            let z = net.project(x, a);
            sum = net.project_onto(sum, z, b, scale(at.values));
        }
        sum
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let mut sum = at.weight(net)?;
        let (rank, k) = (RANK.get(at.values), K.get(at.values));
        let part = to_u32(at.site.output() / k);
        let (a, b) = blocks(at, net);
        for j in 0..k {
            // Row j of blocks: B_j's pieces times those of the A_n, beside one another.
            let piece = rank / k;
            let own = net.columns(a, j * piece, (j + 1) * piece);
            let list = (j * rank..(j + 1) * rank).map(to_u32).collect();
            let rows = net.b.push1(Indices { list }, &[]);
            let left = net.gather(b, rows);
            let op = BlockProduct {
                groups: to_u32(k),
                a: Blocks::STACKED.transposed(),
                b: Blocks::STACKED.transposed(),
                out: Blocks::BESIDE,
            };
            let row = net.b.push1(op, &[left, own]);
            let row = net.scaled(row, scale(at.values));
            let list = (0..part).map(|i| to_u32(j) * part + i).collect();
            let to = net.b.push1(Indices { list }, &[]);
            let rows = at.site.output().into();
            let placed = net.b.push1(Scatter { rows }, &[to, row]);
            sum = net.add(sum, placed);
        }
        if let Some((a, b)) = general(at, net) {
            let op = MatMul {
                epilogue: Epilogue::Accumulate,
                ..MatMul::plain(false, false, Real::new(scale(at.values)))
            };
            sum = net.b.push1(op, &[b, a, sum]);
        }
        Some(sum)
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let keys = vec![
            ("alpha", number(ALPHA.get(values))),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("gralora_dropout", json!(DROPOUT.get(values))),
            ("gralora_k", json!(K.get(values))),
            ("hybrid_r", json!(HYBRID.get(values))),
            ("init_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("r", json!(RANK.get(values))),
        ];
        Some(PeftForm {
            kind: "GRALORA",
            keys,
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "GRALORA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, k) = (config.positive("r", 32)?, config.positive("gralora_k", 2)?);
        let hybrid = config.whole("hybrid_r", 0)?;
        let (alpha, dropout) = (
            config.number("alpha", 64.0)?,
            config.rate("gralora_dropout")?,
        );
        for place in file.places()? {
            place.only(&[A, B, GENERAL_A, GENERAL_B])?;
            let (input, output) = (place.site.input(), place.site.output());
            let mut take = |suffix: &str, theirs: [u64; 3], own: [u64; 2]| {
                let name = place.name(suffix);
                file.check_shape(&name, &theirs)?;
                file.make(Taken {
                    own: place.own(suffix),
                    shape: own.to_vec(),
                    from: vec![name],
                    make: Make::Same,
                })
            };
            take(A, [k, input / k, rank], [input, rank])?;
            take(B, [k, rank, output / k], [k * rank, output / k])?;
            file.idle(&place.name(B), 0.0);
            if hybrid > 0 {
                let [a, b] = [GENERAL_A, GENERAL_B];
                file.take(&place.name(a), place.own(a), &[hybrid, input])?;
                file.take(&place.name(b), place.own(b), &[output, hybrid])?;
                file.idle(&place.name(b), 0.0);
            }
            let values = vec![
                (RANK.name(), Checked::Int(rank)),
                (ALPHA.name(), Checked::Float(alpha)),
                (K.name(), Checked::Int(k)),
                (HYBRID.name(), Checked::Int(hybrid)),
                (DROPOUT.name(), Checked::Float(dropout)),
            ];
            file.put(&Gralora, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let [rank, k, hybrid] = [&RANK, &K, &HYBRID].map(|key| key.get(values) as usize);
        let (input, output) = (site.input() as usize, site.output() as usize);
        let mut tensors = vec![
            (A.to_owned(), vec![k, input / k, rank], get(A)?),
            (B.to_owned(), vec![k, rank, output / k], get(B)?),
        ];
        if hybrid > 0 {
            let [a, b] = [GENERAL_A, GENERAL_B].map(str::to_owned);
            tensors.push((a, vec![hybrid, input], get(GENERAL_A)?));
            tensors.push((b, vec![output, hybrid], get(GENERAL_B)?));
        }
        Some(tensors)
    }
}
