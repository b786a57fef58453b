//! Pinned memory of the host, through which data goes to the GPU.
#![expect(
    unsafe_code,
    reason = "pinned memory comes uninitialised, and is written before it is read"
)]

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, DriverError, PinnedHostSlice, sys};

use super::driver;
use crate::files::RunError;

/// Uploads go through pinned memory in pieces of this size, so that they do not wait for the device.
pub(super) const STAGED: usize = 1 << 18;

/// A pinned buffer for uploads. Its own event tells when it has been read: cudarc's is recorded only where several
/// streams are ordered by it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) memory: PinnedHostSlice<u8>,
    pub(super) read: CudaEvent,
}

/// Why the host has no pinned memory.
pub(super) fn unpinned(error: DriverError) -> RunError {
    match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => RunError::Device(
            "the host has too little memory that can be pinned for uploads (32 MiB at most): free some, or raise \
             `ulimit -l`"
                .to_owned(),
        ),
        _ => driver("pin memory of the host", error),
    }
}

impl Stage {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Self {
            // SAFETY: it is written before a copy reads it.
            memory: unsafe { context.alloc_pinned::<u8>(STAGED) }?,
            read: context.new_event(None)?,
        })
    }
}
