//! VeRA: `y = x W₀ᵀ + b + λ_b ⊙ ((λ_d ⊙ (Drop(x) Aᵀ)) Bᵀ)`, with `A` and `B` frozen and shared by all sites.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Make, Misfit, Reading, START as BEGAN, Taken};
use super::super::schema::{Bound, Checked, Given, kind};
use super::super::torch::Generator;
use super::lora::{DROPOUT, MODULES_TO_SAVE, ON};
use super::{
    At, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value, Values, columns,
    first_rows,
};
use crate::program::op::{BinaryKind, Broadcast, MulRows};

/// Trained vectors between frozen random matrices that all sites share.
#[derive(Debug)]
pub struct Vera;

/// What the two methods with shared random matrices differ in: VeRA, and PVeRA, whose A has rows for a mean and for a
/// variance.
pub(super) struct Family {
    /// The method.
    pub(super) method: &'static dyn Method,
    /// The shared matrices' names.
    pub(super) shared: [&'static str; 2],
    /// The vectors' names, behind A and behind B.
    pub(super) vectors: [&'static str; 2],
    /// How many times the rank A has rows.
    pub(super) halves: u64,
    /// peft's name of the dropout.
    pub(super) dropout: &'static str,
}

const FAMILY: Family = Family {
    method: &Vera,
    shared: ["vera_A", "vera_B"],
    vectors: ["vera_lambda_d", "vera_lambda_b"],
    halves: 1,
    dropout: "vera_dropout",
};

pub(super) const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::int(1, 1 << 24),
    (256, "256"),
    "rank r of the shared matrices",
);
pub(super) const D_INITIAL: Given<f64> = Given::<f64>::new(
    "d_initial",
    kind::float(Bound::None, Bound::None),
    (0.1, "0.1"),
    "what λ_d starts at",
);

static SCHEMA: Schema = Schema {
    name: "vera",
    summary: "vector-based random matrix adaptation: trained vectors around random matrices that all sites share",
    doc: "y = x W0ᵀ + b + λ_b ⊙ ((λ_d ⊙ (dropout(x) Aᵀ)) Bᵀ). A [rank, in] and B [out, rank] are drawn once, uniform in \
          ±1/√in and ±1/√rank for the widest site, stay frozen, and serve all sites, narrower ones by their first columns and \
          rows. Each site trains λ_d [rank], which starts at `d_initial`, and λ_b [out], which starts at 0, so the model \
          starts unchanged. Merges exactly into plain weights and is written in peft's format, A and B included.",
    paper: "Kopiczko et al. 2024 (arXiv 2310.11454), section 3",
    keys: &[
        RANK.key(),
        D_INITIAL.key(),
        DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// What an update is made of: `A` transposed `[in, rank]`, `B [out, rank]`, `λ_d [rank]`, `λ_b [out]`.
pub(super) struct Parts {
    pub(super) a: Value,
    pub(super) b: Value,
    pub(super) d: Value,
    pub(super) out: Value,
}

pub(super) fn parts(at: &At<'_>, net: &mut Net<'_>, family: &Family) -> Parts {
    let (site, values) = (at.site, at.values);
    let (rank, rows) = (RANK.get(values), RANK.get(values) * family.halves);
    let placed = at.placed(net);
    let widest = |of: fn(&Site) -> u64| placed.iter().map(|s| of(s)).max().unwrap_or(1);
    let (input, output) = (widest(Site::input), widest(Site::output));
    let shared = |name: &str, shape: [u64; 2], width: u64| {
        let start = Init::Uniform(1.0 / (width as f64).sqrt());
        Param::shared(name).shape(&shape).frozen().start(start)
    };
    let ([a, b], [d, out]) = (family.shared, family.vectors);
    let (a, b) = (
        shared(a, [input, rows], input),
        shared(b, [output, rank], rank),
    );
    let (a, b) = (net.tensor(a), net.tensor(b));
    let d = Param::at(site, d).shape(&[rows]);
    let out = Param::at(site, out).shape(&[site.output()]);
    Parts {
        a: first_rows(net, a, (site.input(), input)),
        b: first_rows(net, b, (site.output(), output)),
        d: net.tensor(d.start(Init::Constant(D_INITIAL.get(values)))),
        out: net.tensor(out),
    }
}

/// `W + diag(λ_b) B Dᵀ`, where `D [in, rank]` is A scaled.
pub(super) fn added(
    net: &mut Net<'_>,
    weight: Value,
    (b, scaled): (Value, Value),
    out: Value,
) -> Value {
    let update = net.times((b, false), (scaled, true));
    let update = net.binary(BinaryKind::Mul, Broadcast::Column, update, out);
    net.add(weight, update)
}

/// Takes the vectors of all sites; gives the width of the widest input and output.
fn vectors(
    file: &mut Reading<'_>,
    family: &Family,
    (rank, dropout): (u64, f64),
) -> Result<(u64, u64), Misfit> {
    let (mut input, mut output) = (0, 0);
    for place in file.places()? {
        let [d, out] = family.vectors;
        file.take(
            &place.name(d),
            place.own(d),
            &[rank.saturating_mul(family.halves)],
        )?;
        file.take(&place.name(out), place.own(out), &[place.site.output()])?;
        file.idle(&place.name(out), 0.0);
        let values = vec![
            (RANK.name(), Checked::Int(rank)),
            (DROPOUT.name(), Checked::Float(dropout)),
        ];
        file.put(family.method, place.site, values);
        (input, output) = (
            input.max(place.site.input()),
            output.max(place.site.output()),
        );
    }
    Ok((input, output))
}

/// Reads an adapter without its matrices: they are drawn again by its key, A before B.
fn drawn(
    file: &mut Reading<'_>,
    family: &Family,
    (rank, dropout): (u64, f64),
) -> Result<(), Misfit> {
    let key = file.config().whole("projection_prng_key", 0)?;
    let (input, output) = vectors(file, family, (rank, dropout))?;
    let rows = rank.saturating_mul(family.halves);
    let [r, all, wide, tall] = [rank, rows, input, output].map(|n| n as usize);
    let draw = move || {
        let mut generator = Generator::new(key);
        // Uniform in ±√(6 / width).
        let mut matrix = |rows: usize, width: usize| {
            let std = 2.0_f64.sqrt() / (width as f64).sqrt();
            let bound = (3.0_f64.sqrt() * std) as f32;
            generator.uniform(rows * width, -bound, bound)
        };
        let a = matrix(all, wide);
        (a, matrix(tall, r))
    };
    let [a, b] = family.shared;
    file.make(Taken {
        own: a.to_owned(),
        shape: vec![input, rows],
        from: Vec::new(),
        make: Make::by(move |_| Ok(columns(&draw().0, wide))),
    })?;
    file.make(Taken {
        own: b.to_owned(),
        shape: vec![output, rank],
        from: Vec::new(),
        make: Make::by(move |_| Ok(draw().1)),
    })
}

/// Reads an adapter of the family.
pub(super) fn read(file: &mut Reading<'_>, family: &Family) -> Result<(), Misfit> {
    let config = file.config();
    let (rank, dropout) = (config.positive("r", 256)?, config.rate(family.dropout)?);
    if !config.flag("save_projection", true)? {
        return drawn(file, family, (rank, dropout));
    }
    let [a, b] = family.shared;
    let side = |name: &str, at: usize| {
        let shape = file.shape(name);
        shape.and_then(|s| s.get(at).copied()).unwrap_or_default()
    };
    // The widest module that it was made for.
    let (input, output) = (side(a, 1), side(b, 0));
    file.take_turned(a, a.to_owned(), [input, rank.saturating_mul(family.halves)])?;
    file.take(b, b.to_owned(), &[output, rank])?;
    vectors(file, family, (rank, dropout)).map(|_| ())
}

/// The vectors of a site in peft's format.
pub(super) fn vectors_of(
    (values, site): (&Values, &Site),
    family: &Family,
    get: &Lookup<'_>,
) -> Option<Vec<PeftTensor>> {
    let tensor = |suffix: &str, n: u64| Some((suffix.to_owned(), vec![n as usize], get(suffix)?));
    let [d, out] = family.vectors;
    Some(vec![
        tensor(d, RANK.get(values) * family.halves)?,
        tensor(out, site.output())?,
    ])
}

/// The shared matrices in peft's format, which has A as `[rows, in]`.
pub(super) fn shared_of(
    values: &Values,
    family: &Family,
    get: &Lookup<'_>,
) -> Option<Vec<PeftTensor>> {
    let rank = RANK.get(values) as usize;
    let rows = rank * family.halves as usize;
    let ([name_a, name_b], [a, b]) = (family.shared.map(str::to_owned), family.shared.map(get));
    let (a, b) = (a?, b?);
    let (input, output) = (a.len() / rows.max(1), b.len() / rank.max(1));
    Some(vec![
        (name_a, vec![rows, input], columns(&a, rows)),
        (name_b, vec![output, rank], b),
    ])
}

/// The keys of a config of peft's, but for those of one method alone.
pub(super) fn keys_of(values: &Values, family: &Family) -> Vec<(&'static str, Json)> {
    vec![
        ("bias", json!("none")),
        ("d_initial", json!(D_INITIAL.get(values))),
        ("fan_in_fan_out", json!(false)),
        ("init_weights", json!(true)),
        ("layers_pattern", Json::Null),
        ("layers_to_transform", Json::Null),
        // The matrices themselves are in the file.
        ("projection_prng_key", json!(0)),
        ("r", json!(RANK.get(values))),
        ("save_projection", json!(true)),
        (family.dropout, json!(DROPOUT.get(values))),
    ]
}

/// The keys of peft's `VeraConfig`.
const PEFT_KEYS: Keys = &[
    ("bias", Only(&["\"none\""])),
    ("d_initial", WithoutEffect(BEGAN)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("projection_prng_key", Used),
    ("r", Used),
    ("save_projection", Used),
    ("vera_dropout", Used),
];

impl Method for Vera {
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
        let p = parts(at, net, &FAMILY);
        let x = net.dropout_before(x, DROPOUT.get(at.values), p.d);
        let z = net.times((x, false), (p.a, false));
        let z = net.b.push1(MulRows, &[z, p.d]);
        let y = net.project(z, p.b);
        let y = net.b.push1(MulRows, &[y, p.out]);
        net.add(base, y)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net, &FAMILY);
        let ad = net.b.push1(MulRows, &[p.a, p.d]);
        Some(added(net, weight, (p.b, ad), p.out))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "VERA",
            keys: keys_of(values, &FAMILY),
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "VERA").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        read(file, &FAMILY)
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        vectors_of((values, site), &FAMILY, get)
    }

    fn peft_shared(&self, values: &Values, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        shared_of(values, &FAMILY, get)
    }
}
