//! Pinned memory of the host, through which data goes to the GPU.
#![expect(
    unsafe_code,
    reason = "pinned memory comes uninitialised, and is written before it is read"
)]

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, DriverError, PinnedHostSlice, sys};

use super::{Block, Cuda, RETURNS, STAGES, address, driver};
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

impl Cuda {
    /// Copies bytes to a block, through pinned memory.
    pub(super) fn send(&mut self, block: Block, bytes: &[u8]) -> Result<(), RunError> {
        let failed = |e| driver("take data", e);
        let to = self.slice(block)?;
        if to.num_bytes() < bytes.len() {
            return Err(RunError::bug("more data than a block holds"));
        }
        let to = address(to, &self.stream);
        self.context.bind_to_thread().map_err(failed)?;
        for (i, piece) in bytes.chunks(STAGED).enumerate() {
            if self.stages.len() < STAGES {
                self.stages
                    .push(Stage::new(&self.context).map_err(unpinned)?);
                self.stage = self.stages.len() - 1;
            } else {
                self.stage = (self.stage + 1) % STAGES;
            }
            let Some(stage) = self.stages.get_mut(self.stage) else {
                return Ok(());
            };
            // The copy that last read this buffer, `STAGES` uploads ago, is waited for.
            stage.read.synchronize().map_err(failed)?;
            let pinned = stage.memory.as_mut_ptr().map_err(failed)?;
            // SAFETY: the buffer has STAGED bytes, at least as many as are copied; no copy reads it now, and none
            // that was asked for here will when it is written again; the block holds all pieces.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), pinned, piece.len());
                let piece = std::slice::from_raw_parts(pinned, piece.len());
                let at = to + (i * STAGED) as u64;
                cudarc::driver::result::memcpy_htod_async(at, piece, self.stream.cu_stream())
            }
            .map_err(failed)?;
            stage.read.record(&self.stream).map_err(failed)?;
        }
        Ok(())
    }

    /// Copies a block to another.
    pub(super) fn copy(&self, from: Block, to: Block) -> Result<(), RunError> {
        let (source, goal) = (self.address(from)?, self.address(to)?);
        let bytes = self.slice(from)?.num_bytes();
        let bytes = bytes.min(self.slice(to)?.num_bytes());
        let stream = self.stream.cu_stream();
        // SAFETY: two live blocks of at least so many bytes.
        unsafe { cudarc::driver::result::memcpy_dtod_async(goal, source, bytes, stream) }
            .map_err(|e| driver("copy", e))
    }

    /// Takes pinned memory for a download until its ticket is collected; `None` if there is too little.
    pub(super) fn pinned(&mut self, size: usize) -> Option<usize> {
        let size = size.next_multiple_of(64);
        let free = |&at: &usize| {
            let before = self.taken.range(..at).next_back();
            let behind = self.taken.range(at..).next();
            at + size <= RETURNS
                && before.is_none_or(|(start, len)| start + len <= at)
                && behind.is_none_or(|(start, _)| at + size <= *start)
        };
        let at = [self.next, 0].into_iter().find(free)?;
        self.taken.insert(at, size);
        self.next = at + size;
        Some(at)
    }
}
