//! The best answers of a question, from the scores of its windows' tokens: `postprocess_qa_predictions` of transformers' `run_qa.py`.

use std::sync::Arc;

use crate::library::counts::to_u32;
use crate::library::data::tokens::Target;

use super::windows::Seen;

/// What bounds the answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Beginnings, ends and answers that are looked at.
    pub most: usize,
    /// Tokens of an answer.
    pub length: u32,
    /// How much higher the score of no answer must be; `None` where every question is answered.
    pub threshold: Option<f64>,
}

/// An answer that is possible.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Its bytes in the context; none for no answer.
    pub at: Option<[u32; 2]>,
    /// The sum of its scores.
    pub score: f32,
    /// Its share among the answers that are looked at.
    pub probability: f64,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answered {
    /// The best ones, in order.
    pub all: Vec<Candidate>,
    /// Place of what is answered among them; `None` where nothing can be.
    pub own: Option<usize>,
    /// How much higher the score of no answer is than that of the best one, where questions may have none.
    pub none: Option<f64>,
}

/// Of the scores of a window's tokens, two each, the highest of beginnings and ends, with the tokens' places: the scores that no answer has,
/// and so many pairs of both.
pub(super) fn highest(scores: &[f32], most: usize) -> Target {
    let pairs = scores.as_chunks::<2>().0;
    let bits = |x: f32| x.to_bits();
    let mut list: Vec<u32> = scores.iter().take(2).copied().map(bits).collect();
    for column in [0, 1] {
        let mut order: Vec<u32> = (0..to_u32(pairs.len())).collect();
        let score = |at: u32| pairs.get(at as usize).map_or(f32::MIN, |pair| pair[column]);
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        order.truncate(most);
        list.push(to_u32(order.len()));
        list.extend(order.into_iter().flat_map(|at| [at, bits(score(at))]));
    }
    Target::Each(Arc::new(list))
}

/// Scores with their places.
type Scores = Vec<(u32, f32)>;

fn read(target: &Target) -> Option<(f32, [Scores; 2])> {
    let Target::Each(list) = target else {
        return None;
    };
    let (&[begin, end], mut rest) = list.split_first_chunk::<2>()?;
    let mut columns = [Scores::new(), Scores::new()];
    for column in &mut columns {
        let (count, own) = rest.split_first()?;
        let (own, behind) = own.split_at_checked(2 * *count as usize)?;
        let pairs = own.as_chunks::<2>().0.iter();
        column.extend(pairs.map(|&[at, bits]| (at, f32::from_bits(bits))));
        rest = behind;
    }
    Some((f32::from_bits(begin) + f32::from_bits(end), columns))
}

/// The answer to a question, from its windows and what [`highest`] left of their scores.
pub(super) fn answered<'a>(
    windows: impl IntoIterator<Item = (&'a Seen, &'a Target)>,
    context: &str,
    limits: Limits,
) -> Answered {
    let mut all: Vec<Candidate> = Vec::new();
    let mut least: Option<f32> = None;
    let candidate = |at, score| Candidate {
        at,
        score,
        probability: 0.0,
    };
    for (seen, scores) in windows {
        let Some((none, [begins, ends])) = read(scores) else {
            continue;
        };
        if least.is_none_or(|least| least > none) {
            least = Some(none);
        }
        let offset = |at: u32| {
            seen.offsets
                .get(at.checked_sub(seen.first)? as usize)
                .copied()
        };
        for &(begin, first) in &begins {
            for &(end, last) in &ends {
                if end < begin || end - begin >= limits.length {
                    continue;
                }
                if let Some(([from, _], [_, to])) = offset(begin).zip(offset(end)) {
                    all.push(candidate(Some([from, to]), first + last));
                }
            }
        }
    }
    let none = least
        .filter(|_| limits.threshold.is_some())
        .map(|score| candidate(None, score));
    all.extend(none.clone());
    // Equal ones stay in their order.
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.truncate(limits.most);
    if !all.iter().any(|own| own.at.is_none()) {
        all.extend(none.clone());
    }
    shares(&mut all);
    let is_text = |own: &Candidate| {
        own.at.is_some_and(|[from, to]| {
            context
                .get(from as usize..to as usize)
                .is_some_and(|text| !text.is_empty())
        })
    };
    let best = all.iter().position(is_text);
    let Some((threshold, none)) = limits.threshold.zip(none) else {
        let own = (!all.is_empty()).then_some(0);
        return Answered {
            all,
            own,
            none: None,
        };
    };
    let nothing = all.iter().position(|own| own.at.is_none());
    let by = best
        .and_then(|best| all.get(best))
        .map(|best| f64::from(none.score) - f64::from(best.score));
    let own = match by {
        Some(by) if by <= threshold => best,
        _ => nothing,
    };
    Answered { all, own, none: by }
}

/// Softmax over the scores.
fn shares(all: &mut [Candidate]) {
    let most = all.iter().map(|own| own.score).fold(f32::MIN, f32::max);
    let power = |own: &Candidate| f64::from(own.score - most).exp();
    let sum: f64 = all.iter().map(power).sum();
    for own in all {
        own.probability = power(own) / sum;
    }
}
