//! A weight's singular triplets in two halves: those that stay, and those that are trained.

use super::svd::DECOMPOSITION;
use super::{BaseParam, Derive};
use crate::linalg::{decompose, in_own_threads, keep_span, svd_scratch_bytes};

/// `W = U diag(S) V` with all its triplets, the first `high` of them apart from the others. Its parts: their product
/// `[out, in]`, `U [out, high]`, `V [high, in]`, then `U`, `S` and `V` of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halves {
    /// The weight.
    pub weight: BaseParam,
    /// Triplets of the first half, the largest.
    pub high: u64,
}

impl Halves {
    /// The product of the first half.
    pub const PRODUCT: usize = 0;
    /// Vectors of the first half.
    pub const HIGH: [usize; 2] = [1, 2];
    /// Vectors and values of the second.
    pub const LOW: [usize; 3] = [3, 4, 5];

    fn sizes(&self) -> (u64, u64) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out, *input),
            _ => (0, 0),
        }
    }
}

/// Columns of a row-major matrix of this width, before `at` and from there on.
fn divided(matrix: &[f32], width: usize, at: usize) -> [Vec<f32>; 2] {
    let rows = matrix.len() / width.max(1);
    let mut first = Vec::with_capacity(rows * at);
    let mut rest = Vec::with_capacity(rows * (width - at));
    for row in matrix.chunks_exact(width.max(1)) {
        let (before, behind) = row.split_at(at);
        first.extend_from_slice(before);
        rest.extend_from_slice(behind);
    }
    [first, rest]
}

impl Derive for Halves {
    fn what(&self) -> &'static str {
        DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        let all = out.min(input);
        svd_scratch_bytes(out, input, all, None)
            + 4 * all * (out + input + 1)
            + 4 * self.high * (input + out + 1)
    }

    fn make(&self, mut weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let (out, input) = self.sizes();
        let all = out.min(input) as usize;
        let d = in_own_threads(|| decompose(&weight, out as usize, input as usize, all, None))?;
        let high = (self.high as usize).min(all);
        let [u_high, u_low] = divided(&d.u, all, high);
        let (_, s_low) = d.s.split_at(high);
        let (v_high, v_low) = d.v.split_at(high * input as usize);
        in_own_threads(|| keep_span(&mut weight, &u_high, (out as usize, high)));
        Ok(vec![
            weight,
            u_high,
            v_high.to_vec(),
            u_low,
            s_low.to_vec(),
            v_low.to_vec(),
        ])
    }

    fn wanted_again(&self) -> &'static [usize] {
        &[1]
    }

    fn remake(&self, mut weight: Vec<f32>, first: &[&[f32]]) -> Vec<Option<Vec<f32>>> {
        if let [u] = first {
            let out = self.sizes().0 as usize;
            in_own_threads(|| keep_span(&mut weight, u, (out, u.len() / out.max(1))));
        }
        vec![Some(weight), None, None, None, None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_together_are_the_weight() {
        let by = Halves {
            weight: BaseParam::weight("a", [3, 2]),
            high: 1,
        };
        let weight = vec![1.0, 2.0, 3.0, -4.0, 0.5, 0.25];
        let made = by.make(weight.clone()).expect("finite");
        let [high, u, v, u2, s2, v2] = made.as_slice() else {
            panic!("six parts");
        };
        assert_eq!((u.len(), v.len()), (3, 2));
        let again = by.remake(weight.clone(), &[u]);
        assert_eq!(again[0].as_ref(), Some(high));
        assert!(s2[0] > 0.0, "{made:?}");
        for (i, w) in weight.iter().enumerate() {
            let (row, column) = (i / 2, i % 2);
            let sum = high[i] + u2[row] * s2[0] * v2[column];
            assert!((sum - w).abs() < 1e-6, "{sum} {w}");
        }
        assert!(by.make(vec![f32::NAN; 6]).is_err());
    }
}
