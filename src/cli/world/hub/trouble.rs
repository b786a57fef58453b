//! Why a request to the hub came to nothing.

use std::path::{Path, PathBuf};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Trouble {
    /// The server says no.
    #[error("status {0}")]
    Status(u16),
    /// The network does not do it.
    #[error("{0}")]
    Network(String),
    /// Less came than was promised.
    #[error("the download ended after {0} of {1} bytes")]
    Early(u64, u64),
    /// Hardly anything comes.
    #[error("fewer than {0} bytes came in {1} s")]
    Slow(u64, u64),
    /// What the server says cannot be so, or must not be followed.
    #[error("the server's answer is refused: {0}")]
    Refused(String),
    /// How the hub is to be reached is not in order.
    #[error("{0}")]
    Setting(&'static str),
    /// This machine's disk does not do it.
    #[error("{} cannot be written: {error}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
}

impl Trouble {
    /// What the disk says of a file.
    pub(in super::super) fn disk(path: &Path, error: std::io::Error) -> Self {
        let path = path.to_owned();
        Self::Disk { path, error }
    }

    /// Whether the same request may do better a moment later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Status(code) => matches!(code, 408 | 416 | 429 | 500..=599),
            Self::Network(_) | Self::Early(..) | Self::Slow(..) => true,
            Self::Refused(_) | Self::Setting(_) | Self::Disk { .. } => false,
        }
    }
}

pub(super) fn refused(why: impl Into<String>) -> Trouble {
    Trouble::Refused(why.into())
}

pub(super) fn network(error: &ureq::Error) -> Trouble {
    Trouble::Network(error.to_string())
}
