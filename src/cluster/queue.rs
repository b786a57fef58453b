//! What SLURM says of its jobs: the lines of `squeue` and of `sacct`.

use std::collections::HashMap;

/// The flags with which `squeue` tells all jobs of the user, a line each.
pub const SQUEUE: &[&str] = &[
    "--noheader",
    "--array",
    "--me",
    "--states=all",
    "--format=%i|%T|%r",
];

/// The flags with which `sacct` tells ended jobs; their numbers follow.
pub const SACCT: &[&str] = &[
    "--noheader",
    "--parsable2",
    "--allocations",
    "--format=JobID,State",
];

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the queue, before it runs or before it runs again.
    Waiting,
    /// It runs.
    Running,
    /// It ended with exit code 0.
    Completed,
    /// Somebody cancelled it, or what it waits for failed.
    Cancelled,
    /// It ended in another way.
    Failed,
}

/// A job as the scheduler tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it is.
    pub phase: Phase,
    /// SLURM's word for its state.
    pub word: String,
    /// SLURM's reason; empty where there is none.
    pub reason: String,
}

impl Answer {
    /// Whether it is still to come to an end.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Running)
    }
}

/// What a state's word means. What is not known counts as running: nothing is submitted twice for it.
fn phase(word: &str) -> Phase {
    match word {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD"
        | "RESV_DEL_HOLD" | "SPECIAL_EXIT" => Phase::Waiting,
        "COMPLETED" => Phase::Completed,
        "CANCELLED" => Phase::Cancelled,
        "BOOT_FAIL" | "DEADLINE" | "FAILED" | "NODE_FAIL" | "OUT_OF_MEMORY" | "PREEMPTED"
        | "REVOKED" | "TIMEOUT" => Phase::Failed,
        _ => Phase::Running,
    }
}

/// Reads lines of `squeue` or `sacct`: number, state and maybe a reason, with `|` between.
#[must_use]
pub fn read(text: &str) -> HashMap<String, Answer> {
    let answer = |line: &str| {
        let mut parts = line.trim().split('|');
        let (job, state) = (parts.next()?, parts.next()?);
        // `CANCELLED by 1000`
        let word = state.split_whitespace().next()?;
        let reason = parts.next().filter(|r| *r != "None").unwrap_or_default();
        let answer = Answer {
            phase: phase(word),
            word: word.to_owned(),
            reason: reason.to_owned(),
        };
        super::journal::is_job(job).then(|| (job.to_owned(), answer))
    };
    text.lines().filter_map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_their_words() {
        let answer = read(
            "7_0|RUNNING|None\n7_1|PENDING|Dependency\n8|CANCELLED by 1000\n9|TIMEOUT|TimeLimit\n10_[2-4%2]|PENDING|x\nrubbish\n\
             11|SOMETHING_NEW|None\n",
        );
        assert_eq!(answer.len(), 5);
        assert_eq!(answer["7_0"].phase, Phase::Running);
        assert_eq!(answer["7_1"].reason, "Dependency");
        assert_eq!(answer["8"].phase, Phase::Cancelled);
        assert_eq!(
            (answer["9"].phase, answer["9"].is_live()),
            (Phase::Failed, false)
        );
        assert!(answer["11"].is_live());
    }
}
