//! PSOFT: `W = W₀ + U Σ (R − I) V` of the first singular triplets, with R a rotation between two scalings.

use super::super::derive::{BaseParam, Derivation, Svd};
use super::super::net::{Init, Param};
use super::super::schema::{Bound, Given, Maybe, kind};
use super::lora::{DROPOUT, ON, check_rank};
use super::rotation::{Rotation, above, skew};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Product, Schema, Site, Stacking,
    Value, Values,
};
use crate::library::error::IDLE_KEY;
use crate::linalg::{inverse, times};
use crate::program::Real;
use crate::program::op::{
    ActivationKind, BinaryKind, Broadcast, Epilogue, MatMul, MulRows, Over, ReduceKind, UnaryKind,
};

/// A rotation in the principal subspace.
#[derive(Debug)]
pub struct Psoft;

const RANK: Given<u64> = Given::<u64>::new(
    "rank",
    kind::WIDTH,
    (32, "32"),
    "width r of the principal subspace",
);
const ORTHOGONAL: Given<bool> = Given::<bool>::new(
    "orthogonal",
    kind::BOOL,
    (true, "true"),
    "R is a rotation; a free matrix if not",
);
const SCALE_IN: Given<bool> = Given::<bool>::new(
    "scale_in",
    kind::BOOL,
    (true, "true"),
    "learn a factor of each coordinate before the rotation",
);
const SCALE_OUT: Given<bool> = Given::<bool>::new(
    "scale_out",
    kind::BOOL,
    (true, "true"),
    "learn a factor of each coordinate behind it",
);
const BASIS: Given<str> = Given::<str>::new(
    "basis",
    kind::choice(&["orthonormal", "even"]),
    ("orthonormal", "orthonormal"),
    "where the singular values stand: behind R, whose coordinates are then orthonormal; or a root of them on each side, as in PiSSA",
);
const EXACT: Given<bool> = Given::<bool>::new(
    "exact",
    kind::BOOL,
    (true, "true"),
    "Cayley's transform itself, with an inverse; its series if not",
);
const TERMS: Given<u64> =
    Given::<u64>::tacit("terms", kind::int(2, 64), (5, "5"), "terms of the series");
const BOUND: Maybe<f64> = Maybe::new(
    "bound",
    kind::float(Bound::Excl(0.0), Bound::Excl(1.0)),
    "the largest Frobenius norm of the series' matrix, which is scaled down to it",
);

static SCHEMA: Schema = Schema {
    name: "psoft",
    summary: "principal subspace orthogonal fine-tuning: the first singular vectors of each matrix are rotated and scaled",
    doc: "W0 = U Σ V is decomposed once; y = x W0ᵀ + ((R − I) (V dropout(x)))ᵀ Σ Uᵀ + b with the first `rank` triplets, frozen. \
          R = diag(β) Q diag(α) with Q Cayley's transform (I + S)(I − S)⁻¹ of a skew-symmetric S, whose r(r−1)/2 numbers are trained \
          from 0 on, and α and β from 1 on, so that the model starts unchanged. The paper's alpha cancels out. U [out, rank], Σ and \
          V [rank, in] are kept by adapters. Merges exactly. For peft it is a LoRA of the same rank: its PSOFT computes the singular vectors \
          again, and their signs are those of whatever library does.",
    paper: "Wu et al. 2026, \"Efficient Orthogonal Fine-Tuning with Principal Subspace Adaptation\" (openreview FSHrinMArK)",
    keys: &[
        RANK.key(),
        ORTHOGONAL.key(),
        SCALE_IN.key(),
        SCALE_OUT.key(),
        BASIS.key(),
        EXACT.key(),
        TERMS.key(),
        BOUND.key(),
        DROPOUT.key(),
        ON.key(),
    ],
};

const ROTATION: &str = "psoft_R.weight";
const FACTORS: [&str; 2] = ["psoft_R.vector_a", "psoft_R.vector_b"];
const VECTORS: [&str; 3] = ["psoft_U", "psoft_S", "psoft_V"];
/// What keeps a root of nothing from having no gradient.
const TINY: f64 = 1e-24;

struct Parts {
    u: Value,
    v: Value,
    /// What stands behind R: the singular values or their roots.
    s: Value,
    /// Whether it stands before R, too.
    even: bool,
    turn: Turn,
    before: Option<Value>,
    behind: Option<Value>,
}

enum Turn {
    Rotation(Rotation, bool),
    Free(Value),
    /// A series of one term.
    Still(Value),
}

impl Turn {
    /// What it is made of.
    fn matrix(&self) -> Value {
        match self {
            Self::Rotation(rotation, _) => rotation.matrix(),
            Self::Free(matrix) | Self::Still(matrix) => *matrix,
        }
    }
}

fn rotation(at: &At<'_>, net: &mut Net<'_>, rank: u64) -> Turn {
    if !ORTHOGONAL.get(at.values) {
        let free = Param::at(at.site, ROTATION).shape(&[rank, rank]);
        return Turn::Free(net.tensor(free.start(Init::Identity)));
    }
    let angles = net.tensor(Param::at(at.site, ROTATION).shape(&[above(rank)]));
    let angles = net.reshaped(angles, 1, above(rank));
    let mut q = skew(net, angles, (1, rank));
    if EXACT.get(at.values) {
        return Turn::Rotation(Rotation::cayley(net, q, 1), true);
    }
    if let Some(bound) = BOUND.get(at.values) {
        // min(1, bound / ‖Q‖) = 1 − relu(1 − bound / ‖Q‖)
        let squares = net.reduce(ReduceKind::SumOfSquares, Over::All, q);
        let tiny = constant(net, TINY);
        let squares = net.add(squares, tiny);
        let lengths = net.unary(UnaryKind::Rsqrt, squares);
        let (one, factor) = (constant(net, 1.0), net.scaled(lengths, bound));
        let less = net.binary(BinaryKind::Sub, Broadcast::Full, one, factor);
        let less = net.activation(ActivationKind::Relu, less);
        let factor = net.binary(BinaryKind::Sub, Broadcast::Full, one, less);
        q = net.binary(BinaryKind::Mul, Broadcast::Scalar, q, factor);
    }
    match Rotation::neumann(net, q, (1, TERMS.get(at.values))) {
        Some(rotation) => Turn::Rotation(rotation, false),
        None => Turn::Still(q),
    }
}

/// `[1]`
fn constant(net: &mut Net<'_>, value: f64) -> Value {
    let value = Real::new(value);
    let dtype = crate::program::DType::F32;
    net.b
        .push1(crate::program::op::Constant { value, dtype }, &[])
}

fn parts(at: &At<'_>, net: &mut Net<'_>) -> Parts {
    let (site, values) = (at.site, at.values);
    let (output, input, rank) = (site.output(), site.input(), RANK.get(values));
    let by = Derivation::from(Svd {
        weight: BaseParam::weight(&site.path, [output, input]),
        rank,
        keep: None,
    });
    let part = |name, shape: &[u64], part| {
        let by = by.clone();
        let param = Param::at(site, name).shape(shape);
        param.start(Init::Derived { by, part }).frozen()
    };
    let [u, s, v] = VECTORS;
    let u = net.tensor(part(u, &[output, rank], Svd::U));
    let s = net.tensor(part(s, &[rank], Svd::S));
    let v = net.tensor(part(v, &[rank, input], Svd::V));
    let even = BASIS.get(values) == "even";
    let s = if even {
        net.unary(UnaryKind::Sqrt, s)
    } else {
        s
    };
    let turn = rotation(at, net, rank);
    let mut factor = |name, there: bool| {
        let ones = Param::at(site, name).shape(&[rank]);
        there.then(|| net.tensor(ones.start(Init::Constant(1.0))))
    };
    let [before, behind] = FACTORS;
    let before = factor(before, SCALE_IN.get(values));
    let behind = factor(behind, SCALE_OUT.get(values));
    Parts {
        u,
        v,
        s,
        even,
        turn,
        before,
        behind,
    }
}

impl Parts {
    /// `z (R − I)ᵀ` of rows, or `z (R − I)`.
    fn moved(&self, net: &mut Net<'_>, z: Value, transposed: bool) -> Value {
        let (first, last) = if transposed {
            (self.before, self.behind)
        } else {
            (self.behind, self.before)
        };
        let scale = |net: &mut Net<'_>, z, by: Option<Value>| match by {
            Some(by) => net.b.push1(MulRows, &[z, by]),
            None => z,
        };
        let turned = scale(net, z, first);
        let turned = match &self.turn {
            // The inverse stands for the transpose of Q.
            Turn::Rotation(rotation, exact) => rotation.of_rows(net, turned, transposed != *exact),
            Turn::Free(free) => net.times((turned, false), (*free, transposed)),
            Turn::Still(_) => turned,
        };
        let turned = scale(net, turned, last);
        net.binary(BinaryKind::Sub, Broadcast::Full, turned, z)
    }
}

impl Method for Psoft {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        let idle = |key: &'static str, is_written: bool, of: &str| {
            is_written.then(|| Complaint {
                key,
                code: &IDLE_KEY,
                message: format!("`{key}` says something of {of}, which these values do without"),
                help: Some(format!("remove `{key}`")),
            })
        };
        let series = ORTHOGONAL.get(values) && !EXACT.get(values);
        let cayley = !ORTHOGONAL.get(values) && EXACT.is_written(values);
        check_rank(values, &RANK, site)
            .or_else(|| idle(EXACT.name(), cayley, "a rotation"))
            .or_else(|| {
                idle(
                    TERMS.name(),
                    !series && TERMS.is_written(values),
                    "the series",
                )
            })
            .or_else(|| {
                idle(
                    BOUND.name(),
                    !series && BOUND.is_written(values),
                    "the series",
                )
            })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let p = parts(at, net);
        let x = net.dropout_before(x, DROPOUT.get(at.values), p.turn.matrix());
        let mut z = net.project(x, p.v);
        if p.even {
            z = net.b.push1(MulRows, &[z, p.s]);
        }
        let moved = p.moved(net, z, true);
        let moved = net.b.push1(MulRows, &[moved, p.s]);
        net.project_onto(base, moved, p.u, 1.0)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let p = parts(at, net);
        let left = net.b.push1(MulRows, &[p.u, p.s]);
        let left = p.moved(net, left, false);
        let right = if p.even {
            net.binary(BinaryKind::Mul, Broadcast::Column, p.v, p.s)
        } else {
            p.v
        };
        let op = MatMul {
            epilogue: Epilogue::Accumulate,
            ..MatMul::plain(false, false, Real::new(1.0))
        };
        Some(net.b.push1(op, &[left, right, weight]))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let product = Product {
            rank: RANK.get(values),
            scale: 1.0,
            dropout: DROPOUT.get(values),
            rs_lora: false,
        };
        Some(PeftForm::lora(product, false))
    }

    /// `A = V`, `B = U Σ (R − I)`, with roots on both sides where the basis is even.
    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let r = RANK.get(values) as usize;
        let [u, s, v] = VECTORS;
        let (u, mut s, mut v) = (get(u)?, get(s)?, get(v)?);
        let (input, output) = (site.input() as usize, site.output() as usize);
        if BASIS.get(values) == "even" {
            s.iter_mut().for_each(|s| *s = s.sqrt());
            let rows = v.chunks_exact_mut(input.max(1)).zip(&s);
            rows.for_each(|(row, s)| row.iter_mut().for_each(|v| *v *= s));
        }
        let moved = moved(values, get, r)?;
        let mut b = Vec::with_capacity(output * r);
        for row in u.chunks_exact(r.max(1)) {
            let mut sums = vec![0.0; r];
            for ((u, s), own) in row.iter().zip(&s).zip(moved.chunks_exact(r.max(1))) {
                let left = f64::from(*u) * f64::from(*s);
                sums.iter_mut()
                    .zip(own)
                    .for_each(|(sum, m)| *sum += left * m);
            }
            b.extend(sums.into_iter().map(|x| x as f32));
        }
        Some(vec![
            ("lora_A.weight".to_owned(), vec![r, input], v),
            ("lora_B.weight".to_owned(), vec![output, r], b),
        ])
    }
}

/// `R − I`, row by row.
fn moved(values: &Values, get: &Lookup<'_>, r: usize) -> Option<Vec<f64>> {
    let eye = |i: usize| {
        if i / r.max(1) == i % r.max(1) {
            1.0
        } else {
            0.0
        }
    };
    let mut all: Vec<f64> = if ORTHOGONAL.get(values) {
        turned(values, &get(ROTATION)?, r)
    } else {
        get(ROTATION)?.into_iter().map(f64::from).collect()
    };
    let [before, behind] = FACTORS;
    if SCALE_IN.get(values) {
        let by = get(before)?;
        let rows = all.chunks_exact_mut(r.max(1));
        rows.for_each(|row| {
            row.iter_mut()
                .zip(&by)
                .for_each(|(x, a)| *x *= f64::from(*a))
        });
    }
    if SCALE_OUT.get(values) {
        let rows = all.chunks_exact_mut(r.max(1)).zip(get(behind)?);
        rows.for_each(|(row, b)| row.iter_mut().for_each(|x| *x *= f64::from(b)));
    }
    Some(
        all.into_iter()
            .enumerate()
            .map(|(i, x)| x - eye(i))
            .collect(),
    )
}

/// Cayley's transform `(I + S)(I − S)⁻¹`, or its series.
fn turned(values: &Values, angles: &[f32], r: usize) -> Vec<f64> {
    let mut s = faer::Mat::<f64>::zeros(r, r);
    let places = (0..r).flat_map(|i| (i + 1..r).map(move |j| (i, j)));
    for ((i, j), x) in places.zip(angles) {
        (s[(i, j)], s[(j, i)]) = (f64::from(*x), -f64::from(*x));
    }
    let eye = faer::Mat::<f64>::identity(r, r);
    let made = if EXACT.get(values) {
        times((&eye + &s).as_ref(), inverse((&eye - &s).as_ref()).as_ref())
    } else {
        if let Some(bound) = BOUND.get(values) {
            let length = s.norm_l2();
            if length > bound {
                s *= faer::Scale(bound / length);
            }
        }
        // Three terms and four are the same.
        let last = TERMS.get(values).max(2) - 1;
        let last = if last == 2 { 3 } else { last };
        let (mut power, mut sum) = (eye.clone(), eye);
        for i in 1..=last {
            power = times(power.as_ref(), s.as_ref());
            // The last has the factor 1, but for the series of two terms.
            let factor = if i == last && last > 1 { 1.0 } else { 2.0 };
            sum += faer::Scale(factor) * &power;
        }
        sum
    };
    (0..r)
        .flat_map(|i| (0..r).map(move |j| (i, j)))
        .map(|at| made[at])
        .collect()
}
