//! Choosing a token from logits.

use std::cmp::Ordering;

use super::Sampling;
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::library::data::tokens::unmarked;

/// Chooses tokens of one text after another.
#[derive(Clone, Debug)]
pub struct Sampler {
    of: Sampling,
    stream: Stream,
}

/// A token that can be drawn, and its probability before it is divided by the sum of all.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    logit: f32,
    weight: f64,
}

/// The likelier token first; of equals, that with the smaller number.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

impl Sampler {
    /// One with these settings.
    #[must_use]
    pub fn new(of: &Sampling) -> Self {
        Self {
            of: of.clone(),
            stream: Stream::new(of.seed, "generate"),
        }
    }

    /// The token behind `before`, the tokens of the prompt and those made so far, of which there are `made`, in the text
    /// number `text`. Logits are changed by the penalty of repetition.
    #[must_use]
    pub fn choose(&self, logits: &mut [f32], before: &[u32], (text, made): (u64, u64)) -> u32 {
        self.penalise(logits, before);
        if self.of.temperature > 0.0 {
            let [a, b, ..] = self.stream.block([
                to_u32(text),
                to_u32(text >> 32),
                to_u32(made),
                to_u32(made >> 32),
            ]);
            let word = u64::from(a) | u64::from(b) << 32;
            let uniform = (word >> 11) as f64 / 9_007_199_254_740_992.0;
            self.draw(logits, uniform)
        } else {
            crate::library::metric::best(logits)
        }
    }

    /// Divides positive logits of tokens that occurred and multiplies negative ones (Keskar et al. 2019, arXiv 1909.05858).
    pub fn penalise(&self, logits: &mut [f32], before: &[u32]) {
        let penalty = self.of.repetition_penalty as f32;
        if penalty == 1.0 {
            return;
        }
        let mut occurred = unmarked(before);
        occurred.sort_unstable();
        occurred.dedup();
        for token in occurred {
            if let Some(x) = logits.get_mut(token as usize) {
                *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
            }
        }
    }

    /// Draws with a number in `[0, 1)`: of the likeliest tokens first, then of those together likely enough, then of those
    /// not too unlikely, as `transformers` does.
    fn draw(&self, logits: &[f32], uniform: f64) -> u32 {
        let all = (0..).zip(logits);
        let mut list: Vec<Candidate> = all
            .map(|(token, &logit)| Candidate {
                token,
                logit,
                weight: 0.0,
            })
            .collect();
        if let Some(k) = self.of.top_k.and_then(|k| usize::try_from(k).ok())
            && k < list.len()
            && k > 0
        {
            list.select_nth_unstable_by(k - 1, likelier);
            list.truncate(k);
        }
        list.sort_unstable_by(likelier);
        let Some(first) = list.first().map(|c| f64::from(c.logit)) else {
            return 0;
        };
        for one in &mut list {
            one.weight = libm::exp((f64::from(one.logit) - first) / self.of.temperature);
        }
        let sum = |list: &[Candidate]| list.iter().map(|c| c.weight).sum::<f64>();
        if let Some(p) = self.of.top_p {
            let enough = p * sum(&list);
            let mut together = 0.0;
            // The token that reaches the probability belongs to them.
            let kept = list.iter().take_while(|c| {
                let is_needed = together < enough;
                together += c.weight;
                is_needed
            });
            let kept = kept.count().max(1);
            list.truncate(kept);
        }
        if let Some(p) = self.of.min_p {
            let kept = list.iter().take_while(|c| c.weight >= p).count().max(1);
            list.truncate(kept);
        }
        let mut left = uniform * sum(&list);
        for one in &list {
            if left < one.weight {
                return one.token;
            }
            left -= one.weight;
        }
        list.last().map_or(0, |c| c.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(of: Sampling, logits: &[f32], count: u64) -> Vec<f64> {
        let sampler = Sampler::new(&of);
        let mut seen = vec![0.0; logits.len()];
        for made in 0..count {
            let token = sampler.choose(&mut logits.to_vec(), &[], (3, made));
            seen[token as usize] += 1.0 / count as f64;
        }
        seen
    }

    fn of(temperature: f64) -> Sampling {
        Sampling {
            temperature,
            ..Sampling::default()
        }
    }

    fn close(got: &[f64], want: &[f64]) {
        for (a, b) in got.iter().zip(want) {
            assert!(
                (a - b).abs() < 0.015 && (*b > 0.0 || *a == 0.0),
                "{got:?} {want:?}"
            );
        }
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let weights = [0.5_f32, 0.1, 0.3, 0.1];
        let logits = weights.map(f32::ln);
        let n = 20_000;
        close(&drawn(of(1.0), &logits, n), &[0.5, 0.1, 0.3, 0.1]);
        // The square of each probability, over their sum.
        close(
            &drawn(of(0.5), &logits, n),
            &[0.25 / 0.36, 0.01 / 0.36, 0.09 / 0.36, 0.01 / 0.36],
        );
        let top_k = Sampling {
            top_k: Some(2),
            ..of(1.0)
        };
        close(&drawn(top_k, &logits, n), &[0.625, 0.0, 0.375, 0.0]);
        // Of equals, the one with the smaller number.
        let top_k = Sampling {
            top_k: Some(3),
            ..of(1.0)
        };
        close(
            &drawn(top_k, &logits, n),
            &[5.0 / 9.0, 1.0 / 9.0, 3.0 / 9.0, 0.0],
        );
        let top_p = Sampling {
            top_p: Some(0.51),
            ..of(1.0)
        };
        close(&drawn(top_p, &logits, n), &[0.625, 0.0, 0.375, 0.0]);
        let top_p = Sampling {
            top_p: Some(0.3),
            ..of(1.0)
        };
        close(&drawn(top_p, &logits, n), &[1.0, 0.0, 0.0, 0.0]);
        let min_p = Sampling {
            min_p: Some(0.5),
            ..of(1.0)
        };
        close(&drawn(min_p, &logits, n), &[0.625, 0.0, 0.375, 0.0]);
    }

    #[test]
    fn the_likeliest_is_taken_and_repetition_is_penalised() {
        let greedy = Sampler::new(&Sampling::default());
        assert_eq!(greedy.choose(&mut [0.5, 2.0, 2.0], &[], (0, 0)), 1);
        let penalised = Sampler::new(&Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        });
        let mut logits = [-1.0, 2.0, 1.5];
        assert_eq!(penalised.choose(&mut logits, &[1, 0, 1, 99], (0, 0)), 2);
        assert_eq!(logits, [-2.0, 1.0, 1.5], "once for each token");
    }

    #[test]
    fn a_draw_is_a_function_of_seed_text_and_place() {
        let draw = |seed, text, made| {
            let sampler = Sampler::new(&Sampling { seed, ..of(1.0) });
            sampler.choose(&mut [0.0; 1000], &[], (text, made))
        };
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        let all = [draw(1, 2, 3), draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)];
        let mut different = all.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 4, "{all:?}");
    }
}
