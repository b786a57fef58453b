//! Signals: numbers that are a function of the step alone. The executor feeds them, and programs read them as constants:
//! the rank of a step, what is dropped of a weight, how much of a budget is left.

use super::types::Real;
use crate::base::rng::Stream;

/// Numbers of a step. Steps count from 0. Nothing is stored, so a run that goes on has the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// A place is drawn evenly: 1 there, 0 elsewhere.
    Drawn {
        /// Key of the stream it is drawn from.
        stream: [u32; 2],
        /// Places.
        of: u32,
    },
    /// A count `n` of at least 1 is drawn evenly, the place of [`Self::Drawn`] being the last: `of / n` in the first `n`
    /// places, 0 in the others.
    First {
        /// Key of the stream it is drawn from.
        stream: [u32; 2],
        /// Places.
        of: u32,
    },
    /// Each place is 0 with this probability. The others are 1, or as much as makes the mean 1.
    Dropped {
        /// Key of the stream it is drawn from.
        stream: [u32; 2],
        /// Places.
        of: u32,
        /// The probability.
        p: Real,
        /// Whether the mean is kept.
        scaled: bool,
    },
    /// A number before a step, 0 from there on.
    Until {
        /// The step.
        step: u64,
        /// The number.
        value: Real,
    },
    /// How many places a budget that falls to the third power leaves out.
    Pruned(Budget),
}

/// A budget that falls from `from` to `to` places (AdaLoRA, arXiv 2303.10512, equation 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    /// Places at first.
    pub from: u64,
    /// Places in the end.
    pub to: u64,
    /// The last step at which all are there.
    pub begins: u64,
    /// Steps at the end with the last budget.
    pub last: u64,
    /// Steps between two prunings.
    pub every: u64,
    /// All steps.
    pub steps: u64,
}

impl Budget {
    /// How many places are left out after a step; 0 where nothing is pruned then.
    #[must_use]
    pub fn pruned(&self, step: u64) -> u64 {
        let ends = self.steps.saturating_sub(self.last);
        let all = self.from.saturating_sub(self.to);
        if step <= self.begins {
            return 0;
        }
        if step >= ends {
            return all;
        }
        if !step.is_multiple_of(self.every.max(1)) {
            return 0;
        }
        let passed = (step - self.begins) as f64 / ends.saturating_sub(self.begins).max(1) as f64;
        let left = 1.0 - passed;
        let budget = all as f64 * (left * left * left) + self.to as f64;
        self.from.saturating_sub(budget as u64)
    }
}

impl Signal {
    /// How many numbers it is.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Drawn { of, .. } | Self::First { of, .. } | Self::Dropped { of, .. } => {
                *of as u64
            }
            Self::Until { .. } | Self::Pruned(_) => 1,
        }
    }

    /// Whether it is no number at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its numbers at a step.
    #[must_use]
    pub fn at(&self, step: u64) -> Vec<f32> {
        match *self {
            Self::Drawn { stream, of } => {
                let place = drawn(stream, of, step);
                (0..of).map(|i| f32::from(u8::from(i == place))).collect()
            }
            Self::First { stream, of } => {
                let last = drawn(stream, of, step);
                let value = of as f32 / (last + 1) as f32;
                let at = |i| if i <= last { value } else { 0.0 };
                (0..of).map(at).collect()
            }
            Self::Dropped {
                stream,
                of,
                p,
                scaled,
            } => dropped((stream, of), p.get(), scaled, step),
            Self::Until { step: end, value } => {
                vec![if step < end { value.get() as f32 } else { 0.0 }]
            }
            Self::Pruned(budget) => vec![budget.pruned(step) as f32],
        }
    }
}

/// The place that is drawn at a step.
fn drawn(stream: [u32; 2], of: u32, step: u64) -> u32 {
    let word = Stream::of_key(stream).word(step);
    ((u128::from(word) * u128::from(of)) >> 64) as u32
}

fn dropped((stream, of): ([u32; 2], u32), p: f64, scaled: bool, step: u64) -> Vec<f32> {
    let stream = Stream::of_key(stream);
    let first = step.wrapping_mul(u64::from(of));
    let kept = |i: u32| stream.uniform(first.wrapping_add(u64::from(i))) >= p;
    let kept: Vec<bool> = (0..of).map(kept).collect();
    let count = kept.iter().filter(|kept| **kept).count();
    let value = if scaled && count > 0 {
        of as f32 / count as f32
    } else {
        1.0
    };
    kept.iter().map(|&k| if k { value } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_drawn_about_as_often_and_counts_go_with_it() {
        let (stream, of) = (Stream::new(3, "rank").key(), 4);
        let mut seen = [0_u32; 4];
        for step in 0..4000 {
            let one = Signal::Drawn { stream, of }.at(step);
            let first = Signal::First { stream, of }.at(step);
            let place = one.iter().position(|&x| x == 1.0).expect("one is drawn");
            assert_eq!(one.iter().sum::<f32>(), 1.0);
            seen[place] += 1;
            for (i, &x) in first.iter().enumerate() {
                let want = if i <= place {
                    4.0 / (place as f32 + 1.0)
                } else {
                    0.0
                };
                assert_eq!(x, want);
            }
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    }

    #[test]
    fn as_much_is_dropped_as_is_asked_for() {
        let stream = Stream::new(1, "rows").key();
        let signal = |scaled| Signal::Dropped {
            stream,
            of: 50,
            p: Real::new(0.2),
            scaled,
        };
        let all: Vec<f32> = (0..200).flat_map(|step| signal(false).at(step)).collect();
        let kept = all.iter().sum::<f32>() / all.len() as f32;
        assert!((kept - 0.8).abs() < 0.02, "{kept}");
        assert_ne!(signal(false).at(0), signal(false).at(1));
        let mean = signal(true).at(7).iter().sum::<f32>() / 50.0;
        assert!((mean - 1.0).abs() < 1e-6, "{mean}");
    }

    #[test]
    fn a_budget_falls_to_the_third_power() {
        // By the reference: b0 = 24, target 16, tinit 2, tfinal 3, 20 steps.
        let budget = Budget {
            from: 24,
            to: 16,
            begins: 2,
            last: 3,
            every: 2,
            steps: 20,
        };
        let pruned: Vec<u64> = (0..20).map(|t| budget.pruned(t)).collect();
        let want = [0, 0, 0, 0, 3, 0, 5, 0, 7, 0, 8, 0, 8, 0, 8, 0, 8, 8, 8, 8];
        assert_eq!(pruned, want);
    }
}
