//! RoAd: `y = R (W₀ x + b)` with a rotation and a length for each pair of outputs.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, kind};
use super::lora::ON;
use super::rotation::check_blocks;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BLOCKS_DO_NOT_FIT;
use crate::program::op::{Arrange, BinaryKind, Broadcast, MulRows, UnaryKind};

/// Rotations of pairs of outputs.
#[derive(Debug)]
pub struct Road;

/// The tensors' names in peft's format.
const ANGLES: &str = "road_theta";
const LENGTHS: &str = "road_alpha";

const NUMBERS: Given<u64> = Given::<u64>::new(
    "numbers",
    kind::int(1, 4),
    (1, "1"),
    "angles and lengths of a pair of outputs: 1, 2 or 4 of each (peft's variants road_1, road_2 and road_4)",
);
const GROUP_SIZE: Given<u64> = Given::<u64>::new(
    "group_size",
    kind::int(2, 1 << 16),
    (64, "64"),
    "width of the groups whose halves are paired; it is even and divides the output's width",
);

static SCHEMA: Schema = Schema {
    name: "road",
    summary: "2D rotary adaptation: each pair of outputs is rotated and scaled",
    doc: "y = z ⊙ α cos θ + z̃ ⊙ α sin θ with z = x W0ᵀ + b, where z̃ holds for each output its partner, with a minus in the first \
          half of a group of `group_size`. With `numbers = 1` a pair has one angle and one length, with 2 each output has its \
          own, with 4 the two terms have different ones as well. θ starts at 0 and α at 1, so the model starts unchanged. \
          Works elementwise on outputs and merges exactly into weights and biases. 16 bytes a trained parameter. In peft it is \
          ROAD.",
    paper: "Liao and Monz 2024 (arXiv 2409.00119)",
    keys: &[NUMBERS.key(), GROUP_SIZE.key(), ON.key()],
};

/// Angles of a site.
fn count(values: &Values, site: &Site) -> u64 {
    site.output() * NUMBERS.get(values) / 2
}

/// Which angle an output takes, in the first term or in the second.
fn angle(values: &Values, output: u64, second: bool) -> u64 {
    let size = GROUP_SIZE.get(values);
    let (group, at) = (output / size, output % size);
    match NUMBERS.get(values) {
        1 => group * (size / 2) + at % (size / 2),
        2 => output,
        _ => (2 * group + u64::from(second)) * size + at,
    }
}

/// The partner of an output, and whether it counts with a minus.
fn partner(size: u64, output: u64) -> (u64, bool) {
    let first = output % size < size / 2;
    (
        if first {
            output + size / 2
        } else {
            output - size / 2
        },
        first,
    )
}

/// The factors `[out]` of the outputs and of their partners.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value) {
    let (values, out, count) = (at.values, at.site.output(), count(at.values, at.site));
    let own = |suffix: &str, start| {
        Param::at(at.site, suffix)
            .shape(&[count])
            .start(Init::Constant(start))
    };
    let (theta, alpha) = (net.tensor(own(ANGLES, 0.0)), net.tensor(own(LENGTHS, 1.0)));
    let mut term = |second: bool, kind| {
        let of_each = |net: &mut Net<'_>, list: Value| {
            if NUMBERS.get(values) == 2 {
                return list;
            }
            let row = net.reshaped(list, 1, count);
            let places = (0..out).map(|o| [(angle(values, o, second), false)]);
            let row = net.arranged(row, Arrange::new(count, places));
            net.flat(row, out)
        };
        let turned = net.unary(kind, theta);
        let (turned, alpha) = (of_each(net, turned), of_each(net, alpha));
        net.binary(BinaryKind::Mul, Broadcast::Full, turned, alpha)
    };
    (term(false, UnaryKind::Cos), term(true, UnaryKind::Sin))
}

/// Each column's partner, with its sign.
fn partners(at: &At<'_>) -> Arrange {
    let (size, out) = (GROUP_SIZE.get(at.values), at.site.output());
    Arrange::new(out, (0..out).map(|o| [partner(size, o)]))
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("group_size", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("variant", Used),
];

impl Method for Road {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let size = GROUP_SIZE.get(values);
        if NUMBERS.get(values) == 3 {
            return Some(Complaint {
                key: NUMBERS.name(),
                code: &BLOCKS_DO_NOT_FIT,
                message: "a pair of outputs has 1, 2 or 4 angles, not 3".to_owned(),
                help: Some("write `numbers = 2` or `numbers = 4`".to_owned()),
            });
        }
        if !size.is_multiple_of(2) {
            return Some(Complaint {
                key: GROUP_SIZE.name(),
                code: &BLOCKS_DO_NOT_FIT,
                message: format!("`group_size` is {size}, and halves of a group are paired"),
                help: Some("write an even number".to_owned()),
            });
        }
        check_blocks(GROUP_SIZE.name(), size, site, &[("output", site.output())])
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let y = at.linear(net, x);
        let (own, other) = factors(at, net);
        let turned = net.arranged(y, partners(at));
        let (a, b) = (
            net.b.push1(MulRows, &[y, own]),
            net.b.push1(MulRows, &[turned, other]),
        );
        net.add(a, b)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (own, other) = factors(at, net);
        let (size, out) = (GROUP_SIZE.get(at.values), at.site.output());
        let list = (0..out).map(|o| to_u32(partner(size, o).0)).collect();
        let turned = net.rows(weight, list);
        let row = net.reshaped(other, 1, out);
        let signs = (0..out).map(|o| [(o, partner(size, o).1)]);
        let row = net.arranged(row, Arrange::new(out, signs));
        let other = net.flat(row, out);
        let (a, b) = (
            net.binary(BinaryKind::Mul, Broadcast::Column, weight, own),
            net.binary(BinaryKind::Mul, Broadcast::Column, turned, other),
        );
        Some(net.add(a, b))
    }

    fn moves_bias(&self, _: &Values, _: &Site) -> bool {
        true
    }

    fn merged_bias(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let bias = at.bias(net)?;
        let out = at.site.output();
        let (own, other) = factors(at, net);
        let row = net.reshaped(bias, 1, out);
        let turned = net.arranged(row, partners(at));
        let turned = net.flat(turned, out);
        let (a, b) = (
            net.binary(BinaryKind::Mul, Broadcast::Full, bias, own),
            net.binary(BinaryKind::Mul, Broadcast::Full, turned, other),
        );
        Some(net.add(a, b))
    }

    fn peft_takes_transposed(&self) -> bool {
        false
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let variant = format!("road_{}", NUMBERS.get(values));
        Some(PeftForm {
            kind: "ROAD",
            keys: vec![
                ("group_size", json!(GROUP_SIZE.get(values))),
                ("init_weights", json!(true)),
                ("variant", json!(variant)),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "ROAD").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let size = config.positive("group_size", 64)?;
        let variant = config.get("variant").and_then(Json::as_str);
        let numbers = match variant {
            None | Some("road_1") => 1,
            Some("road_2") => 2,
            Some("road_4") => 4,
            Some(other) => {
                return Err(Misfit::not_built(format!(
                    "`variant` is `{other}`: this form of ROAD"
                )));
            }
        };
        for place in file.places()? {
            place.only(&[ANGLES, LENGTHS])?;
            let count = place.site.output() * numbers / 2;
            for (suffix, idle) in [(ANGLES, 0.0), (LENGTHS, 1.0)] {
                let name = place.name(suffix);
                file.take(&name, place.own(suffix), &[count])?;
                file.idle(&name, idle);
            }
            let values = vec![
                (NUMBERS.name(), Checked::Int(numbers)),
                (GROUP_SIZE.name(), Checked::Int(size)),
            ];
            file.put(&Road, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let shape = vec![count(values, site) as usize];
        Some(vec![
            (LENGTHS.to_owned(), shape.clone(), get(LENGTHS)?),
            (ANGLES.to_owned(), shape, get(ANGLES)?),
        ])
    }
}
