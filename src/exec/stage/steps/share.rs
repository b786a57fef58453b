//! A step's gradients and losses, summed over ranks between the micro-batches and the update.

use crate::exec::interpreter::Runner;
use crate::exec::ranks::Ranks;
use crate::files::RunError;
use crate::library::stage::sharing::{Exchange, gradients, pieces};
use crate::program::{Class, Verified};

/// Replaces the gradients that a program applies by their sums over all ranks.
///
/// # Errors
/// A rank is gone, or a gradient is not in memory (a bug).
pub(super) fn sum(runner: &mut Runner, ranks: &Ranks, apply: &Verified) -> Result<(), RunError> {
    let own: Vec<(&str, u64)> = gradients(apply).collect();
    let exchange = Exchange {
        ranks: ranks.count() as u64,
        numbers: own.iter().map(|(_, n)| n).sum(),
    };
    runner.fetch()?;
    runner.meter.scratch(exchange.reserved());
    let longest = exchange.reserved() as usize / (2 * size_of::<f32>());
    let (mut bucket, mut gathered) = (vec![0.0_f32; longest], vec![0.0_f32; longest]);
    for range in exchange.buckets() {
        let of = pieces(own.iter().map(|(_, n)| *n), &range);
        let length = (range.end - range.start) as usize;
        let padded = exchange.part(length as u64) as usize * ranks.count();
        let too_short = || RunError::bug("a bucket is longer than planned");
        let bucket = bucket.get_mut(..padded).ok_or_else(too_short)?;
        let gathered = gathered.get_mut(..padded).ok_or_else(too_short)?;
        let mut rest = &mut *bucket;
        for (at, part) in &of {
            let (name, _) = own.get(*at).copied().unwrap_or_default();
            let found = runner.residents.get(name).and_then(|t| t.slice::<f32>());
            let numbers = found.and_then(|all| all.get(part.clone()));
            let numbers = numbers.ok_or_else(|| missing(name))?;
            let (into, after) = rest.split_at_mut(numbers.len());
            into.copy_from_slice(numbers);
            rest = after;
        }
        rest.fill(0.0);
        ranks.sum(bucket, gathered)?;
        let mut rest = &*bucket;
        for (at, part) in of {
            let (name, _) = own.get(at).copied().unwrap_or_default();
            let found = runner.residents.get_mut(name);
            let found = found.and_then(|t| t.slice_mut::<f32>());
            let numbers = found.and_then(|all| all.get_mut(part));
            let numbers = numbers.ok_or_else(|| missing(name))?;
            let (from, after) = rest.split_at(numbers.len());
            numbers.copy_from_slice(from);
            rest = after;
        }
    }
    Ok(())
}

fn missing(name: &str) -> RunError {
    RunError::bug(format!("`{name}` is not in memory"))
}

/// Refuses ranks whose tensors of some classes are not those of rank 0, bit by bit.
///
/// # Errors
/// Which rank's they are.
pub(super) fn compare(
    runner: &mut Runner,
    ranks: &Ranks,
    of: impl Fn(Class) -> bool,
    when: &str,
) -> Result<(), RunError> {
    if ranks.count() == 1 {
        return Ok(());
    }
    runner.fetch()?;
    let mut hasher = blake3::Hasher::new();
    for (name, class, tensor) in runner.residents.iter() {
        if of(class) {
            hasher.update(name.as_bytes());
            hasher.update(crate::files::tensorfile::bytes_of(tensor));
        }
    }
    match ranks.stranger(hasher.finalize().into())? {
        None => Ok(()),
        Some(rank) => {
            ranks.all_end();
            Err(RunError::Device(format!(
                "{when} the weights of rank {rank} are not those of rank 0, bit by bit: their processors compute differently, \
                 or they read other files; start all ranks on machines of one kind that share one file system"
            )))
        }
    }
}
