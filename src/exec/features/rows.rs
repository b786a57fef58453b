//! Files of rows: where those of an example are, written and read in the numbers that are kept.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use half::bf16;

use crate::exec::store::features::{Notes, short};
use crate::files::RunError;
use crate::files::durable;
use crate::files::tensorfile::bytes_of;
use crate::library::data::positioned::{read_at, write_at};
use crate::program::op::Tensor;
use crate::program::{Axis, DType, Feed};

/// A file of rows.
#[derive(Debug)]
pub(super) struct Rowed {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) feed: Feed,
    pub(super) rows: Layout,
    pub(super) stored: DType,
    pub(super) notes: Notes,
}

/// How rows lie in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) width: u64,
    pub(super) of: Axis,
    pub(super) stored: DType,
}

impl Layout {
    /// Rows before an example; `tokens` are those before each example.
    pub(super) fn of(self, tokens: &[u64], example: u64) -> u64 {
        match self.of {
            Axis::Tokens => tokens.get(example as usize).copied().unwrap_or(0),
            // Rows of sources are not kept.
            Axis::Sequences | Axis::Read | Axis::Source => example,
        }
    }

    /// Bytes of a row.
    pub(super) fn bytes(self) -> u64 {
        self.width * self.stored.size()
    }

    /// Where the rows of some examples begin and end, in bytes.
    pub(super) fn span(self, tokens: &[u64], examples: &Range<usize>) -> (u64, u64) {
        let at = |example: usize| self.of(tokens, example as u64) * self.bytes();
        (at(examples.start), at(examples.end))
    }
}

impl Rowed {
    /// Where an example's rows are: the first, and how many.
    pub(super) fn rows(&self, tokens: &[u64], example: u64) -> (u64, u64) {
        let first = self.rows.of(tokens, example);
        (
            first,
            self.rows.of(tokens, example + 1).saturating_sub(first),
        )
    }

    pub(super) fn offset(&self, row: u64) -> u64 {
        row * self.rows.bytes()
    }

    /// Writes rows from a byte on, in the numbers that are stored; gives their checksum.
    pub(super) fn write(&self, mut at: u64, rows: &Tensor) -> Result<String, RunError> {
        let failed = |e| durable::failed(&self.path, "write", &e);
        let mut hasher = blake3::Hasher::new();
        if self.stored == rows.dtype() {
            write_at(&self.file, bytes_of(rows), at).map_err(failed)?;
            hasher.update(bytes_of(rows));
            return Ok(short(&hasher));
        }
        let rows = rows.slice::<f32>().unwrap_or_default();
        let mut halves = [0_u16; 1 << 13];
        for piece in rows.chunks(halves.len()) {
            for (half, x) in halves.iter_mut().zip(piece) {
                *half = bf16::from_f32(*x).to_bits();
            }
            let own = halves.get(..piece.len()).unwrap_or_default();
            write_at(&self.file, bytemuck::cast_slice(own), at).map_err(failed)?;
            hasher.update(bytemuck::cast_slice(own));
            at += 2 * piece.len() as u64;
        }
        Ok(short(&hasher))
    }

    /// Reads rows from one on, as many as `rows` takes, into numbers of the type that is stored.
    pub(super) fn read_as_stored(&self, row: u64, rows: &mut [u8]) -> Result<(), RunError> {
        read_at(&self.file, rows, self.offset(row)).map_err(|e| {
            let what =
                format!("kept features cannot be read back: {e}; run again: they are made anew");
            RunError::file(&self.path, what)
        })
    }

    /// Reads rows from one on, as many as `rows` takes, widened.
    pub(super) fn read(&self, row: u64, rows: &mut [f32]) -> Result<(), RunError> {
        if self.stored == DType::F32 {
            return self.read_as_stored(row, bytemuck::cast_slice_mut(rows));
        }
        // They are read into the second half of their place and widened from the front: a number is
        // never written over one that is still to be read.
        let n = rows.len();
        let halves: &mut [u16] = bytemuck::cast_slice_mut(rows);
        let behind = halves.get_mut(n..).unwrap_or_default();
        self.read_as_stored(row, bytemuck::cast_slice_mut(behind))?;
        for i in 0..n {
            let bits = halves.get(n + i).copied().unwrap_or_default();
            let wide: [u16; 2] = bytemuck::cast(bf16::from_bits(bits).to_f32());
            if let Some(own) = halves.get_mut(2 * i..2 * i + 2) {
                own.copy_from_slice(&wide);
            }
        }
        Ok(())
    }

    /// What writing and reading makes of numbers.
    pub(super) fn round(&self, rows: &mut [f32]) {
        if self.stored == DType::BF16 {
            for x in rows {
                *x = bf16::from_f32(*x).to_f32();
            }
        }
    }
}
