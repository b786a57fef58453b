//! Singular value decompositions of weights: the first triplets of a matrix, and what they leave.

use super::{BaseParam, Derive};
use crate::linalg::{decompose, in_own_threads, rest, subtract, svd_scratch_bytes};

/// What a decomposition is called in reports.
pub const DECOMPOSITION: &str = "singular value decomposition";

/// The singular value decomposition `W = U diag(S) V` of a weight. Its parts: what the top `rank` triplets leave of the
/// weight `[out, in]` (or of its best approximation of rank `keep`), `U [out, rank]`, `S [rank]`, `V [rank, in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svd {
    /// The weight.
    pub weight: BaseParam,
    /// Triplets in U, S, V.
    pub rank: u64,
    /// Triplets kept in all; `None` is all of them.
    pub keep: Option<u64>,
}

impl Svd {
    /// What the triplets leave.
    pub const REST: usize = 0;
    /// Left vectors.
    pub const U: usize = 1;
    /// Singular values.
    pub const S: usize = 2;
    /// Right vectors.
    pub const V: usize = 3;

    fn sizes(&self) -> (u64, u64) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out, *input),
            _ => (0, 0),
        }
    }
}

impl Derive for Svd {
    fn what(&self) -> &'static str {
        DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        svd_scratch_bytes(out, input, self.rank, self.keep)
    }

    fn make(&self, mut weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let (out, input) = self.sizes();
        let keep = self.keep.map(|k| k as usize);
        let rank = self.rank as usize;
        let d = in_own_threads(|| {
            let d = decompose(&weight, out as usize, input as usize, rank, keep)?;
            rest(&mut weight, &d);
            Ok::<_, &'static str>(d)
        })?;
        Ok(vec![weight, d.u, d.s, d.v])
    }

    fn wanted_again(&self) -> &'static [usize] {
        &[Self::U, Self::S, Self::V]
    }

    fn remake(&self, mut weight: Vec<f32>, first: &[&[f32]]) -> Vec<Option<Vec<f32>>> {
        if let [u, s, v] = first {
            in_own_threads(|| subtract(&mut weight, u, s, v));
        }
        vec![Some(weight), None, None, None]
    }
}
