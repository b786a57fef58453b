//! Processes that train together: what each of them tells the others, over a wire that may be MPI's.
//!
//! **Invariant:** what is added up over ranks is added in one order, a tree of ranks, whoever is first. All ranks do the same
//! with the same numbers, so that their trained weights stay the same, bit by bit, without ever being sent.
//!
//! **Invariant:** rank 0 alone decides, writes and talks; the others follow.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::files::RunError;
use crate::library::stage::sharing::{WORD, rounds};

#[cfg(feature = "mpi")]
pub mod open_mpi;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub mod threads;
#[cfg(test)]
mod training_tests;

/// Messages between ranks. Those from one rank to another arrive in the order in which they were sent.
pub trait Wire: Debug + Send + Sync {
    /// This process' number, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn ranks(&self) -> usize;

    /// Sends bytes to one rank while it gets as many as there is room for from another.
    ///
    /// # Errors
    /// The other rank is gone.
    fn swap(&self, to: (usize, &[u8]), from: (usize, &mut [u8])) -> Result<(), RunError>;

    /// Sends to a rank.
    ///
    /// # Errors
    /// It is gone.
    fn send(&self, to: usize, sent: &[u8]) -> Result<(), RunError>;

    /// Waits for a rank that may take long, without using the processor meanwhile.
    ///
    /// # Errors
    /// It is gone.
    fn receive(&self, from: usize, buffer: &mut [u8]) -> Result<(), RunError>;
}

/// The processes that run a recipe together; one alone where there are no others.
#[derive(Clone, Debug, Default)]
pub struct Ranks {
    wire: Option<Arc<dyn Wire>>,
    /// Bytes that this process has sent.
    sent: Arc<AtomicU64>,
    /// Whether all ranks know that the run ends, and why.
    ending: Arc<AtomicBool>,
}

impl Ranks {
    /// The processes at a wire's ends.
    #[must_use]
    pub fn over(wire: Arc<dyn Wire>) -> Self {
        Self {
            wire: Some(wire),
            ..Self::default()
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.wire.as_ref().map_or(1, |wire| wire.ranks())
    }

    /// This one's number.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.wire.as_ref().map_or(0, |wire| wire.rank())
    }

    /// Whether this one decides, writes and talks.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Bytes that this process has sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// From now on all ranks are known to end for the same reason, so that none has to be ended by another.
    pub fn all_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    #[must_use]
    pub fn ends_together(&self) -> bool {
        self.count() == 1 || self.ending.load(Ordering::Relaxed)
    }

    fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn swap(
        &self,
        wire: &dyn Wire,
        (to, sent): (usize, &[u8]),
        from: (usize, &mut [u8]),
    ) -> Result<(), RunError> {
        self.count_sent(sent.len());
        wire.swap((to, sent), from)
    }

    /// Replaces each number of a bucket by its sum over all ranks. `bucket` and `gathered` have room for a part a rank, each
    /// of the same length.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn sum(&self, bucket: &mut [f32], gathered: &mut [f32]) -> Result<(), RunError> {
        let Some(wire) = &self.wire else {
            return Ok(());
        };
        let (ranks, rank) = (wire.ranks(), wire.rank());
        let part = bucket.len() / ranks;
        if bucket.len() != part * ranks || gathered.len() != bucket.len() {
            return Err(RunError::bug("a bucket has no part for each rank"));
        }
        if part == 0 {
            return Ok(());
        }
        let of = |rank: usize| rank * part..(rank + 1) * part;
        copy(bucket, of(rank), gathered)?;
        for round in 1..ranks {
            let (to, from) = ((rank + round) % ranks, (rank + ranks - round) % ranks);
            let sent = bytemuck::cast_slice(bucket.get(of(to)).unwrap_or_default());
            let buffer = bytemuck::cast_slice_mut(gathered.get_mut(of(from)).unwrap_or_default());
            self.swap(wire.as_ref(), (to, sent), (from, buffer))?;
        }
        add_up(gathered, part);
        let sum = gathered.get(..part).unwrap_or_default();
        if let Some(own) = bucket.get_mut(of(rank)) {
            own.copy_from_slice(sum);
        }
        for round in 1..ranks {
            let (to, from) = ((rank + round) % ranks, (rank + ranks - round) % ranks);
            let sent = bytemuck::cast_slice(sum);
            let buffer = bytemuck::cast_slice_mut(bucket.get_mut(of(from)).unwrap_or_default());
            self.swap(wire.as_ref(), (to, sent), (from, buffer))?;
        }
        Ok(())
    }

    /// What all ranks have of something, in their order.
    fn gather<const N: usize>(&self, own: [u8; N]) -> Result<Vec<[u8; N]>, RunError> {
        let Some(wire) = &self.wire else {
            return Ok(vec![own]);
        };
        let (ranks, rank) = (wire.ranks(), wire.rank());
        let mut all = vec![own; ranks];
        for round in 1..ranks {
            let (to, from) = ((rank + round) % ranks, (rank + ranks - round) % ranks);
            if let Some(buffer) = all.get_mut(from) {
                self.swap(wire.as_ref(), (to, &own), (from, buffer))?;
            }
        }
        Ok(all)
    }

    /// The sum of a number over all ranks.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn add(&self, own: f64) -> Result<f64, RunError> {
        let all = self.gather(own.to_le_bytes())?;
        let mut all: Vec<f64> = all.into_iter().map(f64::from_le_bytes).collect();
        add_up(&mut all, 1);
        Ok(all.first().copied().unwrap_or(own))
    }

    /// The largest of each byte over all ranks.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn most(&self, mut word: [u8; WORD]) -> Result<[u8; WORD], RunError> {
        let Some(wire) = &self.wire else {
            return Ok(word);
        };
        let (ranks, rank) = (wire.ranks(), wire.rank());
        // After each round a rank knows of twice as many.
        for round in 0..rounds(ranks as u64) {
            let far = 1 << round;
            let (to, from) = ((rank + far) % ranks, (rank + ranks - far) % ranks);
            let mut received = [0; WORD];
            self.swap(wire.as_ref(), (to, &word), (from, &mut received))?;
            for (own, received) in word.iter_mut().zip(received) {
                *own = received.max(*own);
            }
        }
        Ok(word)
    }

    /// What rank 0 says, for all.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn broadcast<const N: usize>(&self, mut said: [u8; N]) -> Result<[u8; N], RunError> {
        let Some(wire) = &self.wire else {
            return Ok(said);
        };
        if wire.rank() > 0 {
            wire.receive(0, &mut said)?;
            return Ok(said);
        }
        for to in 1..wire.ranks() {
            self.count_sent(said.len());
            wire.send(to, &said)?;
        }
        Ok(said)
    }

    /// The first rank that has something else than rank 0.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn stranger(&self, own: [u8; 32]) -> Result<Option<usize>, RunError> {
        let all = self.gather(own)?;
        let first = all.first().copied().unwrap_or(own);
        Ok(all.iter().position(|other| *other != first))
    }

    /// Does something that fills files first on rank 0, and then on all others, which find them.
    ///
    /// # Errors
    /// What it says, or a rank is gone.
    pub fn first<T>(&self, work: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
        if self.leads() {
            let done = work()?;
            self.broadcast([1])?;
            return Ok(done);
        }
        self.broadcast([0])?;
        work()
    }
}

fn copy(from: &[f32], range: std::ops::Range<usize>, to: &mut [f32]) -> Result<(), RunError> {
    match (from.get(range.clone()), to.get_mut(range)) {
        (Some(from), Some(to)) => {
            to.copy_from_slice(from);
            Ok(())
        }
        _ => Err(RunError::bug("a part lies outside of its bucket")),
    }
}

/// Adds up lists of `part` numbers, which follow each other, into the first: neighbours first, then the sums of two, of four, and
/// so on.
fn add_up<T: Copy + std::ops::AddAssign>(lists: &mut [T], part: usize) {
    let count = lists.len() / part.max(1);
    let mut apart = 1;
    while apart < count {
        for left in (0..count - apart).step_by(2 * apart) {
            let (before, behind) = lists.split_at_mut((left + apart) * part);
            let into = before.iter_mut().skip(left * part).take(part);
            for (sum, &other) in into.zip(behind.iter()) {
                *sum += other;
            }
        }
        apart *= 2;
    }
}
