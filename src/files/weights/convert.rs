//! Numbers of a file on the heap, in the format that is asked for: one rounding from whatever the file holds.

use half::{bf16, f16};

use super::{Change, Entry, Kind};
use crate::files::in_memory;
use crate::program::format::{Encoder, Packed};
use crate::program::op::{Storage, Tensor};
use crate::program::{DType, Format};

/// Bytes converted between two returns of pages. A power of two, so that parts begin where blocks do.
pub(super) const CHUNK: usize = 4 << 20;

/// One tensor's bytes in a file.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    /// The file's bytes.
    pub bytes: &'a [u8],
    /// Where the tensor's begin.
    pub start: usize,
    /// Where they end.
    pub end: usize,
    /// Called with the place and length of each part that was read.
    pub release: &'a dyn Fn(usize, usize),
}

impl Read<'_> {
    /// The tensor of an entry as it is to be stored, its numbers changed as the entry says.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn changed(&self, entry: &Entry, dims: &[usize], to: Format) -> Result<Tensor, String> {
        match entry.change {
            Change::None => self.tensor(&entry.kind, dims, to),
            Change::LessOne => {
                let mut made = self.tensor(&entry.kind, dims, DType::F32.into())?;
                for x in made.slice_mut::<f32>().into_iter().flatten() {
                    *x -= 1.0;
                }
                made.stored_as(to).map_err(|x| unfit(x, to))
            }
            Change::Rows(order) => {
                // Rows are whole bytes, in whatever format.
                let rows = dims.first().copied().unwrap_or(0);
                let bytes = self.bytes();
                let width = bytes.len().checked_div(rows).unwrap_or(0);
                let mut turned = vec![0; bytes.len()];
                for (there, row) in bytes.chunks_exact(width.max(1)).enumerate() {
                    let here = in_memory(order.here(there as u64, rows as u64));
                    if let Some(to) = turned.get_mut(here * width..(here + 1) * width) {
                        to.copy_from_slice(row);
                    }
                }
                drop(bytes);
                let own = Read {
                    bytes: &turned,
                    start: 0,
                    end: turned.len(),
                    release: &|_, _| {},
                };
                own.tensor(&entry.kind, dims, to)
            }
        }
    }

    /// The tensor as it is to be stored.
    ///
    /// # Errors
    /// It holds no floats, or a number that cannot be stored so.
    pub fn tensor(&self, from: &Kind, dims: &[usize], to: Format) -> Result<Tensor, String> {
        let storage = match (from, to) {
            (Kind::Stored(Format::Plain(DType::U32)), Format::Plain(DType::U32)) => {
                self.numbers(DType::U32, to)
            }
            (Kind::Stored(Format::Blocks(own)), Format::Blocks(packed)) if *own == packed => {
                Storage::Blocks(packed, self.own_blocks(packed)?)
            }
            (_, Format::Blocks(packed)) if !packed.is_made() => {
                return Err(format!(
                    "is stored as {}, and blocks of {to} are read from files that have them and never made",
                    from.name()
                ));
            }
            (Kind::Stored(Format::Plain(DType::U32)) | Kind::Other(_), _)
            | (_, Format::Plain(DType::U32)) => {
                return Err(format!(
                    "is stored as {}, which is not read; F64, F32, F16, BF16 and the blocks of GGUF files are: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K",
                    from.name()
                ));
            }
            (Kind::Stored(Format::Plain(from)), Format::Plain(to)) => self.plain(*from, to)?,
            (Kind::Stored(Format::Plain(from)), Format::Blocks(packed)) => {
                Storage::Blocks(packed, self.blocks(*from, packed)?)
            }
            (Kind::Stored(Format::Blocks(from)), to) => {
                let tensor = Tensor {
                    storage: Storage::Blocks(*from, self.own_blocks(*from)?),
                    dims: dims.to_vec(),
                };
                let wide = tensor.cast(DType::F32);
                return wide.stored_as(to).map_err(|x| unfit(x, to));
            }
        };
        Ok(Tensor {
            storage,
            dims: dims.to_vec(),
        })
    }

    fn plain(&self, from: DType, to: DType) -> Result<Storage, String> {
        let made = self.numbers(from, to.into());
        match self.lost(from, &made) {
            None => Ok(made),
            Some(x) => Err(unfit_number(x, to.into())),
        }
    }

    /// A number of the file that became infinite.
    fn lost(&self, from: DType, made: &Storage) -> Option<f64> {
        let narrow: fn(f64) -> bool = match made {
            Storage::F16(_) if !made.is_finite() => |x| f16::from_f64(x).is_finite(),
            Storage::BF16(_) if !made.is_finite() => |x| bf16::from_f64(x).is_finite(),
            _ => return None,
        };
        let Storage::F64(all) = self.numbers(from, DType::F64.into()) else {
            return None;
        };
        all.into_iter().find(|&x| x.is_finite() && !narrow(x))
    }

    /// The blocks as the file has them.
    fn own_blocks(&self, packed: Packed) -> Result<Vec<u8>, String> {
        let blocks = self.bytes();
        if packed.is_finite(&blocks) {
            return Ok(blocks);
        }
        Err(
            "has blocks whose scale is not finite: the file is damaged; download it again"
                .to_owned(),
        )
    }

    /// In blocks, a part after another.
    fn blocks(&self, from: DType, packed: Packed) -> Result<Vec<u8>, String> {
        let numbers = (self.end - self.start) as u64 / from.size();
        let mut encoder = Encoder::new(packed, numbers);
        for start in (self.start..self.end).step_by(CHUNK) {
            let end = self.end.min(start + CHUNK);
            let part = Self {
                start,
                end,
                ..*self
            };
            if let Storage::F32(part) = part.numbers(from, DType::F32.into()) {
                encoder.push(&part).map_err(|x| unfit(x, packed.into()))?;
            }
        }
        Ok(encoder.finish())
    }

    /// Its numbers, which the file holds as `from`.
    fn numbers(&self, from: DType, to: Format) -> Storage {
        let numbers = (self.end - self.start) / in_memory(from.size());
        let mut made = Storage::for_numbers(to, numbers);
        self.parts(|part| made.extend(from, part));
        made
    }

    /// Its bytes as they are.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.end - self.start);
        self.parts(|part| bytes.extend_from_slice(part));
        bytes
    }

    /// Hands its bytes on, a part after another.
    fn parts(&self, mut each: impl FnMut(&[u8])) {
        for at in (self.start..self.end).step_by(CHUNK) {
            let next = self.end.min(at + CHUNK);
            each(self.bytes.get(at..next).unwrap_or_default());
            (self.release)(at, next - at);
        }
    }
}

/// Rows of a transposed matrix that are made at once.
const TILE: usize = 64;

/// A matrix `[rows, width]` as `[width, rows]`, some of its rows after the others.
///
/// # Errors
/// It holds no floats, or a number that cannot be stored so.
pub(super) fn transposed(
    bytes: &[u8],
    from: DType,
    [rows, width]: [usize; 2],
    to: Format,
) -> Result<Tensor, String> {
    let size = in_memory(from.size());
    let kind = Kind::Stored(from.into());
    let mut all: Option<Storage> = None;
    for first in (0..width).step_by(TILE) {
        let count = TILE.min(width - first);
        let mut tile = vec![0; count * rows * size];
        for (place, row) in bytes.chunks_exact(width * size).enumerate() {
            let part = row.get(first * size..(first + count) * size);
            for (i, number) in part.unwrap_or_default().chunks_exact(size).enumerate() {
                let at = (i * rows + place) * size;
                if let Some(to) = tile.get_mut(at..at + size) {
                    to.copy_from_slice(number);
                }
            }
        }
        let read = Read {
            bytes: &tile,
            start: 0,
            end: tile.len(),
            release: &|_, _| {},
        };
        let part = read.tensor(&kind, &[count, rows], to)?.storage;
        match (&mut all, part) {
            (None, mut part) => {
                reserve(&mut part, rows * width);
                all = Some(part);
            }
            (Some(Storage::F32(all)), Storage::F32(part)) => all.extend(part),
            (Some(Storage::F16(all)), Storage::F16(part)) => all.extend(part),
            (Some(Storage::BF16(all)), Storage::BF16(part)) => all.extend(part),
            (Some(Storage::F64(all)), Storage::F64(part)) => all.extend(part),
            (Some(Storage::Blocks(_, all)), Storage::Blocks(_, part)) => all.extend(part),
            _ => {
                return Err(format!(
                    "is stored as {} and cannot be transposed",
                    from.name()
                ));
            }
        }
    }
    Ok(Tensor {
        storage: all.unwrap_or(Storage::F32(Vec::new())),
        dims: vec![width, rows],
    })
}

/// Makes room for so many numbers: what grows would hold more than is counted.
fn reserve(storage: &mut Storage, numbers: usize) {
    fn more<T>(list: &mut Vec<T>, numbers: usize) {
        list.reserve_exact(numbers.saturating_sub(list.len()));
    }
    match storage {
        Storage::F64(list) => more(list, numbers),
        Storage::F32(list) => more(list, numbers),
        Storage::F16(list) => more(list, numbers),
        Storage::BF16(list) => more(list, numbers),
        Storage::U32(list) => more(list, numbers),
        Storage::Blocks(packed, list) => more(list, in_memory(packed.bytes(numbers as u64))),
    }
}

/// What is said of a number that cannot be stored in a format, behind the tensor's name.
pub fn unfit(x: f32, stored: Format) -> String {
    unfit_number(x.into(), stored)
}

fn unfit_number(x: f64, stored: Format) -> String {
    let what = if x.is_finite() {
        format!("holds {x}, which is out of the range of {stored}")
    } else {
        format!("holds {x}, a number that is not finite: the weights are damaged or diverged")
    };
    format!("{what}; hold the model in `dtype = bf16` or `dtype = f32`")
}
