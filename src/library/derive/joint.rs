//! FRoD's start: one basis of the inputs for all weights of a group, and each weight in it.

use faer::{Mat, MatRef};

use super::super::torch::Generator;
use super::{BaseParam, Derive, Remade};
use crate::library::counts::to_u32;
use crate::linalg::{in_own_threads, svd_scratch_bytes, thin, times};
use crate::program::Real;

/// Singular values below this part of the largest are none.
const NOTHING: f64 = 1e-12;

/// `W_i = U_i diag(l_i) Vᵀ` with columns of length 1 in each U_i. The parts: `V [in, in]`, `count` places of a square matrix
/// that are off its diagonal, and for each weight `U_i [out, in]` and `l_i [in]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// The weights, all of one shape.
    pub weights: Vec<BaseParam>,
    /// What is added to the diagonal of each weight's share before it is inverted.
    pub alpha: Real,
    /// How many places.
    pub count: u64,
    /// The seed that they are drawn by.
    pub seed: u64,
}

impl Joint {
    /// The basis.
    pub const V: usize = 0;
    /// The places.
    pub const PLACES: usize = 1;

    /// The part of a weight's factor U.
    #[must_use]
    pub const fn u(weight: usize) -> usize {
        2 + 2 * weight
    }

    /// The part of a weight's lengths.
    #[must_use]
    pub const fn lengths(weight: usize) -> usize {
        3 + 2 * weight
    }

    fn sizes(&self) -> (usize, usize) {
        match self.weights.first().map(|w| w.shape.as_slice()) {
            Some([out, input]) => (*out as usize, *input as usize),
            _ => (0, 0),
        }
    }

    /// The weights as matrices.
    fn matrices<'w>(&self, all: &'w [f32]) -> Result<Vec<&'w [f32]>, &'static str> {
        let (out, input) = self.sizes();
        let size = (out * input).max(1);
        if all.len() != size * self.weights.len() {
            return Err("its length is not that of its shape");
        }
        if !all.iter().all(|x| x.is_finite()) {
            return Err("it holds numbers that are not finite, so it has no basis");
        }
        Ok(all.chunks_exact(size).collect())
    }

    fn basis(&self, matrices: &[&[f32]]) -> Result<Vec<f32>, &'static str> {
        let (out, input) = self.sizes();
        let gram = |own: &[f32]| {
            let wide = Mat::from_fn(out, input, |i, j| number(own, i * input + j));
            times(wide.transpose(), wide.as_ref())
        };
        let mut sum = Mat::<f64>::zeros(input, input);
        for own in matrices {
            sum += gram(own);
        }
        // Eigenvectors of a positive matrix are its singular ones.
        let (vectors, values, _) = thin(sum.as_ref()).ok_or(DIVERGES)?;
        if out * matrices.len() < input {
            return Ok(rows(vectors.as_ref()));
        }
        let most = values.first().copied().unwrap_or(0.0);
        if values.last().is_none_or(|&least| least <= NOTHING * most) {
            return Err(
                "the weights of its group leave some direction of the inputs out, so they have no common basis",
            );
        }
        let power = |of: fn(f64) -> f64| {
            let scaled = Mat::from_fn(input, input, |i, j| {
                vectors[(i, j)] * of(values.get(j).copied().unwrap_or(1.0))
            });
            times(scaled.as_ref(), vectors.transpose())
        };
        let (root, inverse) = (power(f64::sqrt), power(|x| 1.0 / x.sqrt()));
        let mut mean = Mat::<f64>::zeros(input, input);
        for own in matrices {
            let half = times(inverse.as_ref(), gram(own).as_ref());
            let mut share = times(half.as_ref(), inverse.as_ref());
            for i in 0..input {
                share[(i, i)] += self.alpha.get();
            }
            let (vectors, values, _) = thin(share.as_ref()).ok_or(DIVERGES)?;
            let scaled = Mat::from_fn(input, input, |i, j| {
                vectors[(i, j)] / values.get(j).copied().unwrap_or(1.0)
            });
            mean += times(scaled.as_ref(), vectors.transpose());
        }
        let (vectors, ..) = thin(mean.as_ref()).ok_or(DIVERGES)?;
        Ok(rows(times(root.as_ref(), vectors.as_ref()).as_ref()))
    }

    /// `U_i` and `l_i` of each weight in a basis.
    fn in_basis(
        &self,
        matrices: &[&[f32]],
        basis: &[f32],
    ) -> Result<Vec<(Vec<f32>, Vec<f32>)>, &'static str> {
        let (out, input) = self.sizes();
        let basis = Mat::from_fn(input, input, |i, j| number(basis, i * input + j));
        let (left, values, right) = thin(basis.as_ref()).ok_or(DIVERGES)?;
        let most = values.first().copied().unwrap_or(0.0);
        // The inverse of the transposed basis.
        let scaled = Mat::from_fn(input, input, |i, j| {
            let value = values.get(j).copied().unwrap_or(0.0);
            if value > NOTHING * most {
                left[(i, j)] / value
            } else {
                0.0
            }
        });
        let inverse = times(scaled.as_ref(), right.transpose());
        let one = |own: &&[f32]| {
            let wide = Mat::from_fn(out, input, |i, j| number(own, i * input + j));
            let factor = times(wide.as_ref(), inverse.as_ref());
            let lengths: Vec<f64> = (0..input).map(|j| factor.col(j).norm_l2()).collect();
            let length = |j: usize| lengths.get(j).copied().unwrap_or(0.0);
            let unit = Mat::from_fn(out, input, |i, j| {
                if length(j) > 1e-12 {
                    factor[(i, j)] / length(j)
                } else {
                    0.0
                }
            });
            let lengths = lengths.iter().map(|&l| l as f32).collect();
            (rows(unit.as_ref()), lengths)
        };
        Ok(matrices.iter().map(one).collect())
    }

    /// Places off the diagonal, as peft draws them.
    fn places(&self) -> Vec<f32> {
        let (_, input) = self.sizes();
        let others = input * input.saturating_sub(1);
        let drawn = Generator::new(self.seed).permutation_start(others, self.count as usize);
        let place = |n: usize| {
            // Of each row all columns but the row's own.
            let (row, column) = (n / (input - 1).max(1), n % (input - 1).max(1));
            let column = column + usize::from(column >= row);
            f32::from_bits(to_u32(row * input + column))
        };
        drawn.into_iter().map(place).collect()
    }
}

/// What a decomposition says that does not end.
const DIVERGES: &str = "its eigenvectors do not converge";

fn number(list: &[f32], at: usize) -> f64 {
    f64::from(list.get(at).copied().unwrap_or_default())
}

/// Row by row, in f32.
fn rows(matrix: MatRef<'_, f64>) -> Vec<f32> {
    let mut list = Vec::with_capacity(matrix.nrows() * matrix.ncols());
    for i in 0..matrix.nrows() {
        list.extend(matrix.row(i).iter().map(|&x| x as f32));
    }
    list
}

impl Derive for Joint {
    fn what(&self) -> &'static str {
        "joint decomposition"
    }

    fn source(&self) -> &BaseParam {
        // A group has its own map at least.
        self.weights.first().unwrap_or(&NONE)
    }

    fn others(&self) -> Vec<&BaseParam> {
        self.weights.iter().skip(1).collect()
    }

    fn scratch_bytes(&self) -> u64 {
        let (out, input) = self.sizes();
        let (out, input, n) = (out as u64, input as u64, self.weights.len() as u64);
        let square = 8 * (input + 8) * input;
        let wide = 8 * (out + 8) * input;
        let results = 4 * (input * input + self.count + n * (out * input + input));
        let drawn = 96 * self.count;
        9 * square + 3 * wide + svd_scratch_bytes(input, input, input, None) + results + drawn
    }

    fn remake_bytes(&self) -> u64 {
        self.scratch_bytes()
    }

    fn is_of_many(&self) -> bool {
        true
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        in_own_threads(|| {
            let matrices = self.matrices(&weight)?;
            let basis = self.basis(&matrices)?;
            let factors = self.in_basis(&matrices, &basis)?;
            let mut parts = vec![basis, self.places()];
            parts.extend(factors.into_iter().flat_map(|(u, lengths)| [u, lengths]));
            Ok(parts)
        })
    }

    fn wanted_again(&self) -> &'static [usize] {
        &[Self::V]
    }

    fn again(&self, weight: Vec<f32>, first: &[&[f32]]) -> Remade {
        in_own_threads(|| {
            let matrices = self.matrices(&weight)?;
            let basis = first.first().ok_or("its basis is in no file")?;
            let factors = self.in_basis(&matrices, basis)?;
            let mut parts = vec![None, None];
            parts.extend(factors.into_iter().flat_map(|(u, _)| [Some(u), None]));
            Ok(parts)
        })
    }
}

/// What a group without weights reads.
static NONE: BaseParam = BaseParam {
    name: String::new(),
    shape: Vec::new(),
    kind: super::ParamKind::Weight,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Stream;

    fn joint(n: usize, out: u64, input: u64) -> (Joint, Vec<f32>) {
        let weights = (0..n).map(|i| BaseParam::weight(&format!("{i}"), [out, input]));
        let by = Joint {
            weights: weights.collect(),
            alpha: Real::new(1e-3),
            count: 4,
            seed: 3,
        };
        let stream = Stream::new(5, "joint");
        let all = (0..n as u64 * out * input).map(|i| stream.normal(i) as f32);
        (by, all.collect())
    }

    #[test]
    fn each_weight_is_what_its_factors_make() {
        // More rows than columns, and fewer.
        for (n, out, input) in [(3, 6, 5), (2, 2, 7)] {
            let (by, all) = joint(n, out, input);
            let parts = by.make(all.clone()).expect("finite");
            let (out, input) = (out as usize, input as usize);
            for (w, own) in all.chunks_exact(out * input).enumerate() {
                let (u, l) = (&parts[Joint::u(w)], &parts[Joint::lengths(w)]);
                for i in 0..out {
                    for j in 0..input {
                        let sum: f32 = (0..input)
                            .map(|k| u[i * input + k] * l[k] * parts[Joint::V][j * input + k])
                            .sum();
                        assert!((sum - own[i * input + j]).abs() < 1e-4, "{sum}");
                    }
                }
            }
            let again = by.again(all, &[&parts[Joint::V]]).expect("finite");
            assert_eq!(again[Joint::u(1)].as_ref(), Some(&parts[Joint::u(1)]));
        }
    }

    #[test]
    fn places_are_off_the_diagonal_and_weights_that_leave_something_out_are_refused() {
        let (by, mut all) = joint(2, 4, 4);
        let places = by.places();
        let places: Vec<u32> = places.iter().map(|p| p.to_bits()).collect();
        assert_eq!(places.len(), 4);
        assert!(
            places.iter().all(|p| p / 4 != p % 4 && *p < 16),
            "{places:?}"
        );
        all.chunks_exact_mut(4).for_each(|row| row[2] = 0.0);
        assert!(by.make(all).is_err());
    }
}
