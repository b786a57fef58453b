//! WaveFT: `y = x (W₀ + s · w(C))ᵀ + b`, where `w` makes a matrix of few trained wavelet coefficients `C`.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Bound, Checked, Given, kind};
use super::fourierft::{INIT, SEED, check_places, places};
use super::lora::ON;
use super::sparse::{self, Delta};
use super::wavelets::FILTERS;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::program::op::{Arrange, BinaryKind, Broadcast, Constant, Scatter};
use crate::program::{DType, Dim, Real};

/// An update of few wavelets.
#[derive(Debug)]
pub struct WaveFt;

/// The coefficients' name in peft's format.
const SPECTRUM: &str = "waveft_spectrum";
/// The standard deviation of coefficients that are drawn.
const DEVIATION: f64 = 0.01;

const FREQUENCIES: Given<u64> = Given::<u64>::new(
    "frequencies",
    kind::COUNT,
    (2592, "2592"),
    "number n of trained coefficients of a matrix",
);
const SCALING: Given<f64> = Given::<f64>::new(
    "scaling",
    kind::float(Bound::None, Bound::None),
    (25.0, "25"),
    "factor s of the update",
);
const WAVELET: Given<str> = Given::<str>::new(
    "wavelet",
    kind::choice(&[
        "db1", "db2", "db3", "db4", "db5", "db6", "db7", "db8", "db9", "db10", "sym2", "sym3",
        "sym4", "sym5", "sym6", "sym7", "sym8", "sym9", "sym10", "coif1", "coif2", "coif3",
        "coif4", "coif5",
    ]),
    ("db1", "db1"),
    "family of the wavelets: Daubechies' (`db1` is Haar's), symlets or coiflets",
);
const TRANSFORM: Given<bool> = Given::<bool>::new(
    "transform",
    kind::BOOL,
    (true, "true"),
    "whether coefficients are of wavelets; if not they are the update's numbers themselves",
);

static SCHEMA: Schema = Schema {
    name: "waveft",
    summary: "wavelet fine-tuning: an update of few trained wavelet coefficients",
    doc: "y = x (W0 + s · w(C))ᵀ + b with n coefficients of C [out, in] trained, at places that `seed` alone says, as peft draws them; w is one level of the \
          inverse wavelet transform. They start at 0, so the model starts unchanged. A coefficient moves t² numbers of the \
          weight for t taps of the filter, two for `db1`, so the update is a sparse matrix, and only its numbers have gradients. Merges exactly; \
          16 bytes a trained parameter. In peft it is WAVEFT.",
    paper: "Bilican et al. 2025, \"Exploring Sparsity for Parameter Efficient Fine Tuning Using Wavelets\" (arXiv 2505.12532)",
    keys: &[
        FREQUENCIES.key(),
        SCALING.key(),
        WAVELET.key(),
        TRANSFORM.key(),
        SEED.key(),
        INIT.key(),
        ON.key(),
    ],
};

/// The low-pass filter of a family.
fn filter(values: &Values) -> &'static [f64] {
    let name = WAVELET.get(values);
    let found = FILTERS.iter().find(|(own, _)| *own == name);
    found.map_or(&[], |(_, taps)| taps)
}

/// Where a coefficient goes: which of the four bands it is in, and the first row and column that its wavelet would have.
struct Wave {
    band: u64,
    corner: (i64, i64),
}

/// What peft makes of places: the matrix is framed by what the filter needs, and cut into four bands.
fn waves(values: &Values, site: &Site, taps: u64) -> Vec<Wave> {
    let frame = |n: u64| {
        let wide = n + taps.saturating_sub(2);
        wide + wide % 2
    };
    let (rows, columns) = (frame(site.output()), frame(site.input()));
    // The place in its half, twice, less what is cut off in front; and which half.
    let place = |at: u64, n: u64, framed: u64| {
        let at = at + (framed - n) / 2;
        let second = at >= framed / 2;
        let own = if second { at - framed / 2 } else { at };
        (
            2 * own.cast_signed() - taps.cast_signed() + 2,
            u64::from(second),
        )
    };
    let all = places(values, site).into_iter();
    all.map(|(row, column)| {
        let (row, low) = place(row, site.output(), rows);
        let (column, right) = place(column, site.input(), columns);
        Wave {
            band: 2 * low + right,
            corner: (row, column),
        }
    })
    .collect()
}

/// A row `[1, n]` of constants.
fn constants(net: &mut Net<'_>, list: &[f64]) -> Option<Value> {
    let mut sum = None;
    for (i, &value) in list.iter().enumerate() {
        let (value, dtype) = (Real::new(value), DType::F32);
        let one = net.b.push1(Constant { value, dtype }, &[]);
        let one = net.reshaped(one, 1, 1);
        let columns = (0..list.len()).map(|j| (i == j).then_some((0, false)));
        let own = net.arranged(one, Arrange::new(1, columns));
        sum = Some(sum.map_or(own, |sum| net.add(sum, own)));
    }
    sum
}

/// The four bands' wavelets, `[4, t²]`: of band `2 · low + right` the rows' filter is high where it is right, and the columns' where it is low.
fn table(net: &mut Net<'_>, taps: &[f64]) -> Option<Value> {
    let (low, t) = (constants(net, taps)?, taps.len() as u64);
    // The high filter is the low one from behind, every second tap with another sign.
    let tap = |high: bool, i: u64| {
        if high {
            (t - 1 - i, i % 2 == 1)
        } else {
            (i, false)
        }
    };
    let all = || (0..4 * t * t).map(|at| (at / (t * t), at / t % t, at % t));
    let rows = all().map(|(band, i, _)| [tap(band % 2 == 1, i)]);
    let columns = all().map(|(band, _, j)| [tap(band / 2 == 1, j)]);
    let rows = net.arranged(low, Arrange::new(t, rows));
    let columns = net.arranged(low, Arrange::new(t, columns));
    let both = net.binary(BinaryKind::Mul, Broadcast::Full, rows, columns);
    Some(net.reshaped(both, 4, t * t))
}

/// The update, numbers at places that are distinct.
fn delta(at: &At<'_>, net: &mut Net<'_>) -> Delta {
    let (site, values) = (at.site, at.values);
    let (n, input) = (FREQUENCIES.get(values), site.input());
    let start = match INIT.get(values) {
        "normal" => Init::Normal(DEVIATION),
        _ => Init::Constant(0.0),
    };
    let spectrum = net.tensor(Param::at(site, SPECTRUM).shape(&[n]).start(start));
    let spectrum = net.scaled(spectrum, SCALING.get(values));
    let taps = filter(values);
    let waves_of = TRANSFORM.get(values).then(|| table(net, taps)).flatten();
    let Some(table) = waves_of else {
        let all = places(values, site).into_iter();
        let ids = all.map(|(row, column)| to_u32(row * input + column));
        return Delta::at(net, site, spectrum, ids.collect());
    };
    let t = taps.len() as u64;
    let waves = waves(values, site, t);
    let bands = waves.iter().map(|w| to_u32(w.band)).collect();
    let each = net.rows(table, bands);
    let each = net.binary(BinaryKind::Mul, Broadcast::Column, each, spectrum);
    // What lies within the matrix, and where.
    let inside = |at: i64, n: u64| (at >= 0 && (at as u64) < n).then_some(at as u64);
    let numbers = waves.iter().enumerate().flat_map(|(k, wave)| {
        (0..t * t).filter_map(move |i| {
            let row = inside(wave.corner.0 + (i / t).cast_signed(), site.output())?;
            let column = inside(wave.corner.1 + (i % t).cast_signed(), input)?;
            Some((to_u32(k as u64 * t * t + i), to_u32(row * input + column)))
        })
    });
    let (from, to): (Vec<u32>, Vec<u32>) = numbers.unzip();
    let each = net.reshaped(each, n * t * t, 1);
    let count = from.len() as u64;
    let each = net.rows(each, from);
    let each = net.flat(each, count);
    let mut ids = to.clone();
    ids.sort_unstable();
    ids.dedup();
    let sums = to
        .iter()
        .map(|place| to_u32(ids.partition_point(|id| id < place)));
    let sums = net.b.push1(
        crate::program::op::Indices {
            list: sums.collect(),
        },
        &[],
    );
    let rows = Dim::from(ids.len() as u64);
    let each = net.b.push1(Scatter { rows }, &[sums, each]);
    Delta::at(net, site, each, ids)
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
    (
        "proportional_parameters",
        WithoutEffect("the shapes of the tensors say it"),
    ),
    ("random_loc_seed", Used),
    ("scaling", Used),
    ("use_idwt", Used),
    ("wavelet_family", Used),
];

impl Method for WaveFt {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let idle = !TRANSFORM.get(values) && WAVELET.is_written(values);
        let idle = idle.then(|| Complaint {
            key: WAVELET.name(),
            code: &crate::library::error::IDLE_KEY,
            message: "`wavelet` names what `transform = false` does without".to_owned(),
            help: Some("remove one of the two".to_owned()),
        });
        idle.or_else(|| check_places(values, site))
            .or_else(|| sparse::check_size(site))
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        delta(at, net).linear(at, net, x)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        delta(at, net).merged(at, net)
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "WAVEFT",
            keys: vec![
                ("bias", json!("none")),
                ("exclude_modules", json!(null)),
                ("fan_in_fan_out", json!(false)),
                ("init_weights", json!(INIT.get(values) != "normal")),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
                ("n_frequency", json!(FREQUENCIES.get(values))),
                ("n_frequency_pattern", json!({})),
                ("proportional_parameters", json!(false)),
                ("random_loc_seed", json!(SEED.get(values))),
                ("scaling", json!(SCALING.get(values))),
                ("use_idwt", json!(TRANSFORM.get(values))),
                ("wavelet_family", json!(WAVELET.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "WAVEFT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (seed, scaling) = (
            config.whole("random_loc_seed", 777)?,
            config.number("scaling", 25.0)?,
        );
        let transform = config.flag("use_idwt", true)?;
        let family = config.get("wavelet_family").and_then(Json::as_str);
        let family = family.unwrap_or("db1").to_lowercase();
        let family = if family == "haar" { "db1" } else { &family };
        if !FILTERS.iter().any(|(own, _)| *own == family) {
            return Err(Misfit::of_config(format!(
                "`wavelet_family` is \"{family}\", of which peft has no filter"
            )));
        }
        let mut common = vec![
            (SEED.name(), Checked::Int(seed)),
            (SCALING.name(), Checked::Float(scaling)),
            (TRANSFORM.name(), Checked::Bool(transform)),
        ];
        if transform {
            common.push((WAVELET.name(), Checked::Str(family.to_owned())));
        }
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
            let mut values = vec![(FREQUENCIES.name(), Checked::Int(n))];
            values.extend(common.iter().cloned());
            file.put(&WaveFt, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(&self, values: &Values, _: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let shape = vec![FREQUENCIES.get(values) as usize];
        Some(vec![(SPECTRUM.to_owned(), shape, get(SPECTRUM)?)])
    }
}
