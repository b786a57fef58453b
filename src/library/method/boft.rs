//! Butterfly orthogonal fine-tuning: `y = s ⊙ (x B₍f₋₁₎ … B₀ W₀ᵀ) + b` with block-diagonal rotations between permutations.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Refused, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::lora::ON;
use super::rotation::{Rotation, antisymmetric, check_blocks};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BLOCKS_DO_NOT_FIT;
use crate::program::op::{Arrange, BinaryKind, Broadcast, MulRows};

/// Rotations of a map's input in several layers, and factors of its output.
#[derive(Debug)]
pub struct Boft;

/// The tensors' names in peft's format.
const ROTATIONS: &str = "boft_R";
const FACTORS: &str = "boft_s";

const BLOCK_SIZE: Given<u64> = Given::<u64>::new(
    "block_size",
    kind::int(2, 1 << 16),
    (4, "4"),
    "width of the blocks that are rotated; it divides the input's width",
);
const FACTORS_OF_BUTTERFLY: Given<u64> = Given::<u64>::new(
    "butterflies",
    kind::int(1, 32),
    (1, "1"),
    "layers of rotations, each of other blocks than the one before",
);

static SCHEMA: Schema = Schema {
    name: "boft",
    summary: "butterfly orthogonal fine-tuning: inputs are rotated in layers that mix more and more columns, outputs rescaled",
    doc: "y = s ⊙ (x B W0ᵀ) + b with B a product of `butterflies` layers P R Pᵀ: P permutes the columns, R is block-diagonal, \
          a block being Cayley's transform (I − Q)(I + Q)⁻¹ of Q = (A − Aᵀ) / 2 with A [b, b] trained. A starts at 0 and s [out] \
          at 1, so the model starts unchanged. Rows of x are rotated; no rotated weight is formed but in a merge, which is \
          exact. 16 bytes a trained parameter. In peft it is BOFT, which on a machine without its CUDA extension \
          loads one layer only.",
    paper: "Liu et al. 2024 (arXiv 2311.06243)",
    keys: &[BLOCK_SIZE.key(), FACTORS_OF_BUTTERFLY.key(), ON.key()],
};

/// Where column `c` of what a layer rotates comes from: within each run of columns the even half blocks first, then the odd
/// ones. Runs get longer from layer to layer.
fn permutation(width: u64, (size, layer): (u64, u64)) -> Vec<u64> {
    let half = size / 2;
    let run = size << layer;
    let halves = run / half.max(1);
    let from = |c: u64| {
        let (start, at) = (c / run * run, c % run);
        let (block, rest) = (at / half, at % half);
        let evens = halves.div_ceil(2);
        let source = if block < evens {
            2 * block
        } else {
            2 * (block - evens) + 1
        };
        start + source * half + rest
    };
    (0..width).map(from).collect()
}

/// What a layer does to rows: `x → x P R Pᵀ`.
struct Layer {
    rotation: Rotation,
    /// Columns of `x P`, where they are permuted.
    order: Option<Vec<u64>>,
}

impl Layer {
    fn of_rows(&self, net: &mut Net<'_>, x: Value, transposed: bool) -> Value {
        let Some(order) = &self.order else {
            return self.rotation.of_rows(net, x, transposed);
        };
        let width = order.len() as u64;
        // Row `i` of P has its 1 in column `order[i]`, so `x P` has column `i` of `x` there.
        let mut back = vec![0; order.len()];
        for (i, &to) in order.iter().enumerate() {
            if let Some(place) = back.get_mut(to as usize) {
                *place = i as u64;
            }
        }
        let by = |list: &[u64]| Arrange::new(width, list.iter().map(|&c| [(c, false)]));
        let there = net.arranged(x, by(&back));
        let turned = self.rotation.of_rows(net, there, transposed);
        net.arranged(turned, by(order))
    }
}

/// The layers, from the one that is nearest to the weight.
fn layers(at: &At<'_>, net: &mut Net<'_>) -> Vec<Layer> {
    let (size, count) = (
        BLOCK_SIZE.get(at.values),
        FACTORS_OF_BUTTERFLY.get(at.values),
    );
    let input = at.site.input();
    let blocks = input / size.max(1);
    let all = Param::at(at.site, ROTATIONS).shape(&[count, blocks, size, size]);
    let all = net.tensor(all);
    let all = net.reshaped(all, count, blocks * size * size);
    let layer = |layer: u64| {
        let own = if count == 1 {
            all
        } else {
            net.rows(all, vec![to_u32(layer)])
        };
        let own = net.reshaped(own, blocks * size, size);
        let q = antisymmetric(net, own, (blocks, size));
        let q = net.scaled(q, 0.5);
        Layer {
            rotation: Rotation::cayley(net, q, blocks),
            order: (count > 1).then(|| permutation(input, (size, layer))),
        }
    };
    (0..count).map(layer).collect()
}

/// The factors `[out]`.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let out = at.site.output();
    let own = Param::at(at.site, FACTORS).shape(&[out, 1]);
    let own = net.tensor(own.start(Init::Constant(1.0)));
    net.flat(own, out)
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    (
        "boft_block_num",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    (
        "boft_block_size",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("boft_dropout", Refused),
    (
        "boft_n_butterfly_factor",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("init_weights", WithoutEffect(BEGAN)),
];

impl Method for Boft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (size, count) = (BLOCK_SIZE.get(values), FACTORS_OF_BUTTERFLY.get(values));
        let input = site.input();
        check_blocks(BLOCK_SIZE.name(), size, site, &[("input", input)]).or_else(|| {
            let (even, run) = (
                size.is_multiple_of(2) && (input / size).is_multiple_of(2),
                size << (count - 1),
            );
            let good = count == 1 || even && run <= input && input.is_multiple_of(run);
            let most = (1..=count).rev().find(|n| {
                let run = size << (n - 1);
                *n == 1 || even && run <= input && input.is_multiple_of(run)
            });
            (!good).then(|| Complaint {
                key: FACTORS_OF_BUTTERFLY.name(),
                code: &BLOCKS_DO_NOT_FIT,
                message: format!(
                    "{count} butterflies of blocks of {size} need an even width of blocks, an even number of them, and runs of {run} columns, but the input of `{}` is {input} wide",
                    site.path
                ),
                help: most.map(|n| format!("write at most `butterflies = {n}`")),
            })
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let mut x = x;
        for layer in layers(at, net).iter().rev() {
            x = layer.of_rows(net, x, false);
        }
        let (weight, bias, factors) = (net.weight(at.site), net.bias(at.site), factors(at, net));
        let y = net.project(x, weight);
        let y = net.b.push1(MulRows, &[y, factors]);
        bias.map_or(y, |bias| {
            net.binary(BinaryKind::Add, Broadcast::Row, y, bias)
        })
    }

    /// `s ⊙ (W Bᵀ)`
    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let mut weight = net.weight(at.site);
        for layer in &layers(at, net) {
            weight = layer.of_rows(net, weight, true);
        }
        let factors = factors(at, net);
        Some(net.binary(BinaryKind::Mul, Broadcast::Column, weight, factors))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "BOFT",
            keys: vec![
                ("bias", json!("none")),
                ("boft_block_num", json!(0)),
                ("boft_block_size", json!(BLOCK_SIZE.get(values))),
                ("boft_dropout", json!(0.0)),
                (
                    "boft_n_butterfly_factor",
                    json!(FACTORS_OF_BUTTERFLY.get(values)),
                ),
                ("exclude_modules", json!(null)),
                ("fan_in_fan_out", json!(false)),
                ("init_weights", json!(true)),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "BOFT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        for place in file.places()? {
            place.only(&[ROTATIONS, FACTORS])?;
            let name = place.name(ROTATIONS);
            let shape = file.shape(&name).unwrap_or_default();
            let &[count, blocks, size, _] = shape else {
                return Err(Misfit::damaged(format!("`{name}` holds no rotations")));
            };
            let input = place.site.input();
            if size < 2 || count == 0 || blocks.checked_mul(size) != Some(input) {
                return Err(Misfit::damaged(format!(
                    "the rotations `{name}` are no blocks of a width of {input}"
                )));
            }
            file.take(&name, place.own(ROTATIONS), &[count, blocks, size, size])?;
            file.idle(&name, 0.0);
            let name = place.name(FACTORS);
            file.take(&name, place.own(FACTORS), &[place.site.output(), 1])?;
            file.idle(&name, 1.0);
            let values = vec![
                (BLOCK_SIZE.name(), Checked::Int(size)),
                (FACTORS_OF_BUTTERFLY.name(), Checked::Int(count)),
            ];
            file.put(&Boft, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (size, count) = (BLOCK_SIZE.get(values), FACTORS_OF_BUTTERFLY.get(values));
        let blocks = site.input() / size.max(1);
        let shape = [count, blocks, size, size].map(|n| n as usize).to_vec();
        let factors = vec![site.output() as usize, 1];
        Some(vec![
            (ROTATIONS.to_owned(), shape, get(ROTATIONS)?),
            (FACTORS.to_owned(), factors, get(FACTORS)?),
        ])
    }
}
