//! What a run tells its observer. Nothing here prints.

use std::time::Duration;

use crate::files::RunError;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A stage begins.
    Stage {
        /// Its name.
        name: &'a str,
        /// Its kind.
        kind: &'a str,
        /// Optimizer steps or examples to come.
        total: u64,
        /// Estimated tensor bytes.
        estimated: u64,
    },
    /// A stage was found in the store.
    Cached {
        /// Its name.
        name: &'a str,
    },
    /// A stage goes on from a checkpoint.
    Resumed {
        /// Its name.
        name: &'a str,
        /// The step it goes on from.
        step: u64,
        /// Steps in all.
        of: u64,
    },
    /// A checkpoint that was asked for is written.
    Saved {
        /// Steps done.
        step: u64,
    },
    /// A training ends early, because nothing got better.
    Stopped {
        /// Steps done.
        step: u64,
        /// Steps that were planned.
        of: u64,
        /// Evaluations without a better one.
        patience: u64,
    },
    /// The best state of a training is the one that is kept.
    Best {
        /// Its step.
        step: u64,
        /// What it is best by.
        metric: &'a str,
        /// Its value.
        value: f64,
    },
    /// An optimizer step is done.
    Step {
        /// Steps done.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its learning rate.
        lr: f64,
        /// The norm of its gradient.
        grad_norm: f64,
        /// Examples a second so far.
        samples_per_s: f64,
        /// Most tensor bytes so far.
        peak: u64,
    },
    /// Examples went through the frozen part; its results are kept.
    Kept {
        /// How many so far.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// Examples were scored.
    Scored {
        /// How many so far.
        done: u64,
    },
    /// An evaluation during training.
    Evaluated {
        /// Steps done.
        step: u64,
        /// Metrics by name.
        metrics: &'a [(String, f64)],
        /// Whether it is the best so far.
        best: bool,
    },
    /// A stage is done.
    Done {
        /// Its name.
        name: &'a str,
        /// Metrics by name.
        metrics: &'a [(String, f64)],
    },
    /// Something worth a line.
    Note(&'a str),
}

/// Receives events.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);

    /// The signal that asked for the end, if one did.
    fn interrupted(&self) -> Option<i32> {
        None
    }

    /// Whether a checkpoint was asked for since the last call.
    fn asked(&mut self) -> bool {
        false
    }
}

/// Ignores everything.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: Event<'_>) {}
}

/// Asks for something that another process may hold, until it is given or a signal asks for the end.
pub(in crate::exec) fn wait<T>(
    observer: &mut dyn Observer,
    doing: &str,
    ask: &mut dyn FnMut() -> Result<Result<T, String>, RunError>,
) -> Result<T, RunError> {
    let mut said = false;
    loop {
        match ask()? {
            Ok(given) => return Ok(given),
            Err(who) if !said => {
                observer.event(Event::Note(&format!("waiting: {who} is {doing}")));
                said = true;
            }
            Err(_) => {}
        }
        if let Some(signal) = observer.interrupted() {
            return Err(RunError::interrupted(signal));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Ends a run after so many steps.
#[cfg(test)]
pub(super) struct Stopping(pub u64);

#[cfg(test)]
impl Observer for Stopping {
    fn event(&mut self, event: Event<'_>) {
        if matches!(event, Event::Step { .. }) {
            self.0 = self.0.saturating_sub(1);
        }
    }

    fn interrupted(&self) -> Option<i32> {
        (self.0 == 0).then_some(15)
    }
}
