//! The left singular vectors of a weight's smallest values, for methods that learn in their span.

use super::svd::DECOMPOSITION;
use super::truncated::{last, last_bytes};
use super::{BaseParam, Derive};

/// The last `rank` columns of U of `W = U diag(S) V`. Its one part: `[out, rank]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinorVectors {
    /// The weight.
    pub weight: BaseParam,
    /// How many.
    pub rank: u64,
}

impl MinorVectors {
    fn sizes(&self) -> (u64, u64) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out, *input),
            _ => (0, 0),
        }
    }
}

impl Derive for MinorVectors {
    fn what(&self) -> &'static str {
        DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        last_bytes(self.sizes(), self.rank)
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let (out, input) = self.sizes();
        let kept = out.min(input).saturating_sub(self.rank);
        let sizes = (out as usize, input as usize);
        let (u, _, _) = last(&weight, sizes, kept as usize)?;
        Ok(vec![u])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_are_those_of_the_smallest_values() {
        let by = MinorVectors {
            weight: BaseParam::weight("a", [2, 2]),
            rank: 1,
        };
        let made = by.make(vec![0.0, -3.0, 1.0, 0.0]).expect("finite");
        let near = |x: &[f32], y: [f32; 2]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-6);
        assert!(near(&made[0], [0.0, 1.0]), "{made:?}");
    }
}
