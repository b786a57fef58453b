//! Principal components of what enters a linear map, batch after batch, and how ranks are shared out by them (EVA,
//! arXiv 2410.07170, as peft 0.21 has it: `tuners/lora/eva.py`, `utils/incremental_pca.py`).

use crate::linalg::{decompose, svd_scratch_bytes};
use crate::program::Real;

/// How a stage's pairs begin by components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eva {
    /// A map's rank becomes at most so many times the one that is written.
    pub rho: Real,
    /// Components count as known once their cosine with those of the batch before is as large.
    pub tau: Real,
    /// Whether each is divided by the root of its singular value.
    pub whiten: bool,
    /// Whether only tokens that are learned count.
    pub learned: bool,
}

/// What a linear map's pair begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    /// Path of the map.
    pub site: String,
    /// Width of what it reads.
    pub input: u64,
    /// The rank that is written for it.
    pub rank: u64,
    /// How components are found.
    pub how: Eva,
    /// What the update's factor becomes by a rank other than the one written.
    pub factor: Factor,
}

/// The factor of an update whose rank is n where r is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// As it was.
    Same,
    /// r/n of it.
    Inverse,
    /// √(r/n) of it.
    InverseRoot,
    /// √(n/r) of it.
    Root,
}

impl Factor {
    /// Its number for `n` where `r` is written.
    #[must_use]
    pub fn of(self, n: usize, r: u64) -> f64 {
        let (n, r) = (n.max(1) as f64, r as f64);
        match self {
            Self::Same => 1.0,
            Self::Inverse => r / n,
            Self::InverseRoot => (r / n).sqrt(),
            Self::Root => (n / r).sqrt(),
        }
    }
}

/// A tensor of such a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The components `[room, in]`; rows of zeros behind them.
    Rows,
    /// The factor of the update, once a row: `[room]`.
    Factors,
}

impl Components {
    /// The most components that it can get.
    #[must_use]
    pub fn room(&self) -> u64 {
        (self.rank as f64 * self.how.rho.get()).round_ties_even() as u64
    }

    /// A tensor that begins with the first `count` components.
    #[must_use]
    pub fn values(&self, half: Half, count: usize, pca: &Pca) -> Vec<f32> {
        let (room, width) = (self.room() as usize, self.input as usize);
        match half {
            Half::Factors => vec![self.factor.of(count, self.rank) as f32; room],
            Half::Rows => {
                let mut rows = vec![0.0_f32; room * width];
                let own = pca.components.chunks_exact(width.max(1)).zip(&pca.values);
                for (row, (from, value)) in rows.chunks_exact_mut(width.max(1)).zip(own).take(count)
                {
                    let by = if self.how.whiten { value.sqrt() } else { 1.0 };
                    row.iter_mut()
                        .zip(from)
                        .for_each(|(x, from)| *x = from / by);
                }
                rows
            }
        }
    }
}

/// An incremental PCA.
#[derive(Debug)]
pub struct Pca {
    width: usize,
    room: usize,
    seen: u64,
    mean: Vec<f64>,
    variance: Vec<f64>,
    components: Vec<f32>,
    values: Vec<f32>,
    ratios: Vec<f32>,
    known: Vec<bool>,
}

impl Pca {
    /// Of rows of this width, so many components.
    #[must_use]
    pub fn new(width: u64, room: u64) -> Self {
        let (width, room) = (width as usize, room as usize);
        Self {
            width,
            room,
            seen: 0,
            mean: vec![0.0; width],
            variance: vec![0.0; width],
            components: vec![0.0; room * width],
            values: vec![0.0; room],
            ratios: vec![0.0; room],
            known: vec![false; room],
        }
    }

    /// Bytes that it holds.
    #[must_use]
    pub const fn bytes(width: u64, room: u64) -> u64 {
        16 * width + 4 * room * width + 9 * room
    }

    /// An upper bound of the bytes that a batch of so many rows takes beside it.
    #[must_use]
    pub fn scratch_bytes(width: u64, room: u64, rows: u64) -> u64 {
        let stacked = rows + room + 1;
        4 * stacked * width + 32 * width + svd_scratch_bytes(stacked, width, room, None)
    }

    /// Whether a batch was large enough so far.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.seen > 0
    }

    /// Whether the first `count` components are known.
    #[must_use]
    pub fn knows(&self, count: usize) -> bool {
        self.known.iter().take(count).all(|&known| known)
    }

    /// The shares of the variance that the components explain.
    #[must_use]
    pub fn ratios(&self) -> &[f32] {
        &self.ratios
    }

    /// Takes in a batch: these rows of a matrix of its width. A batch of fewer rows than components changes nothing.
    ///
    /// # Errors
    /// What is wrong with the rows.
    pub fn fit(&mut self, x: &[f32], rows: &[u32], tau: f64) -> Result<(), &'static str> {
        if rows.len() < self.room || self.width == 0 {
            return Ok(());
        }
        let (width, new) = (self.width, rows.len() as f64);
        let row = |&i: &u32| x.get(i as usize * width..(i as usize + 1) * width);
        let (old, all) = (self.seen as f64, self.seen as f64 + new);
        let mut sum = vec![0.0_f64; width];
        for row in rows.iter().filter_map(row) {
            sum.iter_mut()
                .zip(row)
                .for_each(|(s, &x)| *s += f64::from(x));
        }
        let mut spread = vec![0.0_f64; width];
        for row in rows.iter().filter_map(row) {
            for ((spread, &x), sum) in spread.iter_mut().zip(row).zip(&sum) {
                *spread += (f64::from(x) - sum / new).powi(2);
            }
        }
        let first = self.seen == 0;
        let mut stack = Vec::with_capacity((rows.len() + self.room + 1) * width);
        if !first {
            let own = self.components.chunks_exact(width).zip(&self.values);
            stack.extend(own.flat_map(|(row, value)| row.iter().map(move |x| x * value)));
        }
        for row in rows.iter().filter_map(row) {
            stack.extend(
                row.iter()
                    .zip(&sum)
                    .map(|(&x, sum)| (f64::from(x) - sum / new) as f32),
            );
        }
        if !first {
            let by = (old / all * new).sqrt();
            let apart = self.mean.iter().zip(&sum);
            stack.extend(apart.map(|(mean, sum)| (by * (mean - sum / new)) as f32));
        }
        for ((mean, variance), (sum, spread)) in self
            .mean
            .iter_mut()
            .zip(&mut self.variance)
            .zip(sum.iter().zip(&spread))
        {
            let between = old * new / all * (*mean - sum / new).powi(2);
            *variance = (*variance * old + spread + between) / all;
            *mean = (*mean * old + sum) / all;
        }
        self.seen += rows.len() as u64;
        self.take(&stack, (all, first, tau))
    }

    /// The first triplets of a batch that stands on what was known.
    fn take(
        &mut self,
        stack: &[f32],
        (all, first, tau): (f64, bool, f64),
    ) -> Result<(), &'static str> {
        let (width, room) = (self.width, self.room);
        let rows = stack.len() / width;
        let made = decompose(stack, rows, width, room, None)?;
        let mut next = made.v;
        next.resize(room * width, 0.0);
        for row in next.chunks_exact_mut(width) {
            let largest = row
                .iter()
                .fold(0.0_f32, |a, &x| if x.abs() > a.abs() { x } else { a });
            if largest < 0.0 {
                row.iter_mut().for_each(|x| *x = -*x);
            }
        }
        let total = (self.variance.iter().sum::<f64>() * all) as f32;
        self.values = made.s;
        self.values.resize(room, 0.0);
        self.ratios = self.values.iter().map(|s| s * s / total).collect();
        if !first {
            let pairs = next
                .chunks_exact(width)
                .zip(self.components.chunks_exact(width));
            self.known = pairs.map(|(a, b)| cosine(a, b) >= tau).collect();
        }
        self.components = next;
        Ok(())
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let lengths = dot(a, a).sqrt().max(1e-8) * dot(b, b).sqrt().max(1e-8);
    dot(a, b) / lengths
}

/// A map in the sharing out: which PCA its inputs have, and the most that it can get.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Place of the PCA, which maps with the same inputs share.
    pub of: usize,
    /// The most components.
    pub room: usize,
}

/// The rank of each map: the components that explain most, `budget` in all. Of maps that read the same the first has
/// most.
#[must_use]
pub fn share_out(claims: &[Claim], pcas: &[Pca], budget: u64) -> Vec<usize> {
    let mut firsts: Vec<usize> = Vec::with_capacity(pcas.len());
    for of in 0..pcas.len() {
        firsts.extend(claims.iter().position(|claim| claim.of == of));
    }
    let others = (0..claims.len()).filter(|i| !firsts.contains(i));
    let order: Vec<usize> = firsts.iter().copied().chain(others).collect();
    let mut all: Vec<(f32, usize)> = Vec::new();
    for &i in &order {
        let Some((claim, pca)) = claims.get(i).and_then(|c| Some((c, pcas.get(c.of)?))) else {
            continue;
        };
        all.extend(
            pca.ratios()
                .iter()
                .take(claim.room)
                .map(|&ratio| (ratio, i)),
        );
    }
    all.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut counts = vec![0; claims.len()];
    for (_, i) in all.into_iter().take(budget as usize) {
        if let Some(count) = counts.get_mut(i) {
            *count += 1;
        }
    }
    let room = |i: usize| claims.get(i).map_or(0, |claim| claim.room);
    for (i, claim) in claims.iter().enumerate() {
        let first = firsts.get(claim.of).copied().unwrap_or(i);
        let own = counts.get(i).copied().unwrap_or(0);
        let leading = counts.get(first).copied().unwrap_or(0);
        if leading < own && own <= room(first) {
            counts.swap(i, first);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Stream;

    /// Rows with a few strong directions.
    fn batch(seed: u64, rows: usize, width: usize) -> Vec<f32> {
        let stream = Stream::new(seed, "batch");
        let mut x = Vec::new();
        for i in 0..rows * width {
            let strength = 4.0_f64.powf(-((i % width) as f64));
            x.push((0.5 + strength * stream.normal(i as u64)) as f32);
        }
        x
    }

    #[test]
    fn two_batches_have_mean_and_variance_of_both_and_components_settle() {
        let (width, rows) = (6, 40);
        let mut pca = Pca::new(6, 3);
        let all: Vec<u32> = (0..40).collect();
        let (one, other) = (batch(1, rows, width), batch(2, rows, width));
        pca.fit(&one, &all[..2], 0.99)
            .expect("two rows are too few");
        assert!(!pca.has_begun());
        pca.fit(&one, &all, 0.99).expect("fits");
        assert!(pca.has_begun() && !pca.knows(1) && pca.knows(0));
        pca.fit(&other, &all, 0.99).expect("fits");
        let both: Vec<f32> = one.iter().chain(&other).copied().collect();
        for column in 0..width {
            let own: Vec<f64> = both
                .iter()
                .skip(column)
                .step_by(width)
                .map(|&x| f64::from(x))
                .collect();
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let variance = own.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / own.len() as f64;
            assert!((pca.mean[column] - mean).abs() < 1e-9);
            assert!((pca.variance[column] - variance).abs() < 1e-9);
        }
        assert!(pca.knows(1), "the strongest direction is the same in both");
        assert!(pca.components[0] > 0.9, "and its sign is fixed");
        assert!(pca.ratios().windows(2).all(|pair| pair[0] >= pair[1]));
        assert!(pca.ratios().iter().sum::<f32>() < 1.0 + 1e-5);
        let mut broken = other;
        broken[3] = f32::NAN;
        assert!(pca.fit(&broken, &all, 0.99).is_err());
    }

    #[test]
    fn ranks_go_where_most_is_explained_and_the_first_of_equals_leads() {
        let with = |ratios: &[f32]| Pca {
            ratios: ratios.to_vec(),
            ..Pca::new(4, ratios.len() as u64)
        };
        let pcas = [with(&[0.5, 0.2, 0.1, 0.0]), with(&[0.3, 0.3, 0.05, 0.0])];
        let claim = |of| Claim { of, room: 4 };
        assert_eq!(share_out(&[claim(0), claim(1)], &pcas, 4), [2, 2]);
        assert_eq!(
            share_out(&[claim(1), claim(0), claim(1)], &pcas, 6),
            [2, 2, 2]
        );
        assert_eq!(
            share_out(&[claim(1), claim(0), claim(1)], &pcas, 2),
            [1, 1, 0]
        );
        let narrow = Claim { of: 0, room: 1 };
        assert_eq!(share_out(&[narrow, claim(1)], &pcas, 4), [1, 3]);
    }

    #[test]
    fn rows_behind_the_components_are_zero_and_factors_follow_the_rank() {
        let mut pca = Pca::new(4, 4);
        let all: Vec<u32> = (0..30).collect();
        pca.fit(&batch(3, 30, 4), &all, 0.99).expect("fits");
        let how = Eva {
            rho: Real::new(2.0),
            tau: Real::new(0.99),
            whiten: false,
            learned: true,
        };
        let mut by = Components {
            site: "a".to_owned(),
            input: 4,
            rank: 2,
            how,
            factor: Factor::Inverse,
        };
        assert_eq!(by.room(), 4);
        let rows = by.values(Half::Rows, 3, &pca);
        let length: f32 = rows[8..12].iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5 && rows[12..] == [0.0; 4]);
        assert_eq!(by.values(Half::Factors, 4, &pca), [0.5; 4]);
        by.how.whiten = true;
        let white = by.values(Half::Rows, 3, &pca);
        assert!((white[0] * pca.values[0].sqrt() - rows[0]).abs() < 1e-6);
    }
}
