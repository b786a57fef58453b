//! What signals ask of a run: the end with a checkpoint, or a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::files::error::signal_name;

/// Signals that follow the first within this time ask for the same thing: schedulers and `timeout` send one to
/// the process and one to its group.
const SAME: Duration = Duration::from_secs(2);

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The first signal that asked for the end.
    end: AtomicI32,
    /// Whether a checkpoint was asked for.
    checkpoint: AtomicBool,
    /// Whether there is a run that looks at this.
    running: AtomicBool,
}

impl Asked {
    /// The signal that asked for the end.
    pub(super) fn end(&self) -> Option<i32> {
        Some(self.end.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }

    /// Whether a checkpoint was asked for since the last call.
    pub(super) fn checkpoint(&self) -> bool {
        self.checkpoint.swap(false, Ordering::Relaxed)
    }

    /// From now on a run looks at what is asked; before, a signal ends the process at once.
    pub(super) fn run_begins(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Takes a signal as the one that asked for the end of a run, unless there was one before. Nothing but atomics:
    /// handlers call it.
    fn note(&self, signal: i32) {
        if self.running.load(Ordering::Relaxed) {
            let end = &self.end;
            let _ = end.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// Writing beyond the limit on the size of files is an error like a full disk, not the end of the process.
pub(super) fn outlive_file_limits() {
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Listens to SIGINT, SIGTERM, SIGHUP and SIGUSR1 from now on.
///
/// # Errors
/// The system gives no thread to listen with.
pub(super) fn watch(quiet: bool) -> std::io::Result<Arc<Asked>> {
    let asked = Arc::new(Asked::default());
    let mut list = vec![SIGINT, SIGTERM, SIGUSR1];
    // `nohup` has it ignored, and it stays so.
    if !is_ignored(SIGHUP) {
        list.push(SIGHUP);
    }
    for signal in list.iter().copied().filter(|s| *s != SIGUSR1) {
        let own = asked.clone();
        // The thread below sees pending signals in the order of their numbers, not in that of their arrival.
        #[expect(
            unsafe_code,
            reason = "a handler that stores an atomic and does nothing else"
        )]
        // SAFETY: the handler neither allocates nor locks.
        unsafe { signal_hook::low_level::register(signal, move || own.note(signal)) }?;
    }
    let mut signals = Signals::new(list)?;
    let own = asked.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                if signal == SIGUSR1 {
                    own.checkpoint.store(true, Ordering::Relaxed);
                } else if !own.running.load(Ordering::Relaxed) {
                    end_now(signal, "nothing was executed");
                } else if first.is_none_or(|at| at.elapsed() < SAME) {
                    if first.is_none() {
                        own.note(signal);
                        if !quiet {
                            say(&format!(
                                "{}: the run ends after this step; one more, in more than two seconds, ends it at once",
                                signal_name(own.end().unwrap_or(signal))
                            ));
                        }
                    }
                    first = first.or_else(|| Some(Instant::now()));
                } else {
                    end_now(signal, "ended at once; an earlier checkpoint stays");
                }
            }
        })?;
    Ok(asked)
}

/// Listens to SIGINT from now on, which then no longer ends the process: each sets the flag.
///
/// # Errors
/// The system does not let a process listen.
pub(super) fn interrupts() -> std::io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, flag.clone())?;
    Ok(flag)
}

/// Listens to SIGINT and SIGTERM from now on: the first sets the flag, a second ends the process at once.
///
/// # Errors
/// The system does not let a process listen.
pub(super) fn ends() -> std::io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Registered first, so that it sees only what an earlier signal set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(flag)
}

fn say(text: &str) {
    super::output::note(&format!("{text}\n"));
}

/// Ends the process with the signal's exit code.
fn end_now(signal: i32, why: &str) {
    say(&format!(
        "error: interrupted by {}: {why}",
        signal_name(signal)
    ));
    signal_hook::low_level::exit(128 + signal);
}

/// Whether the process was started with a signal ignored; where the system does not tell, it was not.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
