//! FRoD: `W = U (Λ + S) Vᵀ` with one basis V for all maps of a kind, a trained diagonal Λ and a trained sparse rotation S.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::super::derive::{BaseParam, Derivation, Joint};
use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken, as_declared};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::{MODULES_TO_SAVE, ON};
use super::{At, Complaint, Method, Net, Schema, Site, Stacking, Value, Values};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, MulRows, Places, SparseProduct};

/// Weights in a common basis.
#[derive(Debug)]
pub struct Frod;

const RATE: Given<f64> = Given::<f64>::new(
    "sparse_rate",
    kind::float(Bound::Excl(0.0), Bound::Incl(1.0)),
    (0.01, "0.01"),
    "places of S as a share of in²",
);
const ALPHA: Given<f64> = Given::<f64>::new(
    "regularization",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1e-3, "1e-3"),
    "what is added to each weight's share of the basis before it is inverted; peft calls it `regularization_alpha`",
);
const SEED: Given<u64> = Given::<u64>::new(
    "projection_seed",
    kind::int(0, u32::MAX as u64),
    (0, "0"),
    "seed of the places of S; peft calls it `projection_prng_key`",
);

static SCHEMA: Schema = Schema {
    name: "frod",
    summary: "full-rank decomposition: every weight of a kind in one common basis, with a trained diagonal and a trained sparse rotation",
    doc: "W = U (Λ + S) Vᵀ + b. V [in, in] is a basis that the weights of all maps with the same last names in their paths share, \
          by a joint decomposition; U [out, in] is then that of the weight, with columns of length 1, and both are frozen. Λ [in] starts \
          at the lengths and S [in, in] at 0, at in² · sparse_rate places off the diagonal that the maps share, so the model starts unchanged. \
          It takes the place of the weight; U takes as much room as the weight did, and V as much once a kind. Merges exactly; 16 \
          bytes a trained number. Adapters of peft's FROD are read. None is written: peft computes U from a basis of its own, whose signs are \
          those of the library that made it, and puts the file's basis beside it.",
    paper: "FRoD (AAAI 2026, doi 10.1609/aaai.v40i31.39813)",
    keys: &[
        RATE.key(),
        ALPHA.key(),
        SEED.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

const BASIS: &str = "frod_V";
const INDICES: &str = "frod_s_indices";
const SIZE: &str = "frod_s_size";
const FACTOR: &str = "frod_U";
const DIAGONAL: &str = "frod_lambda_l";
const NUMBERS: &str = "frod_lambda_s_values";

/// The kind of a map, by the end of its path, as peft has it.
fn category(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let [.., outer, last] = parts.as_slice() else {
        return path.to_owned();
    };
    if outer.bytes().all(|b| b.is_ascii_digit()) {
        return (*last).to_owned();
    }
    match parts.as_slice() {
        [.., "attention", "output", "dense"] => "attention_output".to_owned(),
        _ => format!("{outer}_{last}"),
    }
}

/// Places of S in a map of so many inputs.
fn count(rate: f64, input: u64) -> u64 {
    let all = input.saturating_mul(input);
    ((all as f64 * rate) as u64).clamp(1, (all - input).max(1))
}

/// What a map is made of.
struct Parts {
    basis: Value,
    factor: Value,
    diagonal: Value,
    numbers: Value,
    ids: Value,
    places: Places,
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let (site, values) = (at.site, at.values);
    let (input, output) = (site.input(), site.output());
    let own = category(&site.path);
    let group = as_declared(at.placed(net)).into_iter();
    let group: Vec<&Site> = group.filter(|s| category(&s.path) == own).collect();
    let number = group.iter().position(|s| s.path == site.path);
    let number = number.unwrap_or_default();
    let weight = |s: &&Site| BaseParam::weight(&s.path, [s.output(), s.input()]);
    let count = count(RATE.get(values), input);
    let by = Derivation::from(Joint {
        weights: group.iter().map(weight).collect(),
        alpha: Real::new(ALPHA.get(values)),
        count,
        seed: SEED.get(values),
    });
    let start = |part| Init::Derived {
        by: by.clone(),
        part,
    };
    let basis = Param::shared(format!("{BASIS}.{own}")).shape(&[input, input]);
    let basis = net.tensor(basis.frozen().start(start(Joint::V)));
    let ids = Param::shared(format!("{INDICES}.{own}")).shape(&[count]);
    let ids = net.places(ids.of_places().start(start(Joint::PLACES)));
    let factor = Param::at(site, FACTOR).shape(&[output, input]).frozen();
    let factor = factor.start(start(Joint::u(number)));
    let factor = factor.replacing(format!("{}.weight", site.path)).unsaved();
    let diagonal = Param::at(site, DIAGONAL).shape(&[input]);
    Parts {
        basis,
        ids,
        factor: net.tensor(factor),
        diagonal: net.tensor(diagonal.start(start(Joint::lengths(number)))),
        numbers: net.tensor(Param::at(site, NUMBERS).shape(&[count])),
        places: Places::entries(input, input),
    }
}

const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("frod_dropout", Only(&["0.0", "0"])),
    ("init_weights", WithoutEffect(BEGAN)),
    ("progressbar", WithoutEffect("shows how far peft has come")),
    ("projection_prng_key", WithoutEffect(BEGAN)),
    ("regularization_alpha", WithoutEffect(BEGAN)),
    (
        "runtime_offload_base_weight",
        WithoutEffect("says where peft keeps weights that it does not need"),
    ),
    ("save_projection", Used),
    ("sparse_rate", Used),
];

impl Method for Frod {
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
        Stacking::Base
    }

    fn check(&self, _: &Values, site: &Site) -> Option<Complaint> {
        let input = site.input();
        let bad = |message: String| {
            Some(Complaint {
                key: ON.name(),
                code: &BAD_METHOD_VALUES,
                message,
                help: Some("leave this map out of `on`".to_owned()),
            })
        };
        if input > 1 << 16 {
            let message = format!(
                "`{}` has {input} inputs, and a basis of at most 65536 is built",
                site.path
            );
            return bad(message);
        }
        (input < 2)
            .then(|| {
                bad(format!(
                    "`{}` has one input, which has no rotation",
                    site.path
                ))
            })
            .flatten()
    }

    fn check_sites(&self, _: &Values, sites: &[&Site]) -> Option<Complaint> {
        let mut shapes: BTreeMap<String, &Site> = BTreeMap::new();
        for site in sites {
            let first = *shapes.entry(category(&site.path)).or_insert(site);
            if (first.input(), first.output()) != (site.input(), site.output()) {
                return Some(Complaint {
                    key: ON.name(),
                    code: &BAD_METHOD_VALUES,
                    message: format!(
                        "`{}` and `{}` are of one kind and of two shapes, which have no common basis",
                        first.path, site.path
                    ),
                    help: Some("leave one of them out of `on`".to_owned()),
                });
            }
        }
        None
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let p = parts(at, net);
        let z = net.times((x, false), (p.basis, false));
        let scaled = net.b.push1(MulRows, &[z, p.diagonal]);
        let op = SparseProduct::new(p.places, true);
        let turned = net.b.push1(op, &[scaled, z, p.numbers, p.ids]);
        let bias = net.bias(at.site);
        net.dense(turned, p.factor, bias)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let p = parts(at, net);
        let scaled = net.binary(BinaryKind::Mul, Broadcast::Row, p.factor, p.diagonal);
        let op = SparseProduct {
            transposed: true,
            ..SparseProduct::new(p.places, true)
        };
        let turned = net.b.push1(op, &[scaled, p.factor, p.numbers, p.ids]);
        Some(net.times((turned, false), (p.basis, true)))
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "FROD").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        if !config.flag("save_projection", true)? {
            let what = "an adapter without its basis (`save_projection` false), which peft computes again,";
            return Err(Misfit::not_built(what));
        }
        let rate = config.number("sparse_rate", 0.01)?;
        if rate <= 0.0 || rate > 1.0 {
            return Err(Misfit::not_built(format!("`sparse_rate` {rate}")));
        }
        let mut inputs = BTreeMap::new();
        for name in file.unread() {
            if let Some(own) = name.strip_prefix(&format!("{BASIS}.")) {
                inputs.insert(own.to_owned(), read_basis(file, own, rate)?);
            }
        }
        for place in file.places()? {
            place.only(&[DIAGONAL, NUMBERS])?;
            let site = place.site;
            let own = category(&site.path);
            if inputs.get(&own) != Some(&site.input()) {
                return Err(Misfit::damaged(format!(
                    "the adapter has no `{BASIS}.{own}` of {} inputs",
                    site.input()
                )));
            }
            let places = count(rate, site.input());
            file.take(&place.name(DIAGONAL), place.own(DIAGONAL), &[site.input()])?;
            file.take(&place.name(NUMBERS), place.own(NUMBERS), &[places])?;
            file.put(&Frod, site, vec![(RATE.name(), Checked::Float(rate))]);
        }
        Ok(())
    }
}

/// Takes the basis and the places of a kind of maps; gives its inputs.
fn read_basis(file: &mut Reading<'_>, own: &str, rate: f64) -> Result<u64, Misfit> {
    let [basis, indices, size] = [BASIS, INDICES, SIZE].map(|part| format!("{part}.{own}"));
    let input = file.shape(&basis).and_then(|s| s.first()).copied();
    let input = input.unwrap_or_default();
    file.take(&basis, basis.clone(), &[input, input])?;
    let sizes = file.numbers(&size)?;
    file.read(&size)?;
    if sizes != [input as f32, input as f32] {
        return Err(Misfit::damaged(format!(
            "`{size}` is {sizes:?}, and the basis has {input} rows"
        )));
    }
    let count = count(rate, input);
    file.check_shape(&indices, &[2, count])?;
    let make = Make::by(move |from| {
        let (_, numbers) = from.first().ok_or("there are no places")?;
        let (rows, columns) = numbers.split_at(numbers.len() / 2);
        let inside = |x: f32| x.fract() == 0.0 && x >= 0.0 && x < input as f32;
        let one = |(&row, &column): (&f32, &f32)| {
            if !inside(row) || !inside(column) {
                return Err(format!(
                    "it has a place ({row}, {column}), and the rotation is {input} × {input}"
                ));
            }
            Ok(f32::from_bits(to_u32(row as u64 * input + column as u64)))
        };
        rows.iter().zip(columns).map(one).collect()
    });
    file.make(Taken {
        own: indices.clone(),
        shape: vec![count],
        from: vec![indices],
        make,
    })?;
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_peft() {
        for (path, kind) in [
            ("encoder.layer.0.attention.self.query", "self_query"),
            ("model.layers.3.self_attn.q_proj", "self_attn_q_proj"),
            ("encoder.layer.1.attention.output.dense", "attention_output"),
            ("encoder.layer.1.output.dense", "output_dense"),
            ("h.2.c_fc", "c_fc"),
            ("score", "score"),
        ] {
            assert_eq!(category(path), kind);
        }
        assert_eq!(
            (count(0.01, 64), count(1.0, 4), count(1e-9, 4)),
            (40, 12, 1)
        );
    }
}
