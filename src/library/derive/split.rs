//! Starts of LoRA from the weight itself: a product of rank `r` is taken out of it, and what is left takes its place.

use rayon::prelude::*;

use super::svd::Svd;
use super::{BaseParam, Derive};
use crate::linalg::{in_own_threads, subtract};
use crate::program::Real;

/// What the product is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The first singular triplets, a root of the values on each side (PiSSA).
    Singular,
    /// The first columns of Q and rows of R of the QR decomposition (OLoRA).
    Orthogonal,
}

/// `W = rest + s · B A`. Its parts: the rest `[out, in]`, `B [out, r]`, `A [r, in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The weight.
    pub weight: BaseParam,
    /// Rank of the product.
    pub rank: u64,
    /// Its factor s.
    pub scale: Real,
    /// What it is made of.
    pub basis: Basis,
}

impl Split {
    /// What is left of the weight.
    pub const REST: usize = 0;
    /// The left factor.
    pub const B: usize = 1;
    /// The right factor.
    pub const A: usize = 2;

    fn sizes(&self) -> (u64, u64) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out, *input),
            _ => (0, 0),
        }
    }

    fn svd(&self) -> Svd {
        Svd {
            weight: self.weight.clone(),
            rank: self.rank,
            keep: None,
        }
    }

    /// The rest: the weight less the product, the same bits whenever it is made.
    fn without(&self, weight: &mut [f32], b: &[f32], a: &[f32]) {
        let scale = vec![self.scale.get() as f32; self.rank as usize];
        in_own_threads(|| subtract(weight, b, &scale, a));
    }
}

impl Derive for Split {
    fn what(&self) -> &'static str {
        match self.basis {
            Basis::Singular => super::DECOMPOSITION,
            Basis::Orthogonal => "QR decomposition",
        }
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        let product = self.rank * (out + input);
        match self.basis {
            // The weight is needed once more when the triplets are known.
            Basis::Singular => self.svd().scratch_bytes() + 4 * out * input + 4 * self.rank,
            // Reflectors and Q in f64, then both factors.
            Basis::Orthogonal => 8 * (2 * out * self.rank + self.rank) + 8 * product,
        }
    }

    fn make(&self, mut weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let (out, input) = self.sizes();
        let (mut b, mut a) = match self.basis {
            Basis::Singular => triplets(&self.svd(), weight.clone(), self.scale.get())?,
            Basis::Orthogonal => orthogonal(&weight, (out, input), self.rank)?,
        };
        if !b.iter().chain(&a).all(|x| x.is_finite()) {
            return Err("it holds numbers that are not finite, so it has no decomposition");
        }
        self.without(&mut weight, &b, &a);
        b.shrink_to_fit();
        a.shrink_to_fit();
        Ok(vec![weight, b, a])
    }

    fn wanted_again(&self) -> &'static [usize] {
        &[Self::B, Self::A]
    }

    fn remake(&self, mut weight: Vec<f32>, first: &[&[f32]]) -> Vec<Option<Vec<f32>>> {
        if let [b, a] = first {
            self.without(&mut weight, b, a);
        }
        vec![Some(weight), None, None]
    }
}

/// `B [out, r]` and `A [r, in]` of the first singular triplets, a root of the values over `scale` on each side.
pub(super) fn triplets(
    by: &Svd,
    weight: Vec<f32>,
    scale: f64,
) -> Result<(Vec<f32>, Vec<f32>), &'static str> {
    let input = by.weight.shape.get(1).map_or(1, |&n| n as usize);
    let mut parts = by.make(weight)?;
    let (v, s, u) = (parts.pop(), parts.pop(), parts.pop());
    let (Some(mut v), Some(s), Some(mut u)) = (v, s, u) else {
        return Err("it has no decomposition");
    };
    let root = |&s: &f32| (f64::from(s) / scale).sqrt() as f32;
    let roots: Vec<f32> = s.iter().map(root).collect();
    for row in u.chunks_exact_mut(roots.len().max(1)) {
        row.iter_mut().zip(&roots).for_each(|(x, root)| *x *= root);
    }
    for (row, root) in v.chunks_exact_mut(input.max(1)).zip(&roots) {
        row.iter_mut().for_each(|x| *x *= root);
    }
    Ok((u, v))
}

/// The first `rank` columns of Q `[out, rank]` and rows of R `[rank, in]` by Householder's reflections, with the signs of
/// LAPACK: a diagonal element of R has the other sign than the element it comes from.
pub(super) fn orthogonal(
    weight: &[f32],
    (out, input): (u64, u64),
    rank: u64,
) -> Result<(Vec<f32>, Vec<f32>), &'static str> {
    let (out, input, rank) = (out as usize, input as usize, rank as usize);
    // The panel column by column, each below its diagonal a reflector once it is done.
    let column = |j: usize| weight.iter().skip(j).step_by(input).map(|&x| f64::from(x));
    let mut panel: Vec<Vec<f64>> = (0..rank).map(|j| column(j).collect()).collect();
    let mut factors = Vec::with_capacity(rank);
    for k in 0..rank {
        let (done, rest) = panel.split_at_mut(k + 1);
        let Some(own) = done.last_mut().and_then(|c| c.get_mut(k..)) else {
            return Err("it has fewer rows than its product has columns");
        };
        let norm = own.iter().map(|x| x * x).sum::<f64>().sqrt();
        let Some(first) = own.first_mut() else {
            return Err("it has fewer rows than its product has columns");
        };
        if !norm.is_finite() {
            return Err("it holds numbers that are not finite, so it has no QR decomposition");
        }
        let beta = if *first > 0.0 { -norm } else { norm };
        *first -= beta;
        let squares: f64 = own.iter().map(|x| x * x).sum();
        let factor = if squares > 0.0 { 2.0 / squares } else { 0.0 };
        factors.push(factor);
        for other in rest {
            reflect(own, factor, other.get_mut(k..).unwrap_or_default());
        }
    }
    let q: Vec<Vec<f64>> = (0..rank)
        .into_par_iter()
        .map(|j| {
            let mut q = vec![0.0; out];
            if let Some(one) = q.get_mut(j) {
                *one = 1.0;
            }
            for (k, (own, &factor)) in panel.iter().zip(&factors).enumerate().rev() {
                let own = own.get(k..).unwrap_or_default();
                reflect(own, factor, q.get_mut(k..).unwrap_or_default());
            }
            q
        })
        .collect();
    let mut r = vec![0.0_f32; rank * input];
    r.par_chunks_mut(input.max(1)).zip(&q).for_each(|(r, q)| {
        let mut sums = vec![0.0_f64; input];
        for (row, &q) in weight.chunks_exact(input.max(1)).zip(q) {
            for (sum, &w) in sums.iter_mut().zip(row) {
                *sum += q * f64::from(w);
            }
        }
        r.iter_mut()
            .zip(&sums)
            .for_each(|(r, &sum)| *r = sum as f32);
    });
    let mut b = Vec::with_capacity(out * rank);
    for i in 0..out {
        b.extend(
            q.iter()
                .map(|q| q.get(i).copied().unwrap_or_default() as f32),
        );
    }
    Ok((b, r))
}

/// `x ← x − factor · v (v · x)`
fn reflect(v: &[f64], factor: f64, x: &mut [f64]) {
    let along: f64 = v.iter().zip(x.iter()).map(|(v, x)| v * x).sum();
    for (x, v) in x.iter_mut().zip(v) {
        *x -= factor * along * v;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Stream;

    fn split(basis: Basis, out: u64, input: u64) -> (Split, Vec<f32>) {
        let by = Split {
            weight: BaseParam::weight("a", [out, input]),
            rank: 3,
            scale: Real::new(0.5),
            basis,
        };
        let stream = Stream::new(5, "split");
        let weight = (0..out * input).map(|i| stream.normal(i) as f32).collect();
        (by, weight)
    }

    #[test]
    fn product_and_rest_are_the_weight_and_the_rest_is_made_again_with_the_same_bits() {
        for basis in [Basis::Singular, Basis::Orthogonal] {
            for (out, input) in [(7, 5), (5, 7), (3, 3)] {
                let (by, weight) = split(basis, out, input);
                let parts = by.make(weight.clone()).expect("made");
                let [rest, b, a] = &parts[..] else {
                    panic!("three parts")
                };
                for i in 0..out as usize {
                    for j in 0..input as usize {
                        let product: f32 = (0..3)
                            .map(|k| b[i * 3 + k] * a[k * input as usize + j])
                            .sum();
                        let at = i * input as usize + j;
                        assert!((rest[at] + 0.5 * product - weight[at]).abs() < 1e-5);
                    }
                }
                let again = by.remake(weight, &[b, a]);
                assert_eq!(again[0].as_ref(), Some(rest));
            }
        }
    }

    #[test]
    fn q_is_orthogonal_and_signs_are_lapacks() {
        let (by, weight) = split(Basis::Orthogonal, 7, 5);
        let parts = by.make(weight.clone()).expect("made");
        let (q, r) = (&parts[Split::B], &parts[Split::A]);
        for k in 0..3 {
            for l in 0..3 {
                let dot: f32 = (0..7).map(|i| q[i * 3 + k] * q[i * 3 + l]).sum();
                assert!((dot - f32::from(u8::from(k == l))).abs() < 1e-5);
            }
            for j in 0..k {
                assert!(r[k * 5 + j].abs() < 1e-5, "R is upper triangular");
            }
        }
        assert!(r[0] * weight[0] < 0.0);
        let mut broken = weight;
        broken[4] = f32::NAN;
        broken[0] = f32::INFINITY;
        assert!(by.make(broken).is_err());
    }
}
