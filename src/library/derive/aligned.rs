//! Singular vectors of a weight, and the pairs of a left and a right one that are aligned best.

use super::svd::DECOMPOSITION;
use super::{BaseParam, Derive};
use crate::library::counts::to_u32;
use crate::linalg::{decompose, in_own_threads, svd_scratch_bytes};

/// What pairs are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// `uᵢᵀ vⱼ`, of a square weight.
    Products,
    /// What SVFT's authors' code has: `U Vᵀ` of a square weight with `V [in, rank]`, which pairs rows; of another whichever of the
    /// two factors is square.
    Reference,
}

/// The first `rank` triplets of `W = U diag(S) V` without S, and the `count` pairs with the largest scores. Its parts: `U [out, rank]`,
/// `V [rank, in]`, and the pairs' places in a matrix `[rank, rank]`, in order, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aligned {
    /// The weight.
    pub weight: BaseParam,
    /// How many vectors.
    pub rank: u64,
    /// How many pairs.
    pub count: u64,
    /// What they are ranked by.
    pub by: Alignment,
}

impl Aligned {
    /// Left vectors.
    pub const U: usize = 0;
    /// Right vectors.
    pub const V: usize = 1;
    /// Places of the pairs.
    pub const PLACES: usize = 2;

    fn sizes(&self) -> (usize, usize) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out as usize, *input as usize),
            _ => (0, 0),
        }
    }

    /// The scores `[rank, rank]`.
    fn scores(&self, u: &[f32], v: &[f32]) -> Vec<f32> {
        let ((out, input), rank) = (self.sizes(), self.rank as usize);
        let at = |list: &[f32], i: usize| list.get(i).copied().unwrap_or_default();
        let sum = |i: usize, j: usize| -> f32 {
            let terms = (0..rank.max(out)).map(|a| match self.by {
                Alignment::Products => {
                    f64::from(at(u, a * rank + i)) * f64::from(at(v, j * input + a))
                }
                Alignment::Reference => {
                    f64::from(at(u, i * rank + a)) * f64::from(at(v, j * input + a))
                }
            });
            terms.sum::<f64>() as f32
        };
        match (self.by, out.cmp(&input)) {
            (Alignment::Products, _) | (_, std::cmp::Ordering::Equal) => {
                use rayon::prelude::*;
                (0..rank * rank)
                    .into_par_iter()
                    .map(|p| sum(p / rank, p % rank))
                    .collect()
            }
            (Alignment::Reference, std::cmp::Ordering::Less) => u.to_vec(),
            (Alignment::Reference, std::cmp::Ordering::Greater) => v.to_vec(),
        }
    }
}

impl Derive for Aligned {
    fn what(&self) -> &'static str {
        DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        svd_scratch_bytes(out as u64, input as u64, self.rank, None)
            + 16 * self.rank * self.rank
            + 4 * self.count
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let ((out, input), rank) = (self.sizes(), self.rank as usize);
        let d = in_own_threads(|| decompose(&weight, out, input, rank, None))?;
        drop(weight);
        let scores = self.scores(&d.u, &d.v);
        let mut order: Vec<u32> = (0..to_u32(rank * rank)).collect();
        let score = |i: u32| scores.get(i as usize).copied().unwrap_or_default();
        // The largest with their signs; of equal ones the first.
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        order.truncate(self.count as usize);
        order.sort_unstable();
        let places = order.into_iter().map(f32::from_bits).collect();
        Ok(vec![d.u, d.v, places])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(by: &Aligned, weight: &[f32]) -> Vec<u32> {
        let made = by.make(weight.to_vec()).expect("finite");
        made[Aligned::PLACES].iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn pairs_that_point_alike_come_first() {
        // The left vectors are e₂, e₁, e₃ and the right ones e₁, e₂, e₃.
        let weight = [0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let by = |count, by| Aligned {
            weight: BaseParam::weight("a", [3, 3]),
            rank: 3,
            count,
            by,
        };
        assert_eq!(places(&by(3, Alignment::Products), &weight), [1, 3, 8]);
        assert_eq!(places(&by(3, Alignment::Reference), &weight), [1, 3, 8]);
        let wide = Aligned {
            weight: BaseParam::weight("a", [2, 3]),
            rank: 2,
            count: 2,
            by: Alignment::Reference,
        };
        // U is square: [[0, 1], [1, 0]].
        assert_eq!(places(&wide, &[0.0, 2.0, 0.0, 3.0, 0.0, 0.0]), [1, 2]);
    }
}
