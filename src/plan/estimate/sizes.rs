//! Sizes of the batches that a stage will run.

use std::ops::Range;

use crate::library::counts::to_u32;
use crate::library::stage::fisher::Fisher;
use crate::library::stage::job::{Fit, batch_sizes};
use crate::library::task::Reads;
use crate::plan::split::Lengths;
use crate::program::Bindings;

/// Micro-batches after which the sizes of those to come are bounded, not looked at one by one.
const MOST_SIZES: usize = 250_000;

pub(in crate::plan) fn evaluation_sizes(
    lengths: &Lengths,
    batch: u64,
    reads: Option<&Reads>,
) -> Vec<Bindings> {
    let list = lengths.list(batch);
    let order: Vec<u32> = (0..to_u32(list.len())).collect();
    batch_sizes(&list, &order, batch, reads).collect()
}

/// Sizes of the batches of all splits.
pub(in crate::plan) fn every_size(splits: &[Option<&Lengths>], batch: u64) -> Vec<Bindings> {
    let known = splits.iter().copied().flatten();
    known
        .flat_map(|l| evaluation_sizes(l, batch, None))
        .collect()
}

/// Sizes of the examples whose Fisher information is measured.
pub(super) fn fisher_sizes(fit: &Fit, fisher: &Fisher, lengths: &Lengths) -> Vec<Bindings> {
    let list = lengths.list(fit.batch);
    let order = fit.order(list.len(), 0);
    let chosen: Vec<u32> = order
        .into_iter()
        .take(fisher.measure.samples as usize)
        .collect();
    batch_sizes(&list, &chosen, fisher.measure.batch, fit.reads.as_ref()).collect()
}

/// Sizes of every micro-batch of a training, of all ranks.
pub(in crate::plan) fn training_sizes(fit: &Fit, lengths: &Lengths) -> Vec<Bindings> {
    sizes_among(fit, lengths, fit.ranks)
}

/// The same among another number of ranks.
pub(in crate::plan) fn sizes_among(fit: &Fit, lengths: &Lengths, ranks: u64) -> Vec<Bindings> {
    sizes_of_steps(fit, lengths, (0..fit.steps, ranks))
}

/// The same of some of its steps; where lengths are assumed they are all alike.
pub(super) fn sizes_of_steps(
    fit: &Fit,
    lengths: &Lengths,
    (steps, ranks): (Range<u64>, u64),
) -> Vec<Bindings> {
    let known = lengths.count().is_some();
    let all = steps == (0..fit.steps) || !known;
    let list = lengths.list(fit.batch);
    let epochs = fit.steps.div_ceil(fit.steps_per_epoch.max(1));
    let mut sizes = Vec::new();
    for epoch in 0..epochs {
        let order = fit.order(list.len(), epoch);
        let left = fit
            .steps
            .saturating_sub(epoch.saturating_mul(fit.steps_per_epoch));
        let length = |example: u32| list.get(example as usize).map_or(0, |&n| u64::from(n));
        let first = epoch.saturating_mul(fit.steps_per_epoch);
        let batches = fit.batches(&order, &length).into_iter();
        let batches = (first..).zip(batches.take(left as usize));
        for (_, batch) in batches.filter(|(step, _)| all || steps.contains(step)) {
            let batch = order.get(batch).unwrap_or_default();
            for share in fit.shares(batch.len(), ranks) {
                let own = batch.get(share).unwrap_or_default();
                let (micro, reads) = (fit.micro_batch, fit.reads.as_ref());
                sizes.extend(batch_sizes(&list, own, micro, reads));
            }
        }
        // Where lengths are assumed they are all alike, and so are the epochs.
        let alike = (!fit.shuffle && all) || !known;
        if alike || left <= fit.steps_per_epoch {
            break;
        }
        if sizes.len() > MOST_SIZES && fit.packing.is_none() {
            // No batch of the epochs to come is larger than that of the longest examples.
            if let Some(reads) = &fit.reads {
                sizes.push(reads.most_sizes(&list, fit.most_of_run(ranks)));
                break;
            }
            let mut longest = list.clone();
            longest.sort_unstable_by(|a, b| b.cmp(a));
            longest.truncate(fit.most_of_run(ranks) as usize);
            sizes.push(Bindings::of_lengths(longest.iter().map(|&n| n as usize)));
            break;
        }
    }
    sizes
}
