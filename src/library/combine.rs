//! Updates of linear maps made low in rank, and several updates made one.

use super::derive::{BaseParam, Derive, Svd};
use crate::base::rng::Stream;

/// How much of an update is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As much as a pair of this rank holds.
    Rank(u64),
    /// The least rank that holds this share of the squared singular values.
    Energy(u64, u64),
    /// The rank of the largest of the pairs that are combined.
    Largest,
}

/// A pair whose product is an update: `B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The rank.
    pub rank: usize,
    /// `A [rank, in]`
    pub a: Vec<f32>,
    /// `B [out, rank]`
    pub b: Vec<f32>,
    /// Length of what the product lacks, as a part of the update's length.
    pub error: f64,
}

/// The pair nearest to an update `[out, in]`; `largest` is the rank of [`Keep::Largest`].
///
/// # Errors
/// The decomposition fails, which numbers that are not finite make it do.
pub fn low_rank(
    update: Vec<f32>,
    (out, input): (u64, u64),
    keep: Keep,
    largest: u64,
) -> Result<Pair, &'static str> {
    let most = out.min(input);
    let rank = match keep {
        Keep::Rank(rank) => rank.min(most),
        Keep::Largest => largest.min(most),
        Keep::Energy(..) => most,
    };
    let total = length(&update);
    if total == 0.0 {
        return Ok(Pair {
            rank: 1,
            a: vec![0.0; input as usize],
            b: vec![0.0; out as usize],
            error: 0.0,
        });
    }
    let by = Svd {
        weight: BaseParam::weight("", [out, input]),
        rank,
        keep: None,
    };
    let mut parts = by.make(update)?.into_iter();
    let mut next = || parts.next().ok_or("a decomposition lacks a part");
    let (rest, u, s, v) = (next()?, next()?, next()?, next()?);
    let squares: Vec<f64> = s.iter().map(|&x| f64::from(x).powi(2)).collect();
    let (kept, error) = match keep {
        Keep::Energy(share, of) => {
            let wanted = squares.iter().sum::<f64>() * share as f64 / of.max(1) as f64;
            let mut sum = 0.0;
            let enough = squares.iter().position(|square| {
                sum += square;
                sum >= wanted
            });
            let kept = enough.map_or(squares.len(), |last| last + 1);
            let lost: f64 = squares.iter().skip(kept).sum();
            (kept, lost.sqrt() / total)
        }
        Keep::Rank(_) | Keep::Largest => (s.len(), length(&rest) / total),
    };
    let row = |u: &[f32]| -> Vec<f32> {
        let kept = u.iter().zip(&s).take(kept);
        kept.map(|(u, s)| u * s).collect()
    };
    let b = u.chunks_exact(s.len().max(1)).flat_map(row).collect();
    let a = v.into_iter().take(kept * input as usize).collect();
    Ok(Pair {
        rank: kept,
        a,
        b,
        error,
    })
}

/// An upper bound of the heap bytes held while an update becomes a pair: the update, the weights it is between, and the
/// decomposition.
#[must_use]
pub fn bytes((out, input): (u64, u64), keep: Keep, largest: u64) -> u64 {
    let most = out.min(input);
    let rank = match keep {
        Keep::Rank(rank) => rank.min(most),
        Keep::Largest => largest.min(most),
        Keep::Energy(..) => most,
    };
    let by = Svd {
        weight: BaseParam::weight("", [out, input]),
        rank,
        keep: None,
    };
    8 * out * input + by.scratch_bytes()
}

fn length(numbers: &[f32]) -> f64 {
    let squares = numbers.iter().map(|&x| f64::from(x).powi(2));
    squares.sum::<f64>().sqrt()
}

/// What becomes one of several tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Their weighted sum.
    Linear,
    /// Pairs side by side.
    Cat,
    /// Of each tensor its largest numbers; of each place the weighted mean of those with the sign that prevails.
    Ties,
    /// Of each tensor a random part, scaled up; then their weighted sum.
    DareLinear,
    /// Of each tensor a random part, scaled up; then as [`Self::Ties`].
    DareTies,
    /// Of each tensor its largest numbers; then their weighted sum.
    MagnitudePrune,
}

/// How several updates are made one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Combination {
    /// The rule.
    pub rule: Rule,
    /// Whether it acts on the updates, of which the nearest pair is taken then; otherwise it acts on A and B.
    pub updates: bool,
    /// Part of the numbers that are kept of each.
    pub density: f64,
    /// Whether signs are counted, not their numbers added.
    pub frequency: bool,
    /// Seed of the random parts.
    pub seed: u64,
}

impl Combination {
    /// The names of all rules, as peft has them.
    pub const NAMES: &[&str] = &[
        "linear",
        "cat",
        "svd",
        "ties",
        "ties_svd",
        "dare_linear",
        "dare_linear_svd",
        "dare_ties",
        "dare_ties_svd",
        "magnitude_prune",
        "magnitude_prune_svd",
    ];

    /// The rule of a name, and whether it acts on whole updates.
    #[must_use]
    pub fn named(name: &str) -> Option<(Rule, bool)> {
        let plain = name.strip_suffix("_svd").unwrap_or(name);
        let rule = match plain {
            "linear" | "svd" => Rule::Linear,
            "cat" => Rule::Cat,
            "ties" => Rule::Ties,
            "dare_linear" => Rule::DareLinear,
            "dare_ties" => Rule::DareTies,
            "magnitude_prune" => Rule::MagnitudePrune,
            _ => return None,
        };
        Some((rule, name.ends_with("svd")))
    }

    /// Whether of each tensor a part is kept.
    #[must_use]
    pub const fn prunes(&self) -> bool {
        !matches!(self.rule, Rule::Linear | Rule::Cat)
    }

    /// One of several tensors alike in shape, with their weights; `name` tells draws apart.
    #[must_use]
    pub fn combine(&self, list: &[Vec<f32>], weights: &[f32], name: &str) -> Vec<f32> {
        let kept: Vec<Vec<f32>> = list
            .iter()
            .zip(0..)
            .map(|(tensor, i)| self.kept(tensor, &format!("{name}/{i}")))
            .collect();
        let count = list.first().map_or(0, Vec::len);
        let signs = matches!(self.rule, Rule::Ties | Rule::DareTies);
        (0..count)
            .map(|at| {
                let own = || kept.iter().filter_map(|tensor| tensor.get(at).copied());
                let weighted = || own().zip(weights);
                if !signs {
                    return weighted().map(|(x, w)| x * w).sum();
                }
                let sign = |x: f32| if x == 0.0 { 0.0 } else { x.signum() };
                let sum: f32 = match self.frequency {
                    true => own().map(sign).sum(),
                    false => own().sum(),
                };
                let major = if sum >= 0.0 { 1.0 } else { -1.0 };
                let agree = || weighted().filter(|(x, _)| sign(*x) == major);
                let number = agree().count().max(1) as f32;
                agree().map(|(x, w)| x * w).sum::<f32>() / number
            })
            .collect()
    }

    /// What is kept of a tensor.
    fn kept(&self, tensor: &[f32], name: &str) -> Vec<f32> {
        if !self.prunes() || self.density >= 1.0 {
            return tensor.to_vec();
        }
        if matches!(self.rule, Rule::DareLinear | Rule::DareTies) {
            let stream = Stream::new(self.seed, &format!("combine/{name}"));
            let keep = |i: u64| stream.uniform(i) < self.density;
            let numbers = tensor.iter().zip(0..);
            return numbers
                .map(|(&x, i)| {
                    if keep(i) {
                        x / self.density as f32
                    } else {
                        0.0
                    }
                })
                .collect();
        }
        let count = (self.density * tensor.len() as f64) as usize;
        let size = |i: &usize| tensor.get(*i).map_or(0.0, |x| x.abs());
        let mut order: Vec<usize> = (0..tensor.len()).collect();
        order.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let mut kept = vec![0.0; tensor.len()];
        for &i in order.iter().take(count) {
            if let (Some(to), Some(from)) = (kept.get_mut(i), tensor.get(i)) {
                *to = *from;
            }
        }
        kept
    }
}

/// Pairs with the factors of their updates, made one pair; `None` where their sizes differ and the rule wants them equal.
#[must_use]
pub fn combined_pairs(
    how: &Combination,
    list: &[(Pair, f64)],
    (out, input): (usize, usize),
    name: &str,
) -> Option<Pair> {
    if how.rule == Rule::Cat {
        let scaled = |(pair, factor): &(Pair, f64)| -> Vec<f32> {
            pair.a.iter().map(|x| x * *factor as f32).collect()
        };
        let a = list.iter().flat_map(scaled).collect();
        let row = |i: usize| {
            list.iter()
                .flat_map(move |(pair, _)| pair.b.iter().skip(i * pair.rank).take(pair.rank))
        };
        let b = (0..out).flat_map(row).copied().collect();
        let rank = list.iter().map(|(pair, _)| pair.rank).sum();
        let error = 0.0;
        return Some(Pair { rank, a, b, error });
    }
    let rank = list.first()?.0.rank;
    if list.iter().any(|(pair, _)| pair.rank != rank) {
        return None;
    }
    let root = |(_, factor): &(Pair, f64)| factor.abs().sqrt() as f32;
    let signed = |own: &(Pair, f64)| root(own) * if own.1 < 0.0 { -1.0 } else { 1.0 };
    let a: Vec<Vec<f32>> = list.iter().map(|(pair, _)| pair.a.clone()).collect();
    let b: Vec<Vec<f32>> = list.iter().map(|(pair, _)| pair.b.clone()).collect();
    let of_a: Vec<f32> = list.iter().map(signed).collect();
    let of_b: Vec<f32> = list.iter().map(root).collect();
    let made = Pair {
        rank,
        a: how.combine(&a, &of_a, &format!("{name}/A")),
        b: how.combine(&b, &of_b, &format!("{name}/B")),
        error: 0.0,
    };
    (made.a.len() == rank * input && made.b.len() == rank * out).then_some(made)
}

/// The update `factor · B A [out, in]` of a pair.
#[must_use]
pub fn update(pair: &Pair, factor: f64, input: usize) -> Vec<f32> {
    let mut made = vec![0.0_f64; pair.b.len() / pair.rank.max(1) * input];
    let rows = made.chunks_exact_mut(input.max(1));
    for (row, b) in rows.zip(pair.b.chunks_exact(pair.rank.max(1))) {
        for (a, &b) in pair.a.chunks_exact(input.max(1)).zip(b) {
            let each = row.iter_mut().zip(a);
            each.for_each(|(x, &a)| *x += f64::from(b) * f64::from(a));
        }
    }
    made.into_iter().map(|x| (x * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(rule: Rule, density: f64) -> Combination {
        Combination {
            rule,
            updates: false,
            density,
            frequency: false,
            seed: 1,
        }
    }

    #[test]
    fn rules_are_those_of_their_papers() {
        let list = [vec![1.0, -4.0, 3.0, 2.0], vec![-2.0, -1.0, 5.0, -6.0]];
        let weights = [0.5, 2.0];
        let of = |rule, density| how(rule, density).combine(&list, &weights, "x");
        assert_eq!(of(Rule::Linear, 1.0), [-3.5, -4.0, 11.5, -11.0]);
        // Two of four are kept of each: -4 and 3, 5 and -6.
        assert_eq!(of(Rule::MagnitudePrune, 0.5), [0.0, -2.0, 11.5, -12.0]);
        assert_eq!(of(Rule::Ties, 0.5), [0.0, -2.0, 5.75, -12.0]);
        assert_eq!(of(Rule::Ties, 1.0), [-4.0, -2.0, 5.75, -12.0]);
        // Random parts keep the mean.
        let ones = [vec![1.0; 20_000]];
        let kept = how(Rule::DareLinear, 0.25).combine(&ones, &[1.0], "y");
        assert!(kept.iter().all(|&x| x == 0.0 || x == 4.0));
        let mean = kept.iter().sum::<f32>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_pair_is_the_nearest_of_its_rank() {
        let pair = Pair {
            rank: 2,
            a: vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            b: vec![3.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
            error: 0.0,
        };
        let own = update(&pair, 2.0, 3);
        let whole = low_rank(own.clone(), (4, 3), Keep::Rank(2), 0).unwrap();
        assert!(whole.error < 1e-6);
        let again = update(&whole, 1.0, 3);
        assert!(own.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-5));
        // Singular values 6 and 2: nine tenths of their squares are in the first.
        let first = low_rank(own.clone(), (4, 3), Keep::Energy(9, 10), 0).unwrap();
        assert_eq!(first.rank, 1);
        assert!((first.error - (4.0_f64 / 40.0).sqrt()).abs() < 1e-5);
        let more = low_rank(own, (4, 3), Keep::Energy(91, 100), 0).unwrap();
        assert_eq!(more.rank, 2);
        let none = low_rank(vec![0.0; 12], (4, 3), Keep::Rank(2), 0).unwrap();
        assert_eq!((none.rank, none.error), (1, 0.0));
    }
}
