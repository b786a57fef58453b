//! FourierFT: `y = x (W₀ + s · Re(ifft₂ C))ᵀ + b` with few trained coefficients in `C`.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Bound, Checked, Given, kind};
use super::lora::ON;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::RANK_TOO_LARGE;
use crate::library::torch::Generator;
use crate::program::DType;
use crate::program::op::{Arrange, BinaryKind, Broadcast, Waves};

/// An update of few frequencies.
#[derive(Debug)]
pub struct FourierFt;

/// The coefficients' name in peft's format.
const SPECTRUM: &str = "fourierft_spectrum";

// Keys of every method with a spectrum.
pub(super) const FREQUENCIES: Given<u64> = Given::<u64>::new(
    "frequencies",
    kind::COUNT,
    (1000, "1000"),
    "number n of trained coefficients of a matrix",
);
pub(super) const SEED: Given<u64> = Given::<u64>::new(
    "seed",
    kind::SEED,
    (777, "777"),
    "seed of their places, drawn as PyTorch draws them, alike for all matrices of one shape",
);
const SCALING: Given<f64> = Given::<f64>::new(
    "scaling",
    kind::float(Bound::None, Bound::None),
    (150.0, "150"),
    "factor s of the update",
);
pub(super) const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["normal", "zeros"]),
    ("zeros", "zeros"),
    "what the coefficients start at; `normal` changes the model",
);

static SCHEMA: Schema = Schema {
    name: "fourierft",
    summary: "Fourier transform for fine-tuning: an update of few trained frequencies",
    doc: "y = x (W0 + s · Re(ifft2 C))ᵀ + b with n coefficients of C [out, in] trained, at places that `seed` alone says, all others \
          zero. They start at 0, so the model starts unchanged. The update is formed as a product of the waves that have \
          coefficients, [out, 2n] · [2n, in], in each pass; the waves are made once for all matrices of one shape. Merges exactly; \
          16 bytes a trained parameter. In peft it is FOURIERFT.",
    paper: "Gao et al. 2024 (arXiv 2405.03003)",
    keys: &[
        FREQUENCIES.key(),
        SCALING.key(),
        SEED.key(),
        INIT.key(),
        ON.key(),
    ],
};

/// The places of the coefficients of a matrix, row and column, as peft draws them.
pub(super) fn places(values: &Values, site: &Site) -> Vec<(u64, u64)> {
    let (all, input) = (site.output() * site.input(), site.input());
    let few = FREQUENCIES.get(values) as usize;
    let drawn = Generator::new(SEED.get(values)).permutation_start(all as usize, few);
    drawn
        .into_iter()
        .map(|i| (i as u64 / input, i as u64 % input))
        .collect()
}

/// The complaint about more coefficients than a matrix has places, if there are.
pub(super) fn check_places(values: &Values, site: &Site) -> Option<Complaint> {
    let (n, most) = (FREQUENCIES.get(values), site.input() * site.output());
    (n > most).then(|| Complaint {
        key: FREQUENCIES.name(),
        code: &RANK_TOO_LARGE,
        message: format!(
            "`{}` is {n}, but `{}` is a matrix of {} × {}",
            FREQUENCIES.name(),
            site.path,
            site.output(),
            site.input()
        ),
        help: Some(format!("write at most `{} = {most}`", FREQUENCIES.name())),
    })
}

/// `s · Re(ifft₂ C) [out, in]`: `Σ c (cos α cos β − sin α sin β)` over the coefficients.
fn update(at: &At<'_>, net: &mut Net<'_>) -> Value {
    let (site, values) = (at.site, at.values);
    let n = FREQUENCIES.get(values);
    let start = match INIT.find(values) {
        Some("normal") => Init::Normal(1.0),
        _ => Init::Constant(0.0),
    };
    let spectrum = net.tensor(Param::at(site, SPECTRUM).shape(&[n]).start(start));
    let (rows, columns): (Vec<u64>, Vec<u64>) = places(values, site).into_iter().unzip();
    let waves = |list: Vec<u64>, size: u64| Waves {
        frequencies: list.into_iter().map(to_u32).collect::<Arc<[u32]>>(),
        size: to_u32(size),
        dtype: DType::F32,
    };
    let left = net.b.push1(waves(rows, site.output()), &[]);
    let right = net.b.push1(waves(columns, site.input()), &[]);
    let row = net.reshaped(spectrum, 1, n);
    let signs = (0..2 * n).map(|i| [(i % n, i >= n)]);
    let both = net.arranged(row, Arrange::new(n, signs));
    let count = (site.output() * site.input()) as f64;
    let both = net.scaled(both, SCALING.get(values) / count);
    let both = net.flat(both, 2 * n);
    let left = net.binary(BinaryKind::Mul, Broadcast::Column, left, both);
    net.times((left, true), (right, false))
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("init_weights", WithoutEffect(BEGAN)),
    (
        "n_frequency",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    (
        "n_frequency_pattern",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("random_loc_seed", Used),
    ("scaling", Used),
];

impl Method for FourierFt {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        check_places(values, site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let update = update(at, net);
        net.project_onto(base, x, update, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let update = update(at, net);
        Some(net.add(weight, update))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "FOURIERFT",
            keys: vec![
                ("bias", json!("none")),
                ("exclude_modules", json!(null)),
                ("fan_in_fan_out", json!(false)),
                ("init_weights", json!(INIT.find(values) != Some("normal"))),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
                ("n_frequency", json!(FREQUENCIES.get(values))),
                ("n_frequency_pattern", json!({})),
                ("random_loc_seed", json!(SEED.get(values))),
                ("scaling", json!(SCALING.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "FOURIERFT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (seed, scaling) = (
            config.whole("random_loc_seed", 777)?,
            config.number("scaling", 150.0)?,
        );
        for place in file.places()? {
            place.only(&[SPECTRUM])?;
            let name = place.name(SPECTRUM);
            let n = file.shape(&name).and_then(|s| s.first()).copied();
            let n = n.unwrap_or_default();
            if n == 0 || n > place.site.input() * place.site.output() {
                return Err(Misfit::damaged(format!(
                    "`{name}` has {n} coefficients, which the matrix has no places for"
                )));
            }
            file.take(&name, place.own(SPECTRUM), &[n])?;
            file.idle(&name, 0.0);
            let values = vec![
                (FREQUENCIES.name(), Checked::Int(n)),
                (SEED.name(), Checked::Int(seed)),
                (SCALING.name(), Checked::Float(scaling)),
            ];
            file.put(&FourierFt, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(&self, values: &Values, _: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![FREQUENCIES.get(values) as usize];
        Some(vec![(SPECTRUM.to_owned(), shape, get(SPECTRUM)?)])
    }
}
