//! AdaMSS' start: the rows of a weight in clusters, by the left singular vectors, and a small basis for each cluster.
//!
//! The vectors and the clusters are those of the libraries that peft asks: PyTorch's randomised decomposition with its
//! generator, and scikit-learn's k-means with NumPy's. A file of peft's does not hold the clusters, so they are found again.

use faer::{Mat, MatRef};

use super::super::torch::Generator;
use super::{BaseParam, Derive, Remade};
use crate::library::counts::to_u32;
use crate::linalg::{in_own_threads, orthonormalise, svd_scratch_bytes, thin, times};

/// The seed that peft gives to k-means.
const SEED: u64 = 123_456_789;
/// The most iterations of k-means.
const ITERATIONS: usize = 10;
/// Its tolerance, as a part of the mean variance of a column.
const TOLERANCE: f64 = 1e-4;

/// The rows of `[W | b]` in clusters. Its parts: the first right singular vectors `[r, in (+ 1)]`, the bases of all clusters
/// `[count · each, r]`, the cluster of each row, and the place of each row where those of a cluster follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subspaces {
    /// The weight.
    pub weight: BaseParam,
    /// Its bias, which is one more column.
    pub bias: Option<BaseParam>,
    /// Singular vectors.
    pub rank: u64,
    /// Clusters.
    pub count: u64,
    /// Vectors of a cluster's basis.
    pub each: u64,
    /// Seed of the decomposition.
    pub seed: u64,
    /// How many rows each cluster has, where that is known.
    pub sizes: Option<Vec<u64>>,
}

/// Rows in clusters.
struct Clusters {
    /// The cluster of each row.
    of: Vec<u32>,
    /// How many rows each has.
    sizes: Vec<u64>,
}

impl Subspaces {
    /// The right singular vectors.
    pub const RIGHT: usize = 0;
    /// The bases.
    pub const BASES: usize = 1;
    /// The clusters.
    pub const CLUSTERS: usize = 2;
    /// The places.
    pub const PLACES: usize = 3;

    /// Rows, and columns with that of the bias.
    fn sizes(&self) -> (usize, usize) {
        match self.weight.shape.as_slice() {
            [out, input] => (
                *out as usize,
                *input as usize + usize::from(self.bias.is_some()),
            ),
            _ => (0, 0),
        }
    }

    /// The vectors that there are: no more than the matrix has.
    #[must_use]
    pub fn vectors(&self) -> u64 {
        let (rows, columns) = self.sizes();
        self.rank.min(rows.min(columns) as u64)
    }

    /// `U [out, r]` and `V [in (+ 1), r]`, and the clusters of the rows of U.
    fn apart(&self, weight: &[f32]) -> Result<(Mat<f64>, Mat<f64>, Clusters), &'static str> {
        let (rows, columns) = self.sizes();
        let input = columns - usize::from(self.bias.is_some());
        let (weight, bias) = weight
            .split_at_checked(rows * input)
            .ok_or("its length is not that of its shape")?;
        if !weight.iter().chain(bias).all(|x| x.is_finite()) {
            return Err("it holds numbers that are not finite, so it has no singular values");
        }
        let all = Mat::from_fn(rows, columns, |i, j| {
            let own = if j < input {
                weight.get(i * input + j)
            } else {
                bias.get(i)
            };
            f64::from(own.copied().unwrap_or_default())
        });
        let (u, v) = approximate(all.as_ref(), self.vectors() as usize, self.seed)
            .ok_or("its singular value decomposition does not converge")?;
        let points = Points::of(u.as_ref());
        let count = (self.count as usize).min(rows);
        let clusters = points.clusters(count)?;
        if self.sizes.as_ref().is_some_and(|s| *s != clusters.sizes) {
            return Err(
                "its clusters have other sizes than those that the adapter was trained with, so that its rows \
                 cannot be told apart: it is not the weight that the adapter was made for",
            );
        }
        Ok((u, v, clusters))
    }

    /// The bases: of each cluster the first right singular vectors of its rows of U, zeros where there are no more.
    fn bases(&self, u: MatRef<'_, f64>, clusters: &Clusters) -> Result<Vec<f32>, &'static str> {
        let (each, width) = (self.each as usize, u.ncols());
        let mut bases = vec![0.0; self.count as usize * each * width];
        for (cluster, base) in bases.chunks_exact_mut((each * width).max(1)).enumerate() {
            let own = |(row, &of): (usize, &u32)| (of as usize == cluster).then_some(row);
            let rows: Vec<usize> = clusters.of.iter().enumerate().filter_map(own).collect();
            if rows.is_empty() {
                continue;
            }
            let part = Mat::from_fn(rows.len(), width, |i, j| {
                rows.get(i).map_or(0.0, |&row| u[(row, j)])
            });
            let (_, _, v) = thin(part.as_ref()).ok_or("a cluster of it has no singular values")?;
            for (j, row) in base.chunks_exact_mut(width.max(1)).enumerate() {
                if j < v.ncols() {
                    let column = v.col(j);
                    row.iter_mut()
                        .zip(column.iter())
                        .for_each(|(to, x)| *to = *x as f32);
                }
            }
        }
        Ok(bases)
    }
}

impl Clusters {
    /// Where each row is, if those of a cluster follow each other.
    fn places(&self) -> Vec<u32> {
        let ends = self.sizes.iter().scan(0, |end, n| {
            let start = *end;
            *end += to_u32(*n);
            Some(start)
        });
        let mut next: Vec<u32> = ends.collect();
        let place = |&of: &u32| {
            let own = next.get_mut(of as usize)?;
            *own += 1;
            Some(*own - 1)
        };
        self.of.iter().filter_map(place).collect()
    }
}

fn as_bits(list: Vec<u32>) -> Vec<f32> {
    list.into_iter().map(f32::from_bits).collect()
}

impl Derive for Subspaces {
    fn what(&self) -> &'static str {
        "clusters of rows"
    }

    fn source(&self) -> &BaseParam {
        &self.weight
    }

    fn others(&self) -> Vec<&BaseParam> {
        self.bias.iter().collect()
    }

    fn scratch_bytes(&self) -> u64 {
        let (rows, columns) = self.sizes();
        let (rows, columns, r) = (rows as u64, columns as u64, self.vectors());
        let (short, long) = (rows.min(columns), rows.max(columns));
        // The matrix, factors of a few iterations, and the small decompositions.
        let wide = 8 * (rows + 8) * columns;
        let factors = 8 * 6 * (rows + columns + 16) * (r + 8);
        let small = svd_scratch_bytes(r, short, r, None).max(svd_scratch_bytes(rows, r, r, None));
        let points = 8 * 3 * rows * r + 64 * rows;
        wide + factors + small + points + 4 * r * (columns + self.count * self.each) + 8 * long
    }

    fn remake_bytes(&self) -> u64 {
        self.scratch_bytes()
    }

    fn make(&self, weight: Vec<f32>) -> Result<Vec<Vec<f32>>, &'static str> {
        in_own_threads(|| {
            let (u, v, clusters) = self.apart(&weight)?;
            let right = (0..v.ncols()).flat_map(|j| v.col(j).iter().map(|&x| x as f32));
            let right: Vec<f32> = right.collect();
            let bases = self.bases(u.as_ref(), &clusters)?;
            let places = clusters.places();
            Ok(vec![right, bases, as_bits(clusters.of), as_bits(places)])
        })
    }

    fn again(&self, weight: Vec<f32>, _: &[&[f32]]) -> Remade {
        in_own_threads(|| {
            let (_, _, clusters) = self.apart(&weight)?;
            let places = clusters.places();
            let lists = [clusters.of, places].map(|list| Some(as_bits(list)));
            Ok([None, None].into_iter().chain(lists).collect())
        })
    }
}

/// `torch.svd_lowrank(a, q, niter = 2)` after `torch.manual_seed(seed)`: `U` and `V`, up to the signs of their columns.
fn approximate(a: MatRef<'_, f64>, q: usize, seed: u64) -> Option<(Mat<f64>, Mat<f64>)> {
    let turned = a.nrows() < a.ncols();
    let a = if turned { a.transpose() } else { a };
    let drawn = Generator::new(seed).normal(a.ncols() * q, 0.0, 1.0);
    let drawn = Mat::from_fn(a.ncols(), q, |i, j| {
        f64::from(drawn.get(i * q + j).copied().unwrap_or_default())
    });
    let mut basis = times(a, drawn.as_ref());
    orthonormalise(&mut basis);
    for _ in 0..2 {
        let mut across = times(a.transpose(), basis.as_ref());
        orthonormalise(&mut across);
        basis = times(a, across.as_ref());
        orthonormalise(&mut basis);
    }
    let small = times(basis.transpose(), a);
    let (left, _, right) = thin(small.as_ref())?;
    let left = times(basis.as_ref(), left.as_ref());
    Some(if turned { (right, left) } else { (left, right) })
}

/// Points in rows, about their mean, and the tolerance of their clusters.
struct Points {
    rows: Vec<Vec<f64>>,
    tolerance: f64,
}

impl Points {
    fn of(u: MatRef<'_, f64>) -> Self {
        let (n, width) = u.shape();
        // k-means reads them in f32.
        let at = |i: usize, j: usize| f64::from(u[(i, j)] as f32);
        let mean = |j: usize| (0..n).map(|i| at(i, j)).sum::<f64>() / n.max(1) as f64;
        let means: Vec<f64> = (0..width).map(mean).collect();
        let centred = |i: usize| means.iter().enumerate().map(move |(j, m)| at(i, j) - m);
        let rows: Vec<Vec<f64>> = (0..n).map(|i| centred(i).collect()).collect();
        let squares: f64 = rows.iter().flatten().map(|x| x * x).sum();
        let variance = squares / (n * width).max(1) as f64;
        Self {
            rows,
            tolerance: TOLERANCE * variance,
        }
    }

    /// The rows that k-means begins at: NumPy's `choice` without replacement, each row as likely as the others.
    fn first(&self, count: usize) -> Vec<usize> {
        let mut generator = Generator::new(SEED);
        let n = self.rows.len();
        // As likely as f32 has it.
        let mut weights = vec![f64::from(1.0 / n as f32); n];
        let mut found: Vec<usize> = Vec::new();
        while found.len() < count {
            let drawn: Vec<f64> = (found.len()..count).map(|_| unit(&mut generator)).collect();
            for &row in &found {
                if let Some(weight) = weights.get_mut(row) {
                    *weight = 0.0;
                }
            }
            let mut sum = 0.0;
            let sums: Vec<f64> = weights
                .iter()
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect();
            for x in drawn {
                let row = sums.partition_point(|s| s / sum <= x).min(n - 1);
                if !found.contains(&row) {
                    found.push(row);
                }
            }
        }
        found
    }

    /// Lloyd's algorithm as scikit-learn has it.
    fn clusters(&self, count: usize) -> Result<Clusters, &'static str> {
        let first = self.first(count).into_iter();
        let mut centres: Vec<Vec<f64>> = first
            .filter_map(|row| self.rows.get(row).cloned())
            .collect();
        let mut labels = vec![usize::MAX; self.rows.len()];
        let mut settled = false;
        for _ in 0..ITERATIONS {
            let before = std::mem::replace(&mut labels, self.nearest(&centres));
            let moved = self.moved(&centres, &labels);
            let shift: f64 = moved
                .iter()
                .zip(&centres)
                .map(|(a, b)| distance(a, b))
                .sum();
            centres = moved;
            if labels == before {
                settled = true;
                break;
            }
            if shift <= self.tolerance {
                break;
            }
        }
        if !settled {
            labels = self.nearest(&centres);
        }
        let size = |cluster| labels.iter().filter(|&&l| l == cluster).count() as u64;
        let sizes: Vec<u64> = (0..count).map(size).collect();
        if sizes.contains(&0) {
            return Err("a cluster of its rows is empty; write fewer `subspaces`");
        }
        Ok(Clusters {
            of: labels.into_iter().map(to_u32).collect(),
            sizes,
        })
    }

    /// The nearest centre of each row, the first of equal ones.
    fn nearest(&self, centres: &[Vec<f64>]) -> Vec<usize> {
        let one = |row: &Vec<f64>| {
            let each = centres.iter().map(|c| distance(row, c)).enumerate();
            let least = each.fold(
                (0, f64::INFINITY),
                |best, (i, d)| {
                    if d < best.1 { (i, d) } else { best }
                },
            );
            least.0
        };
        self.rows.iter().map(one).collect()
    }

    /// The means of the clusters. One that is empty gets a row that is far from its centre.
    fn moved(&self, centres: &[Vec<f64>], labels: &[usize]) -> Vec<Vec<f64>> {
        let width = self.rows.first().map_or(0, Vec::len);
        let mut sums = vec![vec![0.0; width]; centres.len()];
        let mut counts = vec![0.0; centres.len()];
        let add = |sums: &mut [Vec<f64>], cluster: usize, row: &[f64], by: f64| {
            if let Some(sum) = sums.get_mut(cluster) {
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += by * x);
            }
        };
        for (row, &label) in self.rows.iter().zip(labels) {
            add(&mut sums, label, row, 1.0);
            if let Some(count) = counts.get_mut(label) {
                *count += 1.0;
            }
        }
        let empty: Vec<usize> = (0..counts.len())
            .filter(|&c| counts.get(c) == Some(&0.0))
            .collect();
        if !empty.is_empty() {
            let far = |(i, (row, &label)): (usize, (&Vec<f64>, &usize))| {
                centres.get(label).map(|c| (distance(row, c), i))
            };
            let each = self.rows.iter().zip(labels).enumerate();
            let mut far: Vec<(f64, usize)> = each.filter_map(far).collect();
            far.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (&cluster, &(most, i)) in empty.iter().zip(&far) {
                let (Some(row), Some(&old)) = (self.rows.get(i), labels.get(i)) else {
                    continue;
                };
                if most == 0.0 {
                    break;
                }
                add(&mut sums, old, row, -1.0);
                add(&mut sums, cluster, row, 1.0);
                if let Some(count) = counts.get_mut(old) {
                    *count -= 1.0;
                }
                if let Some(count) = counts.get_mut(cluster) {
                    *count = 1.0;
                }
            }
        }
        for ((sum, &count), old) in sums.iter_mut().zip(&counts).zip(centres) {
            if count > 0.0 {
                sum.iter_mut().for_each(|s| *s /= count);
            } else {
                sum.clone_from(old);
            }
        }
        sums
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// A number of [0, 1) as NumPy's `RandomState` draws it.
fn unit(generator: &mut Generator) -> f64 {
    let (high, low) = (generator.bits() >> 5, generator.bits() >> 6);
    (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
}

#[cfg(test)]
#[path = "subspaces_tests.rs"]
mod tests;
