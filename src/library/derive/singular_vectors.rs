//! The singular vectors of a weight alone, for methods that leave the weight where it is.

use super::svd::DECOMPOSITION;
use super::{BaseParam, Derive};
use crate::linalg::{decompose, in_own_threads, svd_scratch_bytes};

/// The first `rank` triplets of `W = U diag(S) V` without S. Its parts: `U [out, rank]`, `V [rank, in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingularVectors {
    /// The weight.
    pub weight: BaseParam,
    /// How many.
    pub rank: u64,
}

impl SingularVectors {
    /// Left vectors.
    pub const U: usize = 0;
    /// Right vectors.
    pub const V: usize = 1;

    fn sizes(&self) -> (u64, u64) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out, *input),
            _ => (0, 0),
        }
    }
}

impl Derive for SingularVectors {
    fn what(&self) -> &'static str {
        DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        svd_scratch_bytes(out, input, self.rank, None)
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let (out, input) = self.sizes();
        let sizes = (out as usize, input as usize);
        let d = in_own_threads(|| decompose(&weight, sizes.0, sizes.1, self.rank as usize, None))?;
        Ok(vec![d.u, d.v])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_are_those_of_the_largest_values() {
        let by = SingularVectors {
            weight: BaseParam::weight("a", [2, 2]),
            rank: 1,
        };
        let made = by.make(vec![0.0, -3.0, 1.0, 0.0]).expect("finite");
        let near = |x: &[f32], y: [f32; 2]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-6);
        assert!(near(&made[SingularVectors::U], [1.0, 0.0]), "{made:?}");
        assert!(near(&made[SingularVectors::V], [0.0, -1.0]), "{made:?}");
        assert!(by.make(vec![f32::NAN; 4]).is_err());
    }
}
