//! What attention on tensor cores is compared with: the formula in f64, pair by pair, of operands rounded to bf16, or cut off
//! to TF32.
//!
//! Products of such are exact in f32, so what is left to differ is one rounding of each probability, or of its gradient,
//! before it is multiplied: at most 2⁻⁸ of that term in bf16, 2⁻¹¹ in TF32. An output may be so far off relative to the sizes of its terms, and by
//! what sums and functions in f32 lose; in 16 bits it is rounded once more.

use std::ops::AddAssign;

use super::super::attention::{Draw, WIDEST_ON_CORES};
use super::*;

/// An output's number, the sizes of its terms together, and those of what these are made of.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    size: f64,
    parts: f64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.value += other.value;
        self.size += other.size;
        self.parts += other.parts;
    }
}

impl Sum {
    /// A term of a number that is rounded, and made of parts of that size, and a factor.
    fn term(weight: f64, parts: f64, factor: f64) -> Self {
        Self {
            value: weight * factor,
            size: (weight * factor).abs(),
            parts: (parts * factor).abs(),
        }
    }
}

/// The outputs of a case, and what part of a term a rounding may take.
pub(super) struct OfRounded(Vec<Vec<Sum>>, f64);

/// A number as tensor cores read it.
fn as_read(x: f32, numbers: Precision) -> f64 {
    match numbers {
        Precision::F32 => x.into(),
        Precision::Tf32 => f32::from_bits(x.to_bits() & !0x1fff).into(),
        Precision::Bf16 => bf16::from_f32(x).to_f64(),
    }
}

/// Attention and its gradient on tensor cores; `None` of everything else.
pub(super) fn of_rounded(case: &Case) -> Option<OfRounded> {
    let (op, first) = match &case.op {
        Op::Attention(op) => (op, 0),
        Op::AttentionGrad(AttentionGrad(op)) => (op, 1),
        _ => return None,
    };
    let heads = op.heads.queries as usize;
    let head = case.inputs[0].dims[1] / heads;
    if op.precision == Precision::F32 || head as u64 > WIDEST_ON_CORES {
        return None;
    }
    let rounding = match op.precision {
        Precision::Bf16 => 2.0_f64.powi(-8),
        Precision::Tf32 | Precision::F32 => 2.0_f64.powi(-11),
    };
    let wide = |i: usize| -> Vec<f32> {
        let x = case.inputs[i].cast(DType::F32);
        x.slice().expect("f32").to_vec()
    };
    let exact = |i: usize| wide(i).into_iter().map(f64::from).collect();
    let rounded = |i: usize| -> Vec<f64> {
        let all = wide(i).into_iter();
        all.map(|x| as_read(x, op.precision)).collect()
    };
    let tail = first + if first == 0 { 3 } else { 5 };
    let offsets = case.inputs[tail].slice::<u32>().expect("offsets");
    let draw = op.dropout.as_ref().map(|dropout| {
        let words = |i: usize| case.inputs[tail + i].slice::<u32>().expect("words");
        Draw::new(dropout, words(1), words(2)[0])
    });
    let own = Operands {
        op,
        head,
        q: rounded(first),
        k: rounded(first + 1),
        v: rounded(first + 2),
        draw,
    };
    if first == 0 {
        return Some(OfRounded(own.forward(offsets), rounding));
    }
    let back = Back {
        up: rounded(0),
        exact: exact(0),
        o: exact(4),
        lse: exact(5),
    };
    Some(OfRounded(own.backward(&back, offsets), rounding))
}

/// A query of a head, and where its rows and those of its sequence's first key begin.
#[derive(Clone, Copy)]
struct Query {
    row: usize,
    h: usize,
    q: usize,
    keys: usize,
}

/// A key that a query sees: where its row begins, the score, how steep the cap is there, the factor of dropout.
struct Pair {
    key: usize,
    score: f64,
    slope: f64,
    factor: f64,
}

struct Operands<'a> {
    op: &'a Attention,
    head: usize,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    draw: Option<Draw<'a>>,
}

/// What the gradient reads besides.
struct Back {
    up: Vec<f64>,
    exact: Vec<f64>,
    o: Vec<f64>,
    lse: Vec<f64>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Operands<'_> {
    /// Every query of every head, with the pairs of which it is one.
    fn each(&self, offsets: &[u32], mut of: impl FnMut(Query, Vec<Pair>)) {
        let (heads, group) = (
            self.op.heads.queries as usize,
            self.op.heads.group() as usize,
        );
        let kd = self.head * self.op.heads.keys as usize;
        for (s, range) in offsets.windows(2).enumerate() {
            let (start, end) = (range[0] as usize, range[1] as usize);
            let (first, count) = self.op.keys(s, (start, end), &[]);
            for (row, h) in (start..end).flat_map(|row| (0..heads).map(move |h| (row, h))) {
                let query = Query {
                    row,
                    h,
                    q: (row * heads + h) * self.head,
                    keys: first * kd + h / group * self.head,
                };
                let mut factors = vec![1.0_f64; count];
                if let Some(draw) = &self.draw {
                    draw.drop((h, 0), row, &mut factors);
                }
                let seen = self
                    .op
                    .seen(row - start..row - start + 1, (end - start, count));
                let pairs = seen.map(|j| self.pair(query, query.keys + j * kd, factors[j]));
                of(query, pairs.collect());
            }
        }
    }

    fn pair(&self, query: Query, key: usize, factor: f64) -> Pair {
        let x = dot(&self.q[query.q..][..self.head], &self.k[key..][..self.head]);
        let x = x * self.op.scale.get();
        let (score, slope) = match self.op.softcap.map(Real::get) {
            Some(cap) => (cap * (x / cap).tanh(), 1.0 - (x / cap).tanh().powi(2)),
            None => (x, 1.0),
        };
        Pair {
            key,
            score,
            slope,
            factor,
        }
    }

    fn forward(&self, offsets: &[u32]) -> Vec<Vec<Sum>> {
        let mut out = vec![Sum::default(); self.q.len()];
        let mut sums = Vec::new();
        self.each(offsets, |query, pairs| {
            let sum: f64 = pairs.iter().map(|pair| pair.score.exp()).sum();
            sums.push(Sum {
                value: sum.ln(),
                size: 0.0,
                parts: 1.0 + sum.ln().abs(),
            });
            for pair in pairs {
                let p = pair.score.exp() / sum * pair.factor;
                for c in 0..self.head {
                    out[query.q + c] += Sum::term(p, p, self.v[pair.key + c]);
                }
            }
        });
        vec![out, sums]
    }

    fn backward(&self, back: &Back, offsets: &[u32]) -> Vec<Vec<Sum>> {
        let [mut dq, mut dk, mut dv] =
            [&self.q, &self.k, &self.v].map(|x| vec![Sum::default(); x.len()]);
        let heads = self.op.heads.queries as usize;
        self.each(offsets, |query, pairs| {
            let own = |x: &'_ Vec<f64>| -> Vec<f64> { x[query.q..][..self.head].to_vec() };
            let (up, sum) = (own(&back.up), dot(&own(&back.exact), &own(&back.o)));
            let scale = self.op.scale.get();
            for pair in pairs {
                let p = (pair.score - back.lse[query.row * heads + query.h]).exp();
                let to = dot(&up, &self.v[pair.key..][..self.head]) * pair.factor;
                let g = p * (to - sum) * pair.slope * scale;
                let parts = p * (to.abs() + sum.abs()) * scale;
                for c in 0..self.head {
                    dq[query.q + c] += Sum::term(g, parts, self.k[pair.key + c]);
                    dk[pair.key + c] += Sum::term(g, parts, self.q[query.q + c]);
                    dv[pair.key + c] += Sum::term(p * pair.factor, p * pair.factor, up[c]);
                }
            }
        });
        vec![dq, dk, dv]
    }
}

impl OfRounded {
    /// Compares an output, and says how many numbers it has.
    pub(super) fn compare(
        &self,
        output: usize,
        dtype: DType,
        answer: &[u8],
        what: &dyn Fn() -> String,
    ) -> usize {
        let halves = answer
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]));
        let (got, place): (Vec<f64>, f64) = match dtype {
            DType::F16 => (
                halves.map(|x| f16::from_bits(x).to_f64()).collect(),
                2.0_f64.powi(-11),
            ),
            DType::BF16 => (
                halves.map(|x| bf16::from_bits(x).to_f64()).collect(),
                2.0_f64.powi(-8),
            ),
            _ => (elements(dtype, answer), 0.0),
        };
        let want = &self.0[output];
        assert_eq!(got.len(), want.len(), "{}", what());
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let off = self.1 * want.size + 1e-5 * want.parts;
            let off = off + place * (want.value.abs() + off) + 1e-7;
            assert!(
                (got - want.value).abs() <= off,
                "{}: output {output} [{i}] in {dtype} is {got}, the formula of rounded operands gives {}, {off} is near",
                what(),
                want.value
            );
        }
        got.len()
    }
}
