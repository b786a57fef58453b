//! Beam search: several texts of a row are gone on with at once, and the best one is taken, as `generate` of transformers does
//! (5.24, `_beam_search`).

use std::cmp::Ordering;

use super::super::schema::{Bound, Given, Maybe, Values, kind};

pub(super) const COUNT: Given<u64> = Given::<u64>::tacit(
    "num_beams",
    kind::int(1, 1 << 10),
    (1, "1"),
    "texts that are gone on with at once of each row: the likeliest whole ones; with 1 each token is chosen by itself",
);
pub(super) const LENGTH_PENALTY: Given<f64> = Given::<f64>::tacit(
    "length_penalty",
    kind::float(Bound::Incl(-100.0), Bound::Incl(100.0)),
    (1.0, "1"),
    "a text's log-probability is divided by its number of tokens to this power; above 0 it favours longer texts",
);
pub(super) const EARLY: Maybe<str> = Maybe::new(
    "early_stopping",
    kind::choice(&["off", "on", "never"]),
    "when a search ends: with `on` as soon as there are `num_beams` whole texts; with `off`, where nothing is written, when no \
     text seems to become better than these, judged by its length so far; with `never` judged by the greatest length if \
     `length_penalty` is above 0",
);

/// When a search ends, once there are as many whole texts as are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Early {
    /// When no text that is gone on with would be better than these at its length so far.
    #[default]
    Off,
    /// At once.
    On,
    /// When none could become better than these at any length.
    Never,
}

/// How a search goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beams {
    /// Texts at once of each row.
    pub count: u64,
    /// The power of the length that log-probabilities are divided by.
    pub length_penalty: f64,
    /// When it ends.
    pub early: Early,
}

impl Default for Beams {
    fn default() -> Self {
        Self {
            count: 1,
            length_penalty: 1.0,
            early: Early::Off,
        }
    }
}

impl Early {
    /// By the name that recipes and flags write.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "on" => Self::On,
            "never" => Self::Never,
            _ => Self::Off,
        }
    }
}

impl Beams {
    pub(super) fn of(values: &Values) -> Self {
        Self {
            count: COUNT.find(values).unwrap_or(1),
            length_penalty: LENGTH_PENALTY.find(values).unwrap_or(1.0),
            early: EARLY.get(values).map_or(Early::Off, Early::named),
        }
    }

    /// Whether several texts are gone on with at once.
    #[must_use]
    pub const fn searches(&self) -> bool {
        self.count > 1
    }
}

/// A text that is gone on with.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// The sum of its tokens' log-probabilities.
    pub score: f32,
    /// Its place in the caches.
    pub place: usize,
    /// Its tokens, behind the prompt.
    pub made: Vec<u32>,
}

/// The search for one row's text.
#[derive(Clone, Debug)]
pub struct Search {
    of: Beams,
    most: usize,
    first: usize,
    running: Vec<Beam>,
    /// Scores and tokens of whole texts, the best first.
    finished: Vec<(f32, Vec<u32>)>,
    /// Whether a text that is gone on with might become better than these.
    improvable: bool,
    done: bool,
}

/// A token that a text may go on with.
struct Candidate {
    score: f32,
    beam: usize,
    token: u32,
}

/// What takes a text out of the running.
const OUT: f32 = -1.0e9;

impl Search {
    /// A search whose texts have the places from `first` on in the caches, and at most so many tokens.
    #[must_use]
    pub fn new(of: Beams, first: usize, most: u64) -> Self {
        let begin = Beam {
            score: 0.0,
            place: first,
            made: Vec::new(),
        };
        Self {
            of,
            most: most as usize,
            first,
            running: vec![begin],
            finished: Vec::new(),
            improvable: true,
            done: false,
        }
    }

    /// The texts that are gone on with, the likeliest first.
    #[must_use]
    pub fn running(&self) -> &[Beam] {
        if self.done { &[] } else { &self.running }
    }

    /// The tokens of the best text.
    #[must_use]
    pub fn into_best(self) -> Vec<u32> {
        let going = self.running.into_iter().next().map(|beam| beam.made);
        let whole = self.finished.into_iter().next().map(|(_, made)| made);
        whole.or(going).unwrap_or_default()
    }

    /// Goes on with the texts by the log-probabilities of what follows each; `ends` end a text. Gives the places of the caches that
    /// are copied, from where to where: nothing is copied from a place that something is copied to.
    pub fn step(&mut self, rows: &[&[f32]], ends: &[u32]) -> Vec<(usize, usize)> {
        let count = self.of.count as usize;
        let length = self.running.first().map_or(0, |beam| beam.made.len()) + 1;
        let kept = (1 + ends.len()).max(2) * count;
        let best = self.candidates(rows, kept);
        let ended = |c: &Candidate| length >= self.most || ends.contains(&c.token);
        let with = |c: &Candidate| -> Vec<u32> {
            let before = self.running.get(c.beam).map(|beam| beam.made.as_slice());
            let mut made = before.unwrap_or_default().to_vec();
            made.push(c.token);
            made
        };
        // Those that ended are gone on with only where too few others are left.
        let mut next: Vec<(f32, &Candidate)> = best
            .iter()
            .map(|c| (if ended(c) { c.score + OUT } else { c.score }, c))
            .collect();
        next.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        next.truncate(count);
        let full = self.finished.len() >= count;
        let penalty = (length as f64).powf(self.of.length_penalty) as f32;
        let mut whole = Vec::new();
        if self.improvable && !(full && self.of.early == Early::On) {
            let likely = best.iter().take(count).filter(|c| ended(c));
            whole.extend(likely.map(|c| (c.score / penalty, with(c))));
        }
        let (all_ended, parents): (bool, Vec<usize>) = (
            best.iter().all(ended),
            next.iter().map(|(_, c)| c.beam).collect(),
        );
        let (places, copies) = self.places(&parents);
        let beams = next.iter().zip(places).map(|((score, c), place)| Beam {
            score: *score,
            place,
            made: with(c),
        });
        let beams: Vec<Beam> = beams.collect();
        self.finished.extend(whole);
        self.finished.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        self.finished.truncate(count);
        self.running = beams;
        self.look(length);
        let full = self.finished.len() >= count;
        self.done = !self.improvable || all_ended || full && self.of.early == Early::On;
        if self.done { Vec::new() } else { copies }
    }

    /// The likeliest continuations, the best first.
    fn candidates(&self, rows: &[&[f32]], kept: usize) -> Vec<Candidate> {
        let each = self.running.iter().zip(rows).enumerate();
        let mut all: Vec<Candidate> = each
            .flat_map(|(beam, (own, row))| {
                (0..).zip(*row).map(move |(token, &x)| Candidate {
                    score: x + own.score,
                    beam,
                    token,
                })
            })
            // What is ruled out begins no text.
            .filter(|c| c.score > f32::NEG_INFINITY)
            .collect();
        let likelier = |a: &Candidate, b: &Candidate| -> Ordering {
            let place = |c: &Candidate| (c.beam, c.token);
            b.score.total_cmp(&a.score).then(place(a).cmp(&place(b)))
        };
        if kept < all.len() {
            all.select_nth_unstable_by(kept, likelier);
            all.truncate(kept);
        }
        all.sort_unstable_by(likelier);
        all
    }

    /// Looks at whether one of the texts that are gone on with might become better than the whole ones.
    fn look(&mut self, length: usize) {
        let Some(best) = self.running.first() else {
            self.improvable = false;
            return;
        };
        let far = self.of.early == Early::Never && self.of.length_penalty > 0.0;
        let length = if far { self.most } else { length };
        let hoped = best.score / (length as f64).powf(self.of.length_penalty) as f32;
        let worst = match self.finished.last() {
            Some((score, _)) if self.finished.len() >= self.of.count as usize => *score,
            _ => OUT,
        };
        self.improvable &= hoped > worst;
    }

    /// Places of texts that go on from these: the first of a text stays where that is, the others get places of texts that are
    /// gone on with no more.
    fn places(&self, parents: &[usize]) -> (Vec<usize>, Vec<(usize, usize)>) {
        let place_of = |parent: &usize| self.running.get(*parent).map_or(self.first, |b| b.place);
        let taken: Vec<usize> = parents.iter().map(place_of).collect();
        let all = self.first..self.first + self.of.count as usize;
        let mut free = all.filter(|place| !taken.contains(place));
        let mut copies = Vec::new();
        let mut places: Vec<usize> = Vec::with_capacity(taken.len());
        for (i, &from) in taken.iter().enumerate() {
            let again = taken.iter().take(i).any(|before| *before == from);
            match if again { free.next() } else { None } {
                Some(to) => {
                    copies.push((from, to));
                    places.push(to);
                }
                None => places.push(from),
            }
        }
        (places, copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(count: u64, length_penalty: f64, early: Early, most: u64) -> Search {
        let beams = Beams {
            count,
            length_penalty,
            early,
        };
        Search::new(beams, 6, most)
    }

    #[test]
    fn no_cache_is_copied_from_where_another_is_copied_to() {
        let mut own = search(3, 1.0, Early::Off, 9);
        let first = [-1.0, -2.0, -3.0, -9.0];
        assert_eq!(own.step(&[&first], &[9]), [(6, 7), (6, 8)]);
        let places =
            |own: &Search| -> Vec<usize> { own.running().iter().map(|b| b.place).collect() };
        assert_eq!(places(&own), [6, 7, 8]);
        // All that go on are of the second.
        let rows: [&[f32]; 3] = [&[-90.0; 4], &[-1.0, -1.5, -2.0, -9.0], &[-90.0; 4]];
        assert_eq!(own.step(&rows, &[9]), [(7, 6), (7, 8)]);
        assert_eq!(places(&own), [7, 6, 8]);
        let made: Vec<&[u32]> = own.running().iter().map(|b| &b.made[..]).collect();
        assert_eq!(made, [[1, 0], [1, 1], [1, 2]]);
    }

    #[test]
    fn a_search_ends_as_it_is_told_to() {
        // Token 0 ends a text.
        let row = [-1.0_f32, -1.2, -3.0, -4.0];
        let lengths = |early, penalty| {
            let mut own = search(2, penalty, early, 8);
            let mut steps = 0;
            while !own.running().is_empty() {
                let rows = vec![&row[..]; own.running().len()];
                own.step(&rows, &[0]);
                steps += 1;
            }
            (steps, own.into_best().len())
        };
        // The second whole text comes with the second step.
        assert_eq!(lengths(Early::On, 1.0).0, 2);
        assert_eq!(lengths(Early::Off, 0.0), (2, 1));
        // A text that is as long as may be is hoped for.
        assert_eq!(lengths(Early::Never, 2.0), (8, 8));
    }
}
