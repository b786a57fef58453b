//! What a kernel is given beside its operands: threads, scratch, and how it fails.

use std::cell::Cell;

use super::super::device::Device;

/// The machine as the estimate sees it. A fixed one is used in goldens, so that they do not vary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Threads of the executor's pool.
    pub threads: usize,
    /// Where programs run.
    pub device: Device,
}

impl Machine {
    /// A machine that runs programs on so many threads of its processor.
    #[must_use]
    pub const fn cpu(threads: usize) -> Self {
        Self {
            threads,
            device: Device::Cpu,
        }
    }

    /// This machine, with this many threads; all of its processors if `None`.
    #[must_use]
    pub fn detect(threads: Option<usize>) -> Self {
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::cpu(threads.unwrap_or(all).max(1))
    }

    /// The same with another device.
    #[must_use]
    pub const fn on(self, device: Device) -> Self {
        Self { device, ..self }
    }
}

/// Why a kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// An index (token id, label, row) outside its table: bad data that got past the checks.
    #[error("index {index} is outside a table of {rows} rows")]
    Index {
        /// The index.
        index: u64,
        /// Rows of the table.
        rows: u64,
    },
}

/// What a kernel runs with. Kernels run inside the executor's own rayon pool, so `rayon`'s parallel
/// iterators use it.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// The machine's figures; `threads` is the pool's size.
    pub machine: &'a Machine,
    scratch: Cell<u64>,
    peak: Cell<u64>,
}

impl<'a> Kernel<'a> {
    /// A context without live scratch.
    #[must_use]
    pub const fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            scratch: Cell::new(0),
            peak: Cell::new(0),
        }
    }

    /// Declares scratch of a known size (a library's) for the duration of `f`.
    pub fn scratch<R>(&self, bytes: u64, f: impl FnOnce() -> R) -> R {
        self.scratch.set(self.scratch.get() + bytes);
        self.peak.set(self.peak.get().max(self.scratch.get()));
        let result = f();
        self.scratch.set(self.scratch.get() - bytes);
        result
    }

    /// Largest scratch declared since the last call.
    pub fn take_peak(&self) -> u64 {
        self.peak.replace(0)
    }
}

/// Runs a block with `T` bound to the compute type of a dtype.
macro_rules! float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::program::types::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::program::types::DType::F32 => {
                type $T = f32;
                $body
            }
            other => unreachable!("kernels compute in f32 or f64, not {other}: verified"),
        }
    };
}
pub(super) use float;
