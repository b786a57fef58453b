//! The start of DEFT: directions that are drawn, and what the weight has along them.

use rayon::prelude::*;

use super::split::orthogonal;
use super::{BaseParam, Derive};
use crate::base::rng::Stream;
use crate::program::Real;

/// Directions `P [out, rank]`, drawn, and `R = relu(P)ᵀ W / scale [rank, in]`, or with the orthonormal Q of P: what is taken away with
/// them is put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The weight.
    pub weight: BaseParam,
    /// Directions.
    pub rank: u64,
    /// The seed they are drawn by.
    pub seed: u64,
    /// Their standard deviation.
    pub deviation: Real,
    /// The factor of what is put back.
    pub scale: Real,
    /// Whether directions are made orthonormal, instead of the positive part of them.
    pub orthonormal: bool,
}

impl Removal {
    /// The directions.
    pub const P: usize = 0;
    /// What is put back.
    pub const R: usize = 1;

    fn sizes(&self) -> (usize, usize) {
        match self.weight.shape.as_slice() {
            [out, input] => (*out as usize, *input as usize),
            _ => (0, 0),
        }
    }
}

impl Derive for Removal {
    fn what(&self) -> &'static str {
        "projection"
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        // The directions twice, and while they are made orthonormal their reflections.
        let made = if self.orthonormal { 24 } else { 0 };
        self.rank * ((8 + made) * out as u64 + 12 * input as u64 + 8 * self.rank)
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        let ((out, input), rank) = (self.sizes(), self.rank as usize);
        let stream = Stream::new(self.seed, &format!("deft/{}", self.weight.name));
        let one = |i: u64| (stream.normal(i) * self.deviation.get()) as f32;
        let p: Vec<f32> = (0..(out * rank) as u64).map(one).collect();
        let along = match self.orthonormal {
            true => orthogonal(&p, (out as u64, self.rank), self.rank)?.0,
            false => p.iter().map(|x| x.max(0.0)).collect(),
        };
        let mut r = vec![0.0_f32; rank * input];
        r.par_chunks_mut(input.max(1))
            .enumerate()
            .for_each(|(column, r)| {
                let mut sums = vec![0.0_f64; input];
                let own = along.iter().skip(column).step_by(rank.max(1));
                for (row, &p) in weight.chunks_exact(input.max(1)).zip(own) {
                    if p != 0.0 {
                        let each = sums.iter_mut().zip(row);
                        each.for_each(|(sum, &w)| *sum += f64::from(p) * f64::from(w));
                    }
                }
                let each = r.iter_mut().zip(&sums);
                each.for_each(|(r, sum)| *r = (sum / self.scale.get()) as f32);
            });
        if r.iter().all(|x| x.is_finite()) {
            Ok(vec![p, r])
        } else {
            Err("it holds numbers that are not finite, so nothing can be projected on it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_is_what_is_taken_away() {
        let by = Removal {
            weight: BaseParam::weight("a", [3, 2]),
            rank: 2,
            seed: 4,
            deviation: Real::new(0.5),
            scale: Real::new(2.0),
            orthonormal: false,
        };
        let weight = [1.0, 2.0, 3.0, -4.0, 0.5, 0.25_f32];
        let made = by.make(weight.to_vec()).expect("finite");
        let (p, r) = (&made[Removal::P], &made[Removal::R]);
        assert!(
            p.iter().any(|&x| x < 0.0) && p.iter().any(|&x| x > 0.0),
            "{p:?}"
        );
        for (k, column) in (0..2).flat_map(|k| (0..2).map(move |c| (k, c))) {
            let sum: f32 = (0..3)
                .map(|o| p[o * 2 + k].max(0.0) * weight[o * 2 + column])
                .sum();
            assert!((2.0 * r[k * 2 + column] - sum).abs() < 1e-6);
        }
        assert!(by.make(vec![f32::INFINITY; 6]).is_err());
    }
}
