//! What can go wrong while a compiled recipe runs, and the exit code each kind leaves behind.
//!
//! **Invariant:** every message that a user can cause names its place, the cause and the remedy.

use std::path::PathBuf;

use crate::library::data::tokens::Unread;

/// A failed run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file is missing, unreadable, damaged or not what the recipe needs.
    #[error("{}: {what}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Cause and remedy.
        what: String,
    },
    /// An op refused its data.
    #[error("{op} at {site}: {source}")]
    Op {
        /// The op's name.
        op: &'static str,
        /// Which part of the model it computes.
        site: String,
        /// Why it refused.
        source: crate::program::op::OpError,
    },
    /// The loss is no longer a finite number.
    #[error(
        "stage `{stage}` diverged at step {step}: the loss is {loss}; lower the learning rate, clip gradients or warm up longer (and beside `activations = f16`, whose range is small, try bf16)"
    )]
    Diverged {
        /// The stage.
        stage: String,
        /// The optimizer step, from 1.
        step: u64,
        /// The loss seen.
        loss: f64,
    },
    /// Weights that nothing has trained here, or that were taken over, give no finite numbers.
    #[error(
        "{what}: the weights are damaged or diverged, or numbers leave the range of f16 (`activations = bf16` has f32's)"
    )]
    NotFinite {
        /// Which number.
        what: String,
    },
    /// What a training is to begin with does not come about.
    #[error("{what}")]
    NoStart {
        /// Cause and remedy.
        what: String,
    },
    /// A signal asked for the end.
    #[error("interrupted by {}{}{left}", signal_name(*signal), if left.is_empty() { "" } else { ": " })]
    Interrupted {
        /// Its number.
        signal: i32,
        /// What is kept of the work, and how to go on.
        left: String,
    },
    /// The run does not fit into its memory budget.
    #[error("{message}")]
    Budget {
        /// What is needed, what is allowed and what to change.
        message: String,
    },
    /// A device has no memory left in the middle of a stage.
    #[error("{what}")]
    Memory {
        /// What there was no memory for, and what is kept of the stage.
        what: String,
    },
    /// A device cannot be used, or fails.
    #[error("{0}")]
    Device(String),
    /// The compiler contradicts itself.
    #[error("internal error: {0}; this is a bug in peftc, please report it")]
    Bug(String),
}

impl From<Unread> for RunError {
    fn from(error: Unread) -> Self {
        Self::File {
            what: format!(
                "the tokens kept here cannot be read back: {}; run again: they are made anew",
                error.cause
            ),
            path: error.path,
        }
    }
}

/// What a signal that asks for the end, or for a checkpoint, is called.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    match signal {
        1 => "SIGHUP".to_owned(),
        2 => "SIGINT".to_owned(),
        15 => "SIGTERM".to_owned(),
        other => format!("signal {other}"),
    }
}

impl RunError {
    /// A contradiction inside the compiler.
    pub fn bug(what: impl Into<String>) -> Self {
        Self::Bug(what.into())
    }

    /// A signal asked for the end; what is kept is to be said where it is known.
    #[must_use]
    pub const fn interrupted(signal: i32) -> Self {
        Self::Interrupted {
            signal,
            left: String::new(),
        }
    }

    /// A problem with a file: cause and remedy.
    pub fn file(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            what: what.into(),
        }
    }

    /// The process' exit code.
    #[must_use]
    pub const fn exit_code(&self) -> i32 {
        match self {
            Self::File { .. } | Self::Op { .. } | Self::Device(_) | Self::NoStart { .. } => 1,
            Self::Budget { .. } | Self::Memory { .. } => 3,
            Self::Diverged { .. } | Self::NotFinite { .. } => 4,
            Self::Bug(_) => 101,
            Self::Interrupted { signal, .. } => 128 + *signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_place_and_codes_tell_kinds_apart() {
        let e = RunError::file("a/b.safetensors", "no such file; download the model first");
        assert_eq!(
            e.to_string(),
            "a/b.safetensors: no such file; download the model first"
        );
        assert_eq!(e.exit_code(), 1);
        assert_eq!(RunError::interrupted(2).exit_code(), 130);
        assert_eq!(
            RunError::interrupted(15).to_string(),
            "interrupted by SIGTERM"
        );
        assert_eq!(RunError::bug("x").exit_code(), 101);
    }
}
