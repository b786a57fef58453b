//! DEFT: `W = (I − P relu(P)ᵀ) W₀ + s P R`: a subspace of the outputs is taken away, and another injected. Without R it is PaRa.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, Derivation, Removal};
use super::super::net::{Init, Param};
use super::super::peft::Fate::{Only, Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Bound, Checked, Given, Maybe, kind};
use super::lora::{DROPOUT, ON, RANK};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, number,
};
use crate::library::counts::to_u32;
use crate::library::error::{IDLE_KEY, RANK_TOO_LARGE};
use crate::program::op::{
    ActivationKind, Arrange, BinaryKind, Broadcast, Identity, Indices, Over, ReduceKind, Scatter,
    UnaryKind,
};
use crate::program::{DType, Real};

/// Directions that are taken away, and what takes their place.
#[derive(Debug)]
pub struct Deft;

/// The tensors' names in peft's format.
const P: &str = "deft_P";
const R: &str = "deft_R";
/// The standard deviation of what is drawn.
const DEVIATION: f64 = 0.02;

const ALPHA: Maybe<f64> = Maybe::new(
    "alpha",
    kind::float(Bound::Excl(0.0), Bound::None),
    "scale: what is injected is multiplied by alpha / rank; by 1 if not written",
);
const INJECT: Given<bool> = Given::<bool>::new(
    "inject",
    kind::BOOL,
    (true, "true"),
    "whether R is there; without it directions are taken away alone, which is PaRa and changes the model at once",
);
const PROJECTION: Given<str> = Given::<str>::tacit(
    "projection",
    kind::choice(&["relu", "qr"]),
    ("relu", "relu"),
    "by what outputs are projected: P and its positive part; or the orthonormal Q of P = Q R' on both sides, a reflection for each column in each pass",
);
/// The most directions whose reflections are built.
const MOST: u64 = 64;
const INIT: Given<str> = Given::<str>::tacit(
    "init",
    kind::choice(&["identity", "normal"]),
    ("identity", "identity"),
    "what R starts at: what is taken away, so that the model starts unchanged; or normal numbers of deviation 0.02",
);

static SCHEMA: Schema = Schema {
    name: "deft",
    summary: "decompositional fine-tuning: a subspace of each matrix' outputs is taken away, and another is injected",
    doc: "y = x W0ᵀ + b − ((x W0ᵀ) relu(P)) Pᵀ + s · (dropout(x) Rᵀ) Pᵀ with P [out, rank] and R [rank, in] trained and s = alpha / \
          rank. P starts normal with deviation 0.02 and R as relu(P)ᵀ W0 / s, so that the model starts unchanged. What stands below on the same map \
          is projected, too. With `projection = qr` both P and relu(P) are the orthonormal Q of P, with the signs that LAPACK gives it. \
          rank · (out + in) trained numbers, 16 bytes each. Merges exactly. In peft it is DEFT.",
    paper: "DEFT: Kumar et al. 2025, \"DEFT: Decompositional Efficient Fine-Tuning\"; PaRa: Chen et al. 2024 (arXiv 2406.05641)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        INJECT.key(),
        PROJECTION.key(),
        INIT.key(),
        DROPOUT.key(),
        ON.key(),
    ],
};

fn orthonormal(values: &Values) -> bool {
    PROJECTION.get(values) == "qr"
}

/// Q of `p = Q R'`, `[out, r]`, by Householder's reflections. As in LAPACK, a diagonal element of R' has the other sign than
/// the one it is made of.
fn reflected(net: &mut Net<'_>, p: Value, (output, rank): (u64, u64)) -> Value {
    let mut rest = p;
    let mut reflections = Vec::new();
    for k in 0..rank {
        let (rows, columns) = (output - k, rank - k);
        // The last row is no column's beginning: nothing is left to reflect.
        if rows == 1 {
            break;
        }
        let x = net.columns(rest, 0, 1);
        let squares = net.reduce(ReduceKind::SumOfSquares, Over::All, x);
        let length = net.unary(UnaryKind::Sqrt, squares);
        let first = net.rows(x, vec![0]);
        let first = net.flat(first, 1);
        let sign = net.unary(UnaryKind::Sign, first);
        let moved = net.binary(BinaryKind::Mul, Broadcast::Full, sign, length);
        let moved = net.reshaped(moved, 1, 1);
        let moved = put(net, moved, (0, rows));
        let v = net.add(x, moved);
        let squares = net.reduce(ReduceKind::SumOfSquares, Over::All, v);
        let factor = net.unary(UnaryKind::Recip, squares);
        let factor = net.scaled(factor, 2.0);
        reflections.push((v, factor));
        if columns > 1 {
            let turned = reflect(net, (v, factor), rest);
            let below = net.listed(turned, (1..to_u32(rows)).collect());
            rest = net.columns(below, 1, columns);
        }
    }
    let mut q: Option<Value> = None;
    for k in (0..rank).rev() {
        let (rows, columns) = (output - k, rank - k);
        // One more row and column, with a 1 where they meet.
        let identity = Identity {
            n: 1,
            dtype: DType::F32,
        };
        let one = net.b.push1(identity, &[]);
        let one = put(net, one, (0, rows));
        let wide = |shift: u64, width: u64| {
            let own = (0..columns).map(move |c| {
                let from = c.checked_sub(shift).filter(|&from| from < width);
                from.map(|from| (from, false))
            });
            Arrange::new(width, own)
        };
        let mut all = net.arranged(one, wide(0, 1));
        if let Some(inner) = q {
            let inner = put(net, inner, (1, rows));
            let inner = net.arranged(inner, wide(1, columns - 1));
            all = net.add(all, inner);
        }
        q = Some(match reflections.get(k as usize) {
            Some(&own) => reflect(net, own, all),
            None => all,
        });
    }
    q.unwrap_or(p)
}

/// Rows of a matrix, from `first` on among so many, of zeros otherwise.
fn put(net: &mut Net<'_>, matrix: Value, (first, rows): (u64, u64)) -> Value {
    let own = net.b.ty(matrix).matrix().and_then(|(n, _)| n.as_const());
    let list = (first..first + own.unwrap_or(0)).map(to_u32).collect();
    let list = net.b.push1(Indices { list }, &[]);
    net.b.push1(Scatter { rows: rows.into() }, &[list, matrix])
}

/// `(I − factor · v vᵀ) x`
fn reflect(net: &mut Net<'_>, (v, factor): (Value, Value), x: Value) -> Value {
    let along = net.times((v, true), (x, false));
    let along = net.binary(BinaryKind::Mul, Broadcast::Scalar, along, factor);
    let less = net.times((v, false), (along, false));
    net.binary(BinaryKind::Sub, Broadcast::Full, x, less)
}

/// The factor of what is injected.
fn scale(values: &Values) -> f64 {
    ALPHA
        .get(values)
        .map_or(1.0, |alpha| alpha / RANK.get(values) as f64)
}

/// `P [out, r]`, its positive part, and `R [r, in]`.
fn parts(at: &At<'_>, net: &mut Net<'_>) -> (Value, Value, Option<Value>) {
    let (site, values) = (at.site, at.values);
    let (rank, output, input) = (RANK.get(values), site.output(), site.input());
    let (mut p, mut r) = (
        Param::at(site, P).shape(&[output, rank]),
        Param::at(site, R).shape(&[rank, input]),
    );
    if INJECT.get(values) && INIT.get(values) == "identity" {
        let by = Derivation::from(Removal {
            weight: BaseParam::weight(&site.path, [output, input]),
            rank,
            seed: net.seed(),
            deviation: Real::new(DEVIATION),
            scale: Real::new(scale(values)),
            orthonormal: orthonormal(values),
        });
        let part = |part| {
            let by = by.clone();
            Init::Derived { by, part }
        };
        (p, r) = (p.start(part(Removal::P)), r.start(part(Removal::R)));
    } else {
        let drawn = Init::Normal(DEVIATION);
        (p, r) = (p.start(drawn.clone()), r.start(drawn));
    }
    let p = net.tensor(p);
    let r = INJECT.get(values).then(|| net.tensor(r));
    if orthonormal(values) {
        let q = reflected(net, p, (output, rank));
        return (q, q, r);
    }
    (p, net.activation(ActivationKind::Relu, p), r)
}

/// The keys of peft's config.
const PEFT_KEYS: Keys = &[
    ("alpha", Used),
    ("bias", Only(&["\"none\""])),
    ("decomposition_method", Used),
    ("deft_dropout", Used),
    ("init_scale", WithoutEffect(BEGAN)),
    ("init_weights", WithoutEffect(BEGAN)),
    ("para", Used),
    ("r", WithoutEffect("the shapes of the tensors say it")),
];

impl Method for Deft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let (rank, most) = (RANK.get(values), site.output());
        let large = (rank > most).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`rank` is {rank}, but `{}` has {most} outputs, of which directions are taken away",
                site.path
            ),
            help: Some(format!("write at most `rank = {most}`")),
        });
        let idle = |key: &'static str, is_written: bool| {
            (!INJECT.get(values) && is_written).then(|| Complaint {
                key,
                code: &IDLE_KEY,
                message: format!(
                    "`{key}` says something of R, which `inject = false` does without"
                ),
                help: Some("remove one of the two".to_owned()),
            })
        };
        let many = (orthonormal(values) && rank > MOST).then(|| Complaint {
            key: RANK.name(),
            code: &RANK_TOO_LARGE,
            message: format!(
                "`rank` is {rank}, and a QR decomposition of at most {MOST} columns is built"
            ),
            help: Some(format!(
                "write at most `rank = {MOST}`, or `projection = relu`"
            )),
        });
        large
            .or(many)
            .or_else(|| idle(ALPHA.name(), ALPHA.is_written(values)))
            .or_else(|| idle(INIT.name(), INIT.is_written(values)))
            .or_else(|| idle(DROPOUT.name(), DROPOUT.is_written(values)))
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let (p, right, r) = parts(at, net);
        let plain = match at.bias(net) {
            Some(bias) => net.binary(BinaryKind::Sub, Broadcast::Row, base, bias),
            None => base,
        };
        let mut along = net.times((plain, false), (right, false));
        along = net.scaled(along, -1.0);
        if let Some(r) = r {
            let x = net.dropout_before(x, DROPOUT.get(at.values), r);
            along = net.project_onto(along, x, r, scale(at.values));
        }
        net.project_onto(base, along, p, 1.0)
    }

    /// `W + P (s R − relu(P)ᵀ W)`
    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let (p, right, r) = parts(at, net);
        let mut middle = net.times((right, true), (weight, false));
        middle = net.scaled(middle, -1.0);
        if let Some(r) = r {
            let r = net.scaled(r, scale(at.values));
            middle = net.add(middle, r);
        }
        let change = net.times((p, false), (middle, false));
        Some(net.add(weight, change))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "DEFT",
            keys: vec![
                ("alpha", ALPHA.get(values).map_or(Json::Null, number)),
                ("bias", json!("none")),
                ("decomposition_method", json!(PROJECTION.get(values))),
                ("deft_dropout", json!(DROPOUT.get(values))),
                ("exclude_modules", json!(null)),
                ("fan_in_fan_out", json!(false)),
                ("init_scale", json!(1.0)),
                ("init_weights", json!(true)),
                ("layers_pattern", json!(null)),
                ("layers_to_transform", json!(null)),
                ("para", json!(!INJECT.get(values))),
                ("r", json!(RANK.get(values))),
            ],
            product: None,
        })
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "DEFT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (para, dropout) = (config.flag("para", false)?, config.rate("deft_dropout")?);
        let alpha = match config.number("alpha", 0.0)? {
            0.0 => None,
            alpha if alpha > 0.0 => Some(alpha),
            alpha => {
                let message = format!("`alpha` is {alpha}, and a scale above 0 is wanted");
                return Err(Misfit::of_config(message));
            }
        };
        let projection = match config.get("decomposition_method").map(Json::as_str) {
            None => "relu",
            Some(Some(own @ ("relu" | "qr"))) => own,
            Some(_) => {
                let message = "`decomposition_method` must be \"relu\" or \"qr\"";
                return Err(Misfit::of_config(message));
            }
        };
        for place in file.places()? {
            place.only(&[P, R])?;
            let name = place.name(P);
            let rank = file.shape(&name).and_then(|s| s.get(1)).copied();
            let rank = rank.unwrap_or_default();
            file.take(&name, place.own(P), &[place.site.output(), rank])?;
            let mut values = vec![
                (RANK.name(), Checked::Int(rank)),
                (INJECT.name(), Checked::Bool(!para)),
                (PROJECTION.name(), Checked::Str(projection.to_owned())),
            ];
            if !para {
                file.take(&place.name(R), place.own(R), &[rank, place.site.input()])?;
                values.push((DROPOUT.name(), Checked::Float(dropout)));
                values.extend(alpha.map(|alpha| (ALPHA.name(), Checked::Float(alpha))));
            }
            file.put(&Deft, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let [rank, output, input] =
            [RANK.get(values), site.output(), site.input()].map(|n| n as usize);
        let mut made = vec![(P.to_owned(), vec![output, rank], get(P)?)];
        if INJECT.get(values) {
            made.push((R.to_owned(), vec![rank, input], get(R)?));
        }
        Some(made)
    }
}
