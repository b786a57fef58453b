//! A weight without its smallest singular triplets, for methods that learn in their place.

use super::svd::DECOMPOSITION;
use super::{BaseParam, Derive};
use crate::linalg::{decompose, in_own_threads, subtract, svd_scratch_bytes};

/// `W = U diag(S) V` without the last `dropped` triplets. Its one part: what is left, `[out, in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The weight.
    pub weight: BaseParam,
    /// How many triplets are taken out.
    pub dropped: u64,
}

impl Truncated {
    fn sizes(&self) -> (usize, usize) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out as usize, *input as usize),
            _ => (0, 0),
        }
    }

    fn left(&self, weight: &mut [f32]) -> Result<(), &'static str> {
        let (out, input) = self.sizes();
        let all = out.min(input);
        let kept = all.saturating_sub(self.dropped as usize);
        let (u, s, v) = last(weight, (out, input), kept)?;
        in_own_threads(|| subtract(weight, &u, &s, &v));
        Ok(())
    }
}

/// The triplets behind the first `kept`: `U [out, n]`, `S [n]`, `V [n, in]`.
pub(super) fn last(
    weight: &[f32],
    (out, input): (usize, usize),
    kept: usize,
) -> Result<(Vec<f32>, Vec<f32>, Vec<f32>), &'static str> {
    let all = out.min(input);
    let d = in_own_threads(|| decompose(weight, out, input, all, None))?;
    let rows = d.u.chunks_exact(all.max(1));
    let u = rows.flat_map(|row| row.get(kept..).unwrap_or_default());
    let v = d.v.get(kept * input..).unwrap_or_default().to_vec();
    let s = d.values().get(kept..).unwrap_or_default().to_vec();
    Ok((u.copied().collect(), s, v))
}

/// Bytes held while the last triplets are looked for.
pub(super) fn last_bytes((out, input): (u64, u64), count: u64) -> u64 {
    svd_scratch_bytes(out, input, out.min(input), None) + 4 * count * (out + input + 1)
}

impl Derive for Truncated {
    fn what(&self) -> &'static str {
        DECOMPOSITION
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        last_bytes((out as u64, input as u64), self.dropped)
    }

    fn make(&self, mut weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        self.left(&mut weight)?;
        Ok(vec![weight])
    }

    /// The same bits as before: a decomposition is a function of the weight alone.
    fn remake(&self, mut weight: Vec<f32>, _: &[&[f32]]) -> Vec<Option<Vec<f32>>> {
        let made = self.left(&mut weight);
        vec![made.is_ok().then_some(weight)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_values_are_taken_out() {
        let by = Truncated {
            weight: BaseParam::weight("a", [2, 3]),
            dropped: 1,
        };
        let weight = vec![0.0, -3.0, 0.0, 1.0, 0.0, 0.0];
        let made = by.make(weight.clone()).expect("finite");
        let wanted = [0.0, -3.0, 0.0, 0.0, 0.0, 0.0];
        assert!(
            made[0]
                .iter()
                .zip(wanted)
                .all(|(x, y)| (x - y).abs() < 1e-6)
        );
        assert_eq!(by.remake(weight, &[])[0].as_ref(), made.first());
        assert!(by.make(vec![f32::NAN; 6]).is_err());
    }
}
