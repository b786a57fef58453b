//! LoKr (methods R7): `ΔW = s · W₁ ⊗ W₂`, a Kronecker product.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Init, Param};
use super::super::peft::Fate::{Used, WithoutEffect};
use super::super::peft::{Keys, Misfit, Reading, START as BEGAN};
use super::super::schema::{Checked, Given, Maybe, kind};
use super::lora::{ALPHA, ALPHAS, MODULES_TO_SAVE, ON, RANK, RANKS};
use super::weight_drop::{MODULE_DROPOUT, RANK_DROPOUT, RANK_DROPOUT_SCALE, drop_update};
use super::{
    At, Complaint, Lookup, Method, Net, PeftForm, PeftTensor, Schema, Site, Stacking, Value,
    Values, number,
};
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{Arrange, Epilogue, MatMul};
use crate::program::{Dim, Real};

/// A Kronecker product of two small matrices, one of which may be a product of rank `r`.
#[derive(Debug)]
pub struct Lokr;

const FACTOR: Maybe<u64> = Maybe::new(
    "factor",
    kind::WIDTH,
    "how both sides are cut: W1 has so many rows and columns where that divides the side; the divisors nearest to the root where it is not written",
);
const BOTH: Given<bool> = Given::<bool>::new(
    "decompose_both",
    kind::BOOL,
    (false, "false"),
    "whether W1 is a product of rank `rank` too, where that is smaller than half of its larger side",
);
const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["peft", "lycoris"]),
    ("peft", "peft"),
    "which factor starts at 0: W1, as peft has it, or W2, as LyCORIS has it",
);
static SCHEMA: Schema = Schema {
    name: "lokr",
    summary: "low-rank Kronecker product: the product of a small matrix with a larger one of low rank",
    doc: "y = x W0ᵀ + b + s · x (W1 ⊗ W2)ᵀ, s = alpha / rank. Each side is cut into two factors, W1 has the smaller ones. W2 is a \
          product W2a W2b of rank `rank` unless that is at least half of its larger side. W1 starts at zero, so the model starts \
          unchanged, and the others uniform in ±1/√columns. The Kronecker product is never formed: it costs two small \
          products. Merges exactly into plain weights and is written in peft's format.",
    paper: "Yeh et al. 2024 (arXiv 2309.14859); Edalati et al. 2022 (arXiv 2212.10650)",
    keys: &[
        RANK.key(),
        ALPHA.key(),
        RANKS.key(),
        ALPHAS.key(),
        FACTOR.key(),
        BOTH.key(),
        INIT.key(),
        RANK_DROPOUT.key(),
        RANK_DROPOUT_SCALE.key(),
        MODULE_DROPOUT.key(),
        MODULES_TO_SAVE.key(),
        ON.key(),
    ],
};

/// The sides of both factors: W₁ is `[rows.0, columns.0]`, W₂ `[rows.1, columns.1]`.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    pub(super) rows: (u64, u64),
    pub(super) columns: (u64, u64),
}

/// A side as a product of two numbers: `factor` and the rest where it divides, else the divisors nearest to the root, the
/// smaller first, which is at most `factor`.
fn factorization(side: u64, factor: Option<u64>) -> (u64, u64) {
    if let Some(factor) = factor
        && side.is_multiple_of(factor)
    {
        return (factor, side / factor);
    }
    let most = factor.unwrap_or(side);
    let mut best = (1, side);
    let mut at = 1;
    while at * at <= side && at <= most {
        if side.is_multiple_of(at) {
            best = (at, side / at);
        }
        at += 1;
    }
    best
}

impl Sides {
    pub(super) fn of(site: &Site, factor: Option<u64>) -> Self {
        Self {
            rows: factorization(site.output(), factor),
            columns: factorization(site.input(), factor),
        }
    }

    /// Whether W₁ and W₂ are products of rank `r` (peft's rule).
    fn in_products(self, both: bool, rank: u64) -> [bool; 2] {
        let small = |a: u64, b: u64| rank.saturating_mul(2) < a.max(b);
        [
            both && small(self.rows.0, self.columns.0),
            small(self.rows.1, self.columns.1),
        ]
    }
}

pub(super) const NAMES: [&str; 2] = ["lokr_w1", "lokr_w2"];

/// W₁ and W₂.
fn factors(at: &At<'_>, net: &mut Net<'_>) -> [Value; 2] {
    let (site, values) = (at.site, at.values);
    let sides = Sides::of(site, FACTOR.get(values));
    let rank = RANK.get(values);
    let products = sides.in_products(BOTH.get(values), rank);
    let shapes = [
        [sides.rows.0, sides.columns.0],
        [sides.rows.1, sides.columns.1],
    ];
    let zero = usize::from(INIT.get(values) == "lycoris");
    let uniform = |columns: u64| Init::Uniform(1.0 / (columns as f64).sqrt());
    let mut made = Vec::with_capacity(2);
    for (i, (name, [rows, columns])) in NAMES.into_iter().zip(shapes).enumerate() {
        let still = i == zero;
        if products[i] {
            // peft has the left factor of W₁ at zero, LyCORIS the right one of W₂.
            let left = Param::at(site, &format!("{name}_a")).shape(&[rows, rank]);
            let right = Param::at(site, &format!("{name}_b")).shape(&[rank, columns]);
            let left = if still && i == 0 {
                left
            } else {
                left.start(uniform(rank))
            };
            let right = if still && i == 1 {
                right
            } else {
                right.start(uniform(columns))
            };
            let (left, right) = (net.tensor(left), net.tensor(right));
            let op = MatMul::plain(false, false, Real::new(1.0));
            made.push(net.b.push1(op, &[left, right]));
        } else {
            let own = Param::at(site, name).shape(&[rows, columns]);
            let own = if still {
                own
            } else {
                own.start(uniform(columns))
            };
            made.push(net.tensor(own));
        }
    }
    [made[0], made[1]]
}

/// Columns `i · b + j` at `j · a + i`: `a` runs of `b` columns become `b` runs of `a`.
fn turned(net: &mut Net<'_>, x: Value, (a, b): (u64, u64)) -> Value {
    let columns = (0..b).flat_map(|j| (0..a).map(move |i| [(i * b + j, false)]));
    net.b.push1(Arrange::new(a * b, columns), &[x])
}

/// Each of the `parts` runs of columns in a row times the same matrix, scaled.
fn by_parts(
    net: &mut Net<'_>,
    (x, parts): (Value, u64),
    (matrix, scale): (Value, f64),
    [from, to]: [u64; 2],
) -> Value {
    let rows = net.b.ty(x).shape.first().copied();
    let rows = rows.unwrap_or_else(|| Dim::from(1));
    let x = net.reshaped(x, rows.times(parts), from);
    let op = MatMul::linear(Real::new(scale), Epilogue::None);
    let y = net.b.push1(op, &[x, matrix]);
    net.reshaped(y, rows, parts * to)
}

/// `scale · x (W₁ ⊗ W₂)ᵀ`, `[N, in] → [N, out]`, without the Kronecker product.
pub(super) fn applied(
    net: &mut Net<'_>,
    sides: Sides,
    [one, two]: [Value; 2],
    (x, scale): (Value, f64),
) -> Value {
    let Sides {
        rows: (l, k),
        columns: (m, n),
    } = sides;
    // Rows [m, n] by W₂, then their transposes by W₁: the cheaper first.
    if n * m * k + m * k * l <= m * n * l + n * l * k {
        let y = by_parts(net, (x, m), (two, scale), [n, k]);
        let y = turned(net, y, (m, k));
        let y = by_parts(net, (y, k), (one, 1.0), [m, l]);
        turned(net, y, (k, l))
    } else {
        let x = turned(net, x, (m, n));
        let y = by_parts(net, (x, n), (one, scale), [m, l]);
        let y = turned(net, y, (n, l));
        by_parts(net, (y, l), (two, 1.0), [n, k])
    }
}

/// `W + scale · W₁ ⊗ W₂`
pub(super) fn added(
    net: &mut Net<'_>,
    sides: Sides,
    [one, two]: [Value; 2],
    (weight, scale): (Value, f64),
) -> Value {
    let Sides {
        rows: (l, k),
        columns: (m, n),
    } = sides;
    // Every element of one times every element of the other, `[l·m, k·n]`, and the axes in the order l, k, m, n.
    let (one, two) = (net.reshaped(one, l * m, 1), net.reshaped(two, 1, k * n));
    let op = MatMul::plain(false, false, Real::new(scale));
    let all = net.b.push1(op, &[one, two]);
    let all = net.reshaped(all, l, m * k * n);
    let order = (0..k).flat_map(|i| {
        (0..m).flat_map(move |j| (0..n).map(move |c| [((j * k + i) * n + c, false)]))
    });
    let all = net.b.push1(Arrange::new(m * k * n, order), &[all]);
    let all = net.reshaped(all, l * k, m * n);
    net.add(weight, all)
}

fn scale(values: &Values) -> f64 {
    ALPHA.get(values) / RANK.get(values) as f64
}

/// What peft's format says of a Kronecker product.
pub(super) fn form(
    (rank, alpha): (u64, f64),
    factor: Option<u64>,
    values: &Values,
    init: serde_json::Value,
) -> PeftForm {
    let factor = factor.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    let keys = vec![
        ("alpha", number(alpha)),
        ("alpha_pattern", json!({})),
        ("decompose_both", json!(BOTH.get(values))),
        ("decompose_factor", json!(factor)),
        ("init_weights", init),
        ("module_dropout", json!(MODULE_DROPOUT.get(values))),
        ("r", json!(rank)),
        ("rank_dropout", json!(RANK_DROPOUT.get(values))),
        ("rank_dropout_scale", json!(RANK_DROPOUT_SCALE.get(values))),
        ("rank_pattern", json!({})),
        ("use_effective_conv2d", json!(false)),
    ];
    PeftForm {
        kind: "LOKR",
        keys,
        product: None,
    }
}

const PEFT_KEYS: Keys = &[
    ("alpha", Used),
    ("alpha_pattern", Used),
    ("decompose_both", Used),
    ("decompose_factor", Used),
    ("init_weights", WithoutEffect(BEGAN)),
    ("module_dropout", Used),
    ("r", Used),
    ("rank_dropout", Used),
    ("rank_dropout_scale", Used),
    ("rank_pattern", Used),
    ("use_effective_conv2d", WithoutEffect("of convolutions")),
];

impl Method for Lokr {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, _: &Site) -> Option<Complaint> {
        let idle = RANK_DROPOUT_SCALE.get(values) && RANK_DROPOUT.get(values) == 0.0;
        idle.then(|| Complaint {
            key: RANK_DROPOUT_SCALE.name(),
            code: &BAD_METHOD_VALUES,
            message: "`rank_dropout_scale` has no effect without `rank_dropout`".to_owned(),
            help: Some("write `rank_dropout = 0.1`, or remove it".to_owned()),
        })
    }

    fn linear(&self, at: &At<'_>, net: &mut Net<'_>, x: Value) -> Value {
        let base = at.linear(net, x);
        let sides = Sides::of(at.site, FACTOR.get(at.values));
        let factors = factors(at, net);
        let update = applied(net, sides, factors, (x, scale(at.values)));
        let update = drop_update(at, net, update);
        net.add(base, update)
    }

    fn merged(&self, at: &At<'_>, net: &mut Net<'_>) -> Option<Value> {
        let weight = at.weight(net)?;
        let sides = Sides::of(at.site, FACTOR.get(at.values));
        let factors = factors(at, net);
        Some(added(net, sides, factors, (weight, scale(at.values))))
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let init = match INIT.get(values) {
            "lycoris" => json!("lycoris"),
            _ => json!(true),
        };
        let of = (RANK.get(values), ALPHA.get(values));
        Some(form(of, FACTOR.get(values), values, init))
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "LOKR").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let config = file.config();
        let (rank, alpha) = (config.positive("r", 8)?, config.number("alpha", 8.0)?);
        let ranks = config.patterns("rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?;
        let alphas = config.patterns("alpha_pattern", |v| v.as_f64().filter(|&a| a > 0.0))?;
        let factor = config.number("decompose_factor", -1.0)?;
        let factor = (factor >= 1.0).then_some(factor as u64);
        let both = config.flag("decompose_both", false)?;
        let (rows, whole) = (config.rate("rank_dropout")?, config.rate("module_dropout")?);
        let scaled = config.flag("rank_dropout_scale", false)? && rows > 0.0;
        for place in file.places()? {
            let rank = ranks.of(&place.module).unwrap_or(rank);
            let alpha = alphas.of(&place.module).unwrap_or(alpha);
            let mut values = vec![
                (RANK.name(), Checked::Int(rank)),
                (ALPHA.name(), Checked::Float(alpha)),
                (BOTH.name(), Checked::Bool(both)),
                (RANK_DROPOUT.name(), Checked::Float(rows)),
                (RANK_DROPOUT_SCALE.name(), Checked::Bool(scaled)),
                (MODULE_DROPOUT.name(), Checked::Float(whole)),
            ];
            values.extend(factor.map(|n| (FACTOR.name(), Checked::Int(n))));
            let sides = Sides::of(place.site, factor);
            let products = sides.in_products(both, rank);
            let shapes = [
                (sides.rows.0, sides.columns.0),
                (sides.rows.1, sides.columns.1),
            ];
            for ((name, (rows, columns)), product) in NAMES.into_iter().zip(shapes).zip(products) {
                let mut take = |name: &str, shape: [u64; 2]| {
                    file.take(&place.name(name), place.own(name), &shape)
                };
                if product {
                    take(&format!("{name}_a"), [rows, rank])?;
                    take(&format!("{name}_b"), [rank, columns])?;
                } else {
                    take(name, [rows, columns])?;
                }
            }
            let first = if products[0] { "lokr_w1_a" } else { "lokr_w1" };
            file.idle(&place.name(first), 0.0);
            file.put(&Lokr, place.site, values);
        }
        Ok(())
    }

    fn peft_tensors(
        &self,
        values: &Values,
        site: &Site,
        get: &Lookup<'_>,
    ) -> Option<Vec<PeftTensor>> {
        let sides = Sides::of(site, FACTOR.get(values));
        let rank = RANK.get(values);
        let mut tensors = Vec::new();
        let mut put = |name: String, rows: u64, columns: u64| {
            let data = get(&name)?;
            tensors.push((name, vec![rows as usize, columns as usize], data));
            Some(())
        };
        let shapes = [
            (sides.rows.0, sides.columns.0),
            (sides.rows.1, sides.columns.1),
        ];
        for ((name, (rows, columns)), product) in NAMES
            .into_iter()
            .zip(shapes)
            .zip(sides.in_products(BOTH.get(values), rank))
        {
            if product {
                put(format!("{name}_a"), rows, rank)?;
                put(format!("{name}_b"), rank, columns)?;
            } else {
                put(name.to_owned(), rows, columns)?;
            }
        }
        Some(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_cut_as_peft_cuts_them() {
        let cut = |side, factor| factorization(side, factor);
        assert_eq!(cut(64, None), (8, 8));
        assert_eq!(cut(128, None), (8, 16));
        assert_eq!(cut(768, None), (24, 32));
        assert_eq!(cut(127, None), (1, 127));
        assert_eq!(cut(360, None), (18, 20));
        assert_eq!(cut(64, Some(4)), (4, 16));
        assert_eq!(cut(128, Some(32)), (32, 4));
        assert_eq!(cut(360, Some(50)), (18, 20));
        assert_eq!(cut(512, Some(10)), (8, 64));
    }
}
