//! The cosines of a split's vectors, and how near each anchor's own positive is among all of them.

use rayon::prelude::*;

use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::metric::Predictions;

/// The least length that a vector is divided by.
pub(super) const LEAST: f64 = 1e-12;

/// The length of a vector.
pub(super) fn length(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// The product of two vectors, summed in one order wherever they stand.
fn dot(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let (x8, x1) = x.as_chunks::<8>();
    let (y8, y1) = y.as_chunks::<8>();
    for (x, y) in x8.iter().zip(y8) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += f64::from(*x) * f64::from(*y);
        }
    }
    let rest = x1
        .iter()
        .zip(y1)
        .map(|(x, y)| f64::from(*x) * f64::from(*y));
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

/// The vectors of a split's rows, each of so many texts.
pub(super) struct Rows<'a> {
    set: &'a EncodedSet,
    scores: &'a [f32],
    width: usize,
    texts: usize,
    /// Of each text.
    lengths: Vec<f64>,
}

/// How an anchor stands to all positives.
pub(super) struct Ranked {
    /// The row's number in the data files.
    pub row: u32,
    /// Positives that are nearer than its own.
    pub rank: u32,
    /// The cosine with its own.
    pub cosine: f64,
    /// The row of the nearest.
    pub nearest: u32,
    /// The cosine with that.
    pub highest: f64,
    /// The cross-entropy of its own among all positives and negatives.
    pub loss: f64,
}

impl<'a> Rows<'a> {
    pub(super) fn new(set: &'a EncodedSet, all: &'a Predictions, texts: usize) -> Self {
        let (width, texts) = (all.width.max(1), texts.max(1));
        let each = all.scores.par_chunks(width);
        Self {
            set,
            scores: &all.scores,
            width,
            texts,
            lengths: each.map(|x| length(x).max(LEAST)).collect(),
        }
    }

    fn len(&self) -> usize {
        self.lengths.len() / self.texts
    }

    fn vector(&self, text: usize) -> &[f32] {
        let from = text * self.width;
        self.scores.get(from..from + self.width).unwrap_or_default()
    }

    fn cosine(&self, one: usize, other: usize) -> f64 {
        let length = |text: usize| self.lengths.get(text).copied().unwrap_or(1.0);
        dot(self.vector(one), self.vector(other)) / (length(one) * length(other))
    }

    fn row(&self, place: usize) -> u32 {
        let first = to_u32(place * self.texts);
        self.set.row(first).unwrap_or(first)
    }

    /// Of each row its number, its label and the cosine of its two texts.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (u32, Target, f64)> {
        (0..self.len()).map(|place| {
            let first = place * self.texts;
            let label = self.set.label(to_u32(first)).unwrap_or(Target::None);
            (self.row(place), label, self.cosine(first, first + 1))
        })
    }

    /// How each anchor stands to all positives; the loss is of cosines times `scale`.
    pub(super) fn ranked(&self, scale: f64) -> Vec<Ranked> {
        let all = 0..self.len();
        let places = all.into_par_iter();
        places.map(|place| self.ranked_at(place, scale)).collect()
    }

    fn ranked_at(&self, place: usize, scale: f64) -> Ranked {
        let anchor = place * self.texts;
        let own = self.cosine(anchor, anchor + 1);
        let (mut rank, mut nearest, mut highest) = (0, place, own);
        let mut sum = 0.0;
        for other in 0..self.len() {
            let first = other * self.texts;
            for text in 1..self.texts {
                let cosine = self.cosine(anchor, first + text);
                sum += (scale * (cosine - own)).exp();
                if text > 1 {
                    continue;
                }
                rank += u32::from(cosine > own);
                if cosine > highest {
                    (nearest, highest) = (other, cosine);
                }
            }
        }
        Ranked {
            row: self.row(place),
            rank,
            cosine: own,
            nearest: self.row(nearest),
            highest,
            loss: sum.ln(),
        }
    }
}
