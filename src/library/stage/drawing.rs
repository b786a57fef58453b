//! Rows that other stages label and a training draws (method P5, iPET): which of them label, and which rows are drawn.
//!
//! A class gets so many rows that the labelled ones and the drawn ones together are so many times the labelled ones. Rows of a class
//! are those whose largest share is its own; they are drawn without replacement, each in proportion to that share. Where there
//! are too few, all of them are taken again as often as it needs.

use super::super::schema::Values;
use super::keys;
use crate::base::rng::Stream;
use crate::library::counts::to_u32;

/// How a training draws rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawing {
    /// How many times the labelled rows they are together with the drawn ones.
    pub grow: u64,
    /// How many of the other teachers label, of all of them.
    pub share: f64,
    /// Its seed.
    pub seed: u64,
    /// Its place among the trainings that the teachers' variants are of, so that each has draws of its own.
    pub place: u64,
}

/// A drawn row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// Its place among the unlabelled ones.
    pub example: u32,
    /// The class that it is taken for.
    pub class: u32,
    /// That class's share.
    pub share: f64,
}

/// What was drawn of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many rows are drawn.
    pub drawn: u64,
    /// How many rows the teachers take for it.
    pub found: u64,
}

impl Drawing {
    /// What a stage's keys say; `None` where nothing is drawn.
    #[must_use]
    pub fn of(values: &Values, place: u64) -> Option<Self> {
        keys::UNLABELLED.get(values)?;
        Some(Self {
            grow: keys::GROW.get(values),
            share: keys::TEACHER_SHARE.get(values),
            seed: keys::SEED.get(values),
            place,
        })
    }

    /// Which of so many teachers label, ascending: some of those at other places, at least one; the only one where there are no
    /// others.
    #[must_use]
    pub fn teachers(&self, count: usize) -> Vec<usize> {
        let others = (0..count).filter(|&i| count == 1 || i as u64 != self.place);
        let mut others: Vec<usize> = others.collect();
        let wanted = (self.share * others.len() as f64)
            .round_ties_even()
            .max(1.0) as usize;
        let stream = Stream::new(self.seed, "teachers that label");
        let key = |&i: &usize| stream.word(self.element(i as u64));
        others.sort_unstable_by_key(|i| (key(i), *i));
        others.truncate(wanted);
        others.sort_unstable();
        others
    }

    /// How many rows are drawn beside so many labelled ones.
    #[must_use]
    pub const fn beside(&self, labelled: u64) -> u64 {
        labelled.saturating_mul(self.grow.saturating_sub(1))
    }

    /// The rows that are drawn beside labelled ones, of which each class has so many: class by class, in the order in which they are
    /// drawn. `scores` has a row of one score a class for each unlabelled one.
    ///
    /// # Errors
    /// The first class that no row is taken for.
    pub fn rows(&self, scores: &[f64], labelled: &[u64]) -> Result<(Vec<Drawn>, Vec<Count>), u32> {
        let stream = Stream::new(self.seed, "rows that are drawn");
        let predicted = || (0_u32..).zip(scores.chunks(labelled.len().max(1)).map(predicted));
        let rows = (scores.len() / labelled.len().max(1)) as u64;
        let (mut all, mut counts) = (Vec::new(), Vec::new());
        for (class, &own) in (0_u32..).zip(labelled) {
            let drawn = self.beside(own);
            let found: Vec<Drawn> = predicted()
                .filter(|(_, (of, _))| *of == class)
                .map(|(example, (_, share))| Drawn {
                    example,
                    class,
                    share,
                })
                .collect();
            let found_rows = found.len() as u64;
            counts.push(Count {
                drawn,
                found: found_rows,
            });
            if drawn == 0 {
                continue;
            }
            if found.is_empty() {
                return Err(class);
            }
            // The least of these waiting times are draws in proportion to the shares, one after the other without replacement.
            let waits = |copy: u64, row: &Drawn| {
                let element = copy.saturating_mul(rows) + u64::from(row.example);
                -libm::log(1.0 - stream.uniform(self.element(element))) / row.share
            };
            let copies = drawn.div_ceil(found_rows);
            let mut waiting: Vec<(f64, u64, Drawn)> = (0..copies)
                .flat_map(|copy| found.iter().map(move |row| (copy, *row)))
                .map(|(copy, row)| (waits(copy, &row), copy, row))
                .collect();
            waiting.sort_unstable_by(|a, b| {
                let later = a.0.total_cmp(&b.0);
                later.then((a.1, a.2.example).cmp(&(b.1, b.2.example)))
            });
            all.extend(
                waiting
                    .into_iter()
                    .take(drawn as usize)
                    .map(|(.., row)| row),
            );
        }
        Ok((all, counts))
    }

    /// The number of an element of this training among those of all.
    const fn element(&self, own: u64) -> u64 {
        (self.place << 40) ^ own
    }
}

/// The class of the largest score, the first among equals, and its share.
fn predicted(scores: &[f64]) -> (u32, f64) {
    let mut best = (0, f64::NEG_INFINITY);
    for (class, &score) in scores.iter().enumerate() {
        if score > best.1 {
            best = (class, score);
        }
    }
    let sum: f64 = scores.iter().map(|score| libm::exp(score - best.1)).sum();
    (to_u32(best.0), 1.0 / sum)
}
