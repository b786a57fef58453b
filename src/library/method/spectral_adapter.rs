//! Spectral adapters (methods R15): the top singular vectors of a matrix, moved or rotated.

use faer::{Mat, MatRef};

use super::super::derive::{BaseParam, Derivation, Svd};
use super::super::net::{Init, Param};
use super::super::schema::{Given, kind};
use super::lora::{ON, RANK, check_rank};
use super::rotation::antisymmetric;
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values,
};
use crate::linalg::{inverse, times};
use crate::program::Real;
use crate::program::op::{BinaryKind, Broadcast, Epilogue, Inverse, MatMul, MulRows};

/// Trained changes of the top singular vectors on a frozen remainder.
#[derive(Debug)]
pub struct SpectralAdapter;

const ROTATE: Given<bool> = Given::<bool>::new(
    "rotate",
    kind::BOOL,
    (false, "false"),
    "rotate the vectors among themselves and rescale their singular values, in the place of adding to them",
);

static SCHEMA: Schema = Schema {
    name: "spectral_adapter",
    summary: "the top singular vectors of each matrix are moved by what is trained, or rotated",
    doc: "W0 = U1 S1 V1 + rest is decomposed once, with `rank` triplets in front. W = (U1 + A) S1 (V1 + B) + rest with A [out, \
          rank] and B [rank, in] trained and zero at first; with `rotate = true` W = U1 R (c ⊙ S1) Q V1 + rest, where R and Qᵀ are \
          Cayley's transforms (I − K)(I + K)⁻¹ of K = (P − Pᵀ) / 2 with P [rank, rank] trained from zero, and c [rank] from one. \
          The model starts unchanged. The rest takes W0's place in memory; adapters keep U1, S1 and V1, since singular vectors are \
          not unique. Merges exactly; in peft it is a LoRA of rank 2 · rank on W0.",
    paper: "Zhang and Pilanci 2024 (arXiv 2405.13952), section 3",
    keys: &[RANK.key(), ROTATE.key(), ON.key()],
};

/// The names of what is frozen, left, middle, right.
const LEFT: &str = "spectral_U";
const MIDDLE: &str = "spectral_S";
const RIGHT: &str = "spectral_V";

/// The factors: the rest, `[out, r]`, `[r]`, `[r, in]`.
struct Parts {
    rest: Value,
    u: Value,
    s: Value,
    v: Value,
}

/// Cayley's transform of `(P − Pᵀ) / 2`, a parameter of this name.
fn turn(at: &At<'_>, net: &mut Net<'_>, name: &str) -> Value {
    let rank = RANK.get(at.values);
    let p = net.tensor(Param::at(at.site, name).shape(&[rank, rank]));
    let k = antisymmetric(net, p, (1, rank));
    let k = net.scaled(k, 0.5);
    net.b.push1(Inverse, &[k])
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let (site, rank) = (at.site, RANK.get(at.values));
    let (output, input) = (site.output(), site.input());
    let weight = BaseParam::weight(&site.path, [output, input]);
    let name = weight.name.clone();
    let keep = None;
    let by = Derivation::from(Svd { weight, rank, keep });
    let part = |suffix, shape: &[u64], part| {
        let by = by.clone();
        Param::at(site, suffix)
            .shape(shape)
            .start(Init::Derived { by, part })
            .frozen()
    };
    let rest = part("spectral_W", &[output, input], Svd::REST);
    let rest = net.tensor(rest.replacing(name).unsaved());
    let u = net.tensor(part(LEFT, &[output, rank], Svd::U));
    let s = net.tensor(part(MIDDLE, &[rank], Svd::S));
    let v = net.tensor(part(RIGHT, &[rank, input], Svd::V));
    if !ROTATE.get(at.values) {
        let a = net.tensor(Param::at(site, "spectral_A").shape(&[output, rank]));
        let b = net.tensor(Param::at(site, "spectral_B").shape(&[rank, input]));
        let (u, v) = (net.add(u, a), net.add(v, b));
        return Parts { rest, u, s, v };
    }
    // (I − K)(I + K)⁻¹ is twice the inverse less the identity.
    let left = turn(at, net, "spectral_P_U");
    let moved = net.times((u, false), (left, false));
    let moved = net.scaled(moved, 2.0);
    let u = net.binary(BinaryKind::Sub, Broadcast::Full, moved, u);
    let right = turn(at, net, "spectral_P_V");
    let moved = net.times((right, true), (v, false));
    let moved = net.scaled(moved, 2.0);
    let v = net.binary(BinaryKind::Sub, Broadcast::Full, moved, v);
    let c = Param::at(site, "spectral_c").shape(&[rank]);
    let c = net.tensor(c.start(Init::Constant(1.0)));
    let s = net.binary(BinaryKind::Mul, Broadcast::Full, s, c);
    Parts { rest, u, s, v }
}

impl Method for SpectralAdapter {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        check_rank(values, &RANK, site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Base
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let p = parts(at, net);
        let base = net.affine(at.site, x, p.rest);
        let z = net.project(x, p.v);
        let scaled = net.b.push1(MulRows, &[z, p.s]);
        net.project_onto(base, scaled, p.u, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let p = parts(at, net);
        let us = net.b.push1(MulRows, &[p.u, p.s]);
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[us, p.v, p.rest]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let product = Product {
            rank: 2 * RANK.get(values),
            scale: 1.0,
            dropout: 0.0,
            rs_lora: false,
        };
        Some(PeftForm::lora(product, false))
    }

    /// `A = [V; V₁]`, `B = [U∘S | −U₁∘S₁]`: the change against `W₀`.
    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let (r, input, output) = (
            RANK.get(values) as usize,
            site.input() as usize,
            site.output() as usize,
        );
        let (u, s, v) = (get(LEFT)?, get(MIDDLE)?, get(RIGHT)?);
        let (new_u, new_s, new_v) = if ROTATE.get(values) {
            let (left, right) = (get("spectral_P_U")?, get("spectral_P_V")?);
            let new_u = rotated((&u, [output, r]), &left, false);
            let new_v = rotated((&v, [r, input]), &right, true);
            let c = get("spectral_c")?;
            let new_s = s.iter().zip(&c).map(|(s, c)| s * c).collect();
            (new_u, new_s, new_v)
        } else {
            let sum = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x + y).collect();
            (
                sum(&u, &get("spectral_A")?),
                s.clone(),
                sum(&v, &get("spectral_B")?),
            )
        };
        let mut b = Vec::with_capacity(output * 2 * r);
        for (new, old) in new_u.chunks_exact(r).zip(u.chunks_exact(r)) {
            b.extend(new.iter().zip(&new_s).map(|(x, s): (&f32, &f32)| x * s));
            b.extend(old.iter().zip(&s).map(|(x, s)| -x * s));
        }
        let a: Vec<f32> = [new_v, v].concat();
        Some(vec![
            ("lora_A.weight".to_owned(), vec![2 * r, input], a),
            ("lora_B.weight".to_owned(), vec![output, 2 * r], b),
        ])
    }
}

/// Row-major `x R`, or `Rᵀ x` from the left, with R the transform of `(P − Pᵀ) / 2`.
fn rotated((x, [rows, columns]): (&[f32], [usize; 2]), p: &[f32], from_left: bool) -> Vec<f32> {
    let size = if from_left { rows } else { columns };
    let p = MatRef::from_row_major_slice(p, size, size);
    let x = MatRef::from_row_major_slice(x, rows, columns);
    let wide = |x: MatRef<'_, f32>| Mat::from_fn(x.nrows(), x.ncols(), |i, j| f64::from(x[(i, j)]));
    let (p, x) = (wide(p), wide(x));
    let k = |i, j| (p[(i, j)] - p[(j, i)]) / 2.0;
    let one = |i, j| if i == j { 1.0 } else { 0.0 };
    let plus = Mat::from_fn(size, size, |i, j| one(i, j) + k(i, j));
    let minus = Mat::from_fn(size, size, |i, j| one(i, j) - k(i, j));
    let turned = times(minus.as_ref(), inverse(plus.as_ref()).as_ref());
    let made = if from_left {
        times(turned.transpose(), x.as_ref())
    } else {
        times(x.as_ref(), turned.as_ref())
    };
    let all = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
    all.map(|at| made[at] as f32).collect()
}
