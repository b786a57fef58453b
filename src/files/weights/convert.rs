//! Numbers of a file on the heap, in the format that is asked for: one rounding from whatever the file holds.

use half::{bf16, f16};

use super::Kind;
use crate::program::format::Packed;
use crate::program::op::{Element, Storage, Tensor};
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
    /// The tensor as it is to be stored.
    ///
    /// # Errors
    /// It holds no floats, or a number that cannot be stored so.
    pub fn tensor(&self, from: &Kind, dims: &[usize], to: Format) -> Result<Tensor, String> {
        let storage = match (from, to) {
            (Kind::Stored(Format::Plain(DType::U32)), Format::Plain(DType::U32)) => {
                Storage::U32(self.collect(u32::from_le_bytes))
            }
            (Kind::Stored(Format::Blocks(own)), Format::Blocks(packed)) if *own == packed => {
                Storage::Blocks(packed, self.collect(|[byte]: [u8; 1]| byte))
            }
            (Kind::Stored(Format::Plain(DType::U32)) | Kind::Other(_), _)
            | (_, Format::Plain(DType::U32)) => {
                return Err(format!(
                    "is stored as {}; only F64, F32, F16 and BF16 weights can be read",
                    from.name()
                ));
            }
            (Kind::Stored(Format::Plain(from)), Format::Plain(to)) => self.plain(*from, to)?,
            (Kind::Stored(Format::Plain(from)), Format::Blocks(packed)) => {
                Storage::Blocks(packed, self.blocks(*from, packed)?)
            }
            (Kind::Stored(Format::Blocks(from)), to) => {
                let tensor = Tensor {
                    storage: Storage::Blocks(*from, self.collect(|[byte]: [u8; 1]| byte)),
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
        let made = match to {
            DType::F64 => self.convert::<f64>(from),
            DType::F16 => self.convert::<f16>(from),
            DType::BF16 => self.convert::<bf16>(from),
            DType::F32 | DType::U32 => self.convert::<f32>(from),
        };
        match self.lost(from, &made) {
            None => Ok(made),
            Some(x) => Err(unfit_number(x, to.into())),
        }
    }

    /// A number of the file that became infinite.
    fn lost(&self, from: DType, made: &Storage) -> Option<f64> {
        let narrow: fn(f64) -> bool = match made {
            Storage::F16(v) if !v.iter().all(|x| x.is_finite()) => |x| f16::from_f64(x).is_finite(),
            Storage::BF16(v) if !v.iter().all(|x| x.is_finite()) => {
                |x| bf16::from_f64(x).is_finite()
            }
            _ => return None,
        };
        let Storage::F64(all) = self.convert::<f64>(from) else {
            return None;
        };
        all.into_iter().find(|&x| x.is_finite() && !narrow(x))
    }

    /// In blocks, a part after another.
    fn blocks(&self, from: DType, packed: Packed) -> Result<Vec<u8>, String> {
        let numbers = (self.end - self.start) as u64 / from.size();
        let mut blocks = Vec::with_capacity(packed.bytes(numbers) as usize);
        for start in (self.start..self.end).step_by(CHUNK) {
            let end = self.end.min(start + CHUNK);
            let part = Self {
                start,
                end,
                ..*self
            };
            if let Storage::F32(part) = part.convert::<f32>(from) {
                let more = packed.encode_all(&part);
                blocks.extend(more.map_err(|x| unfit(x, packed.into()))?);
            }
        }
        Ok(blocks)
    }

    fn convert<T: Rounded>(&self, from: DType) -> Storage {
        T::wrap(match from {
            DType::F64 => self.collect(|b: [u8; 8]| T::of_f64(f64::from_le_bytes(b))),
            DType::F32 => self.collect(|b: [u8; 4]| T::of_f32(f32::from_le_bytes(b))),
            DType::F16 => self.collect(|b: [u8; 2]| T::of_f16(f16::from_le_bytes(b))),
            DType::BF16 => self.collect(|b: [u8; 2]| T::of_bf16(bf16::from_le_bytes(b))),
            DType::U32 => Vec::new(),
        })
    }

    fn collect<T, const N: usize>(&self, element: impl Fn([u8; N]) -> T) -> Vec<T> {
        let mut data = Vec::with_capacity((self.end - self.start) / N);
        let mut at = self.start;
        while at < self.end {
            let next = self.end.min(at + CHUNK);
            let bytes = self.bytes.get(at..next).unwrap_or_default();
            data.extend(bytes.as_chunks::<N>().0.iter().map(|&b| element(b)));
            (self.release)(at, next - at);
            at = next;
        }
        data
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

/// A type that numbers of a file are rounded to, once.
trait Rounded: Element {
    fn of_f64(x: f64) -> Self;
    fn of_f32(x: f32) -> Self;
    fn of_f16(x: f16) -> Self {
        Self::of_f32(x.to_f32())
    }
    fn of_bf16(x: bf16) -> Self {
        Self::of_f32(x.to_f32())
    }
}

impl Rounded for f64 {
    fn of_f64(x: f64) -> Self {
        x
    }
    fn of_f32(x: f32) -> Self {
        Self::from(x)
    }
}

impl Rounded for f32 {
    fn of_f64(x: f64) -> Self {
        x as Self
    }
    fn of_f32(x: f32) -> Self {
        x
    }
}

impl Rounded for f16 {
    fn of_f64(x: f64) -> Self {
        Self::from_f64(x)
    }
    fn of_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn of_f16(x: f16) -> Self {
        x
    }
}

impl Rounded for bf16 {
    fn of_f64(x: f64) -> Self {
        Self::from_f64(x)
    }
    fn of_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn of_bf16(x: bf16) -> Self {
        x
    }
}
