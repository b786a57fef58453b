//! Batches by tokens: how an epoch is cut so that no batch has more than a budget.
//!
//! Every epoch has as many batches, so that a step belongs to an epoch by its number alone. That is the most that any epoch
//! of the training needs when each batch takes the next examples as long as there is room. An epoch that needs fewer is
//! cut at a smaller budget, and then its largest batches are cut in two.

use std::ops::Range;

use super::super::data::batch::order;

/// The examples of a batch, or its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// So many examples.
    Examples(u64),
    /// As many examples as have so many tokens together.
    Tokens(u64),
}

/// How epochs are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// The most tokens of a batch.
    pub budget: u64,
    /// Batches of an epoch.
    pub batches: u64,
    /// Examples of the batch that has most of them.
    pub most: u64,
}

/// How long a training is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Epochs, or steps.
    pub epochs: Option<u64>,
    pub steps: Option<u64>,
    pub seed: u64,
    pub shuffle: bool,
}

/// Where batches end that take the next examples as long as there is room.
fn greedy(order: &[u32], length: &dyn Fn(u32) -> u64, budget: u64) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let (mut begin, mut tokens) = (0, 0);
    for (place, &example) in order.iter().enumerate() {
        let own = length(example);
        if place > begin && tokens + own > budget {
            all.push(begin..place);
            (begin, tokens) = (place, 0);
        }
        tokens += own;
    }
    if begin < order.len() {
        all.push(begin..order.len());
    }
    all
}

impl Packing {
    /// How the epochs of a training are cut; `None` where an example is longer than the budget.
    pub(super) fn of(lengths: &[u32], budget: u64, extent: Extent) -> Option<Self> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if u64::from(longest) > budget {
            return None;
        }
        let length = |example: u32| lengths.get(example as usize).map_or(0, |&n| u64::from(n));
        let of = |epoch| order(lengths.len(), extent.seed, epoch, extent.shuffle);
        let mut made = Self {
            budget,
            batches: 1,
            most: 1,
        };
        let goes_on = |epoch: u64, batches: u64| {
            let unlike = extent.shuffle || epoch == 0;
            let left = match (extent.epochs, extent.steps) {
                (_, Some(steps)) => epoch.saturating_mul(batches) < steps,
                (epochs, None) => epoch < epochs.unwrap_or(1),
            };
            unlike && left
        };
        let mut epoch = 0;
        while goes_on(epoch, made.batches) {
            let own = greedy(&of(epoch), &length, budget);
            made.batches = made.batches.max(own.len() as u64);
            epoch += 1;
        }
        let mut epoch = 0;
        while goes_on(epoch, made.batches) {
            let own = made.cut(&of(epoch), &length);
            let most = own.iter().map(|batch| batch.len() as u64).max();
            made.most = made.most.max(most.unwrap_or(1));
            epoch += 1;
        }
        Some(made)
    }

    /// The batches of an epoch in this order: ranges of it.
    #[must_use]
    pub fn cut(&self, order: &[u32], length: &dyn Fn(u32) -> u64) -> Vec<Range<usize>> {
        let enough = |budget: u64| greedy(order, length, budget).len() as u64 <= self.batches;
        let (mut fails, mut fits) = (0, self.budget);
        while fits - fails > 1 {
            let middle = fails + (fits - fails) / 2;
            if enough(middle) {
                fits = middle;
            } else {
                fails = middle;
            }
        }
        let mut all = greedy(order, length, fits);
        let tokens = |batch: &Range<usize>| {
            let own = order.get(batch.clone()).unwrap_or_default();
            own.iter().map(|&example| length(example)).sum::<u64>()
        };
        while (all.len() as u64) < self.batches {
            let several = all.iter().enumerate().filter(|(_, batch)| batch.len() > 1);
            let Some((place, batch)) =
                several.max_by_key(|(place, batch)| (tokens(batch), usize::MAX - place))
            else {
                break;
            };
            let batch = batch.clone();
            let half = tokens(&batch).div_ceil(2);
            let (mut at, mut sum) = (batch.start, 0);
            while at + 1 < batch.end && (at == batch.start || sum < half) {
                sum += order.get(at).map_or(0, |&example| length(example));
                at += 1;
            }
            all.splice(place..=place, [batch.start..at, at..batch.end]);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_as_many_batches_and_none_is_too_large() {
        let lengths: Vec<u32> = (0..97).map(|i| 3 + i * 37 % 41).collect();
        for (budget, epochs) in [(43, 4), (60, 7), (200, 3), (100_000, 2)] {
            let extent = Extent {
                epochs: Some(epochs),
                steps: None,
                seed: 5,
                shuffle: true,
            };
            let packing = Packing::of(&lengths, budget, extent).expect("all fit");
            let length = |example: u32| u64::from(lengths[example as usize]);
            for epoch in 0..epochs {
                let order = order(lengths.len(), 5, epoch, true);
                let all = packing.cut(&order, &length);
                assert_eq!(all.len() as u64, packing.batches);
                let mut next = 0;
                for batch in &all {
                    assert_eq!(batch.start, next);
                    assert!(!batch.is_empty() && batch.len() as u64 <= packing.most);
                    let tokens: u64 = order[batch.clone()].iter().map(|&e| length(e)).sum();
                    assert!(tokens <= budget, "{tokens} > {budget}");
                    next = batch.end;
                }
                assert_eq!(next, order.len());
            }
        }
        let extent = Extent {
            epochs: None,
            steps: Some(9),
            seed: 0,
            shuffle: false,
        };
        assert_eq!(Packing::of(&lengths, 42, extent), None);
        let packing = Packing::of(&[2, 2, 2, 2, 9], 9, extent).expect("all fit");
        assert_eq!((packing.batches, packing.most), (2, 4));
    }
}
