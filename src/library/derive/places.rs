//! Choosing places: which entries, or blocks, of the model's matrices a sparse update trains (methods S2 to S14).
//!
//! **Invariant:** a choice depends on nothing but scores and their order: of equal scores the first is taken, matrix by matrix.

use std::collections::BTreeMap;

use super::super::net::{Init, Param};
use super::BaseParam;
use crate::base::rng::Stream;
use crate::library::counts::to_u32;

/// What entries are ranked by.
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// Nothing: they are drawn.
    Random {
        /// Seed of the draw.
        seed: u64,
    },
    /// The absolute value of the weight.
    Magnitude,
    /// The same, the smallest first.
    Smallest,
    /// How far the weight moved in another training.
    Moved,
    /// Gradients of the frozen model's loss.
    Gradient(Measure),
}

/// How gradients of examples become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// What is summed.
    pub of: Summed,
    /// Training examples.
    pub samples: u64,
    /// Examples of one gradient.
    pub batch: u64,
}

/// What is summed over gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    /// Their squares: empirical Fisher information.
    Squares,
    /// Their absolute values.
    Absolutes,
    /// They themselves; the score is the absolute value of the sum.
    Plain,
    /// They themselves; the score is the absolute value of the sum times the weight.
    Weighted,
    /// They themselves; the score is how far the weight moves away from zero: the sum times the weight, turned round.
    Moving,
}

/// A choice of as many places among all of some matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// What they are ranked by.
    pub score: Score,
    /// The matrices, in order.
    pub of: Vec<BaseParam>,
    /// How many places are chosen.
    pub count: u64,
    /// Rows and columns of a block; a place is an entry where it is 1.
    pub side: u64,
}

/// What a parameter holds of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The places, matrix after matrix, each counted from the start of its matrix, in order.
    Places,
    /// How far the weights at the places moved in the other training: numbers.
    Moved,
    /// Where each matrix' places begin, and where the last one's end.
    Bounds,
    /// A mask of the matrix with this number: bit `i % 32` of word `i / 32` is set where place `i` is chosen.
    Bits(usize),
}

/// The places that were chosen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chosen {
    /// [`Part::Places`]
    pub places: Vec<u32>,
    /// [`Part::Bounds`]
    pub bounds: Vec<u32>,
}

impl Chosen {
    /// [`Part::Bits`] of a matrix with so many places.
    #[must_use]
    pub fn bits(&self, matrix: usize, size: u64) -> Vec<u32> {
        let mut words = vec![0_u32; size.div_ceil(32) as usize];
        let bound = |i: usize| self.bounds.get(i).map_or(0, |&n| n as usize);
        let own = self.places.get(bound(matrix)..bound(matrix + 1));
        for &place in own.unwrap_or_default() {
            if let Some(word) = words.get_mut(place as usize / 32) {
                *word |= 1 << (place % 32);
            }
        }
        words
    }
}

/// Calls a function with the scores of each matrix, in order.
pub type Visit<'a, E> = dyn FnMut(&mut dyn FnMut(usize, &[f32])) -> Result<(), E> + 'a;

/// Digits of the search for the last score that is chosen: bits, from the highest.
const DIGITS: [u32; 3] = [11, 10, 10];

/// A number that is not negative for each number, in the same order; neighbours may fall together.
fn ordered(x: f32) -> f32 {
    const ZERO: u32 = 0x3fc0_0000;
    if !x.is_finite() {
        return f32::NAN;
    }
    let size = x.abs().to_bits() >> 1;
    f32::from_bits(if x < 0.0 { ZERO - size } else { ZERO + size })
}

impl Choice {
    /// Places of a matrix.
    #[must_use]
    pub fn places_of(&self, matrix: &BaseParam) -> u64 {
        matrix.shape.iter().map(|n| n / self.side.max(1)).product()
    }

    /// Bytes held at most while it is made, beside measured gradients: a matrix, the scores of its blocks, the result.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        let read = match self.score {
            Score::Random { .. } => 0,
            Score::Gradient(_) | Score::Magnitude | Score::Smallest => {
                self.of.iter().map(BaseParam::bytes).max().unwrap_or(0)
            }
            Score::Moved => 2 * self.of.iter().map(BaseParam::bytes).max().unwrap_or(0),
        };
        let blocks = self.of.iter().map(|m| 4 * self.places_of(m)).max();
        let blocks = if self.side > 1 {
            blocks.unwrap_or(0)
        } else {
            0
        };
        read + blocks + 8 * self.count + 4 * (self.of.len() as u64 + 1)
    }

    /// The scores of a matrix' places, of its weights or of what was summed over its gradients; the memory of `data` is
    /// used again.
    #[must_use]
    pub fn scores(&self, matrix: &BaseParam, mut data: Vec<f32>) -> Vec<f32> {
        let width = matrix.shape.get(1).copied().unwrap_or(1) as usize;
        let side = self.side.max(1) as usize;
        if side == 1 {
            let signed = matches!(self.score, Score::Gradient(m) if m.of == Summed::Moving);
            let score = if signed { ordered } else { f32::abs };
            data.iter_mut().for_each(|x| *x = score(*x));
            if self.score == Score::Smallest {
                // Bits of finite numbers are ordered as they are; what is not finite stays so.
                let least = f32::MAX.to_bits();
                let finite = data.iter_mut().filter(|x| x.is_finite());
                finite.for_each(|x| *x = f32::from_bits(least - x.to_bits()));
            }
            return data;
        }
        let (wide, high) = (width / side, data.len() / width.max(1) / side);
        let mut sums = vec![0.0_f64; wide * high];
        for (row, numbers) in data.chunks_exact(width.max(1)).enumerate() {
            for (column, part) in numbers.chunks_exact(side).enumerate() {
                let own: f64 = part.iter().map(|&x| f64::from(x)).sum();
                if let Some(sum) = sums.get_mut(row / side * wide + column) {
                    *sum += own;
                }
            }
        }
        sums.into_iter().map(|x| x.abs() as f32).collect()
    }

    /// Draws places without looking at any score.
    #[must_use]
    pub fn draw(&self, seed: u64) -> Chosen {
        let sizes: Vec<u64> = self.of.iter().map(|m| self.places_of(m)).collect();
        let (all, first) = (sizes.iter().sum::<u64>(), self.of.first());
        let name = first.map(|m| m.name.as_str()).unwrap_or_default();
        let stream = Stream::new(seed, &format!("places/{name}"));
        // Whichever are fewer are drawn: those that are chosen, or those that are not.
        let count = self.count.min(all);
        let few = count.min(all - count);
        let mut drawn: Vec<u64> = Vec::with_capacity(few as usize);
        let mut at = 0;
        while (drawn.len() as u64) < few {
            let missing = few - drawn.len() as u64;
            drawn.extend(
                (at..at + missing).map(|i| ((stream.uniform(i) * all as f64) as u64).min(all - 1)),
            );
            at += missing;
            drawn.sort_unstable();
            drawn.dedup();
        }
        let mut next = drawn.iter().copied().peekable();
        let chosen = (0..all).filter(|place| {
            let is_drawn = next.next_if_eq(place).is_some();
            is_drawn == (few == count)
        });
        let mut made = Chosen::default();
        let mut chosen = chosen.peekable();
        let mut begin = 0;
        for size in sizes {
            made.bounds.push(to_u32(made.places.len()));
            while let Some(place) = chosen.next_if(|&p| p < begin + size) {
                made.places.push(to_u32(place - begin));
            }
            begin += size;
        }
        made.bounds.push(to_u32(made.places.len()));
        made
    }

    /// Chooses the places with the largest scores; `None` if a score is no number.
    ///
    /// # Errors
    /// What `visit` says.
    pub fn choose<E>(&self, visit: &mut Visit<'_, E>) -> Result<Option<Chosen>, E> {
        let mut left = self.count;
        let (mut prefix, mut low) = (0_u32, 31);
        let mut is_bad = false;
        for digits in DIGITS {
            low -= digits;
            let mut counts = vec![0_u64; 1 << digits];
            visit(&mut |_, scores| {
                for &score in scores {
                    is_bad |= !score.is_finite();
                    let key = score.to_bits();
                    if u64::from(key) >> (low + digits) == u64::from(prefix) >> (low + digits)
                        && let Some(count) =
                            counts.get_mut((key >> low) as usize & ((1 << digits) - 1))
                    {
                        *count += 1;
                    }
                }
            })?;
            for (digit, count) in counts.iter().enumerate().rev() {
                if *count >= left {
                    prefix |= (to_u32(digit)) << low;
                    break;
                }
                left -= count;
            }
        }
        if is_bad {
            return Ok(None);
        }
        let mut made = Chosen::default();
        made.places.reserve_exact(self.count as usize);
        visit(&mut |_, scores| {
            made.bounds.push(to_u32(made.places.len()));
            for (place, score) in scores.iter().enumerate() {
                let key = score.to_bits();
                let tie = key == prefix && left > 0;
                left -= u64::from(tie);
                if key > prefix || tie {
                    made.places.push(to_u32(place));
                }
            }
        })?;
        made.bounds.push(to_u32(made.places.len()));
        Ok(Some(made))
    }
}

/// Bytes in memory at most while the places of a network's parameters are chosen: what was measured, what was chosen so
/// far, and what the choice at hand takes.
#[must_use]
pub fn peak_bytes(params: &[Param]) -> u64 {
    let chosen = || {
        params.iter().filter_map(|p| match &p.init {
            Init::Chosen { by, .. } => Some((p, by)),
            _ => None,
        })
    };
    let mut measured: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, by) in chosen() {
        if matches!(by.score, Score::Gradient(_)) {
            measured.extend(by.of.iter().map(|m| (m.name.as_str(), m.bytes())));
        }
    }
    let (mut live, mut peak) = (measured.into_values().sum::<u64>(), 0);
    for (param, by) in chosen() {
        peak = peak.max(live + by.scratch_bytes());
        live += 4 * param.elements();
    }
    peak
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn choice(count: u64, side: u64) -> Choice {
        let of = |name: &str, shape: [u64; 2]| BaseParam::weight(name, shape);
        Choice {
            score: Score::Magnitude,
            of: vec![of("a", [4, 6]), of("b", [2, 4])],
            count,
            side,
        }
    }

    #[test]
    fn the_smallest_come_first_where_they_are_asked_for() {
        let choice = Choice {
            score: Score::Smallest,
            of: vec![BaseParam::weight("a", [2, 3])],
            ..choice(2, 1)
        };
        let data = vec![vec![1.0, -0.25, 3.0, 0.0, -2.0, 0.5]];
        let chosen = made(&choice, &data).expect("finite");
        assert_eq!(chosen.places, [1, 3]);
        let bad = vec![vec![1.0, f32::INFINITY, 3.0, 0.0, -2.0, 0.5]];
        assert_eq!(made(&choice, &bad), None);
    }

    fn made(choice: &Choice, data: &[Vec<f32>]) -> Option<Chosen> {
        let scored: Vec<Vec<f32>> = choice
            .of
            .iter()
            .zip(data)
            .map(|(m, d)| choice.scores(m, d.clone()))
            .collect();
        let visit = &mut |f: &mut dyn FnMut(usize, &[f32])| {
            scored.iter().enumerate().for_each(|(i, s)| f(i, s));
            Ok::<(), Infallible>(())
        };
        choice.choose(visit).unwrap_or_default()
    }

    #[test]
    fn the_largest_of_all_matrices_are_chosen_and_the_first_of_equal_ones() {
        let stream = Stream::new(3, "x");
        let number = |i: u64| (stream.normal(i) * 4.0).round() as f32;
        let data = vec![
            (0..24).map(number).collect(),
            (24..32).map(number).collect(),
        ];
        for count in 1..=32 {
            let own = made(&choice(count, 1), &data).unwrap();
            let mut order: Vec<(usize, u32)> = Vec::new();
            for (m, d) in data.iter().enumerate() {
                order.extend((0..d.len() as u32).map(|i| (m, i)));
            }
            order.sort_by(|a, b| {
                let size = |&(m, i): &(usize, u32)| data[m][i as usize].abs();
                size(b).total_cmp(&size(a)).then(a.cmp(b))
            });
            order.truncate(count as usize);
            order.sort_unstable();
            let split = order.iter().filter(|(m, _)| *m == 0).count() as u32;
            let places: Vec<u32> = order.iter().map(|(_, i)| *i).collect();
            let bounds = vec![0, split, count as u32];
            assert_eq!(own, Chosen { places, bounds }, "{count}");
        }
        let mut bad = data;
        bad[1][2] = f32::NAN;
        assert_eq!(made(&choice(3, 1), &bad), None);
    }

    #[test]
    fn signed_scores_keep_their_order() {
        let all = [
            f32::MIN,
            -2.0,
            -1e-3,
            -1e-38,
            0.0,
            1e-38,
            1e-3,
            1.0,
            2.0,
            f32::MAX,
        ];
        let made: Vec<f32> = all.iter().map(|&x| ordered(x)).collect();
        assert!(made.windows(2).all(|w| w[0] < w[1]), "{made:?}");
        assert!(made.iter().all(|x| x.is_finite() && *x >= 0.0));
        assert!(ordered(f32::NEG_INFINITY).is_nan() && ordered(f32::NAN).is_nan());
    }

    #[test]
    fn blocks_count_by_the_sum_of_their_numbers() {
        let mut a = vec![0.0; 24];
        (a[0], a[7], a[14], a[15]) = (5.0, -5.0, -1.0, -1.5);
        let data = vec![a, vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.2]];
        let own = made(&choice(2, 2), &data).unwrap();
        assert_eq!((own.places, own.bounds), (vec![4, 1], vec![0, 1, 2]));
    }

    #[test]
    fn a_draw_gives_as_many_distinct_places_in_order() {
        for count in 0..=32 {
            let own = choice(count, 1).draw(7);
            assert_eq!(own.places.len() as u64, count);
            assert_eq!((own.bounds[0], own.bounds[2]), (0, count as u32));
            let (a, b) = own.places.split_at(own.bounds[1] as usize);
            for (part, size) in [(a, 24), (b, 8)] {
                assert!(part.windows(2).all(|w| w[0] < w[1]) && part.iter().all(|&p| p < size));
            }
        }
        assert_ne!(choice(9, 1).draw(7), choice(9, 1).draw(8));
    }
}
