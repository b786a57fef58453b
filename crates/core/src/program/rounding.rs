//! Numbers of a file in what a tensor stores: one rounding from whatever the file holds.

use half::{bf16, f16};

use super::op::Storage;
use super::{DType, Format};

/// A type that numbers of a file are rounded to, once.
trait Rounded: Copy {
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
    #[allow(
        clippy::cast_possible_truncation,
        reason = "to round is what is asked for"
    )]
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

fn each<T, const N: usize>(list: &mut Vec<T>, bytes: &[u8], number: impl Fn([u8; N]) -> T) {
    list.extend(bytes.as_chunks::<N>().0.iter().map(|&b| number(b)));
}

fn extend<T: Rounded>(list: &mut Vec<T>, from: DType, bytes: &[u8]) {
    match from {
        DType::F64 => each(list, bytes, |b| T::of_f64(f64::from_le_bytes(b))),
        DType::F32 => each(list, bytes, |b| T::of_f32(f32::from_le_bytes(b))),
        DType::F16 => each(list, bytes, |b| T::of_f16(f16::from_le_bytes(b))),
        DType::BF16 => each(list, bytes, |b| T::of_bf16(bf16::from_le_bytes(b))),
        DType::U32 => {}
    }
}

impl Storage {
    /// Without numbers, and with memory for exactly so many.
    #[must_use]
    pub fn for_numbers(format: Format, numbers: usize) -> Self {
        match format {
            Format::Plain(DType::F64) => Self::F64(Vec::with_capacity(numbers)),
            Format::Plain(DType::F32) => Self::F32(Vec::with_capacity(numbers)),
            Format::Plain(DType::F16) => Self::F16(Vec::with_capacity(numbers)),
            Format::Plain(DType::BF16) => Self::BF16(Vec::with_capacity(numbers)),
            Format::Plain(DType::U32) => Self::U32(Vec::with_capacity(numbers)),
            Format::Blocks(packed) => {
                let bytes = usize::try_from(packed.bytes(numbers as u64)).unwrap_or(usize::MAX);
                Self::Blocks(packed, Vec::with_capacity(bytes))
            }
        }
    }

    /// Puts numbers that little-endian bytes hold as `from` behind those that are there, each rounded once. Indices and blocks are
    /// taken as they are. A number of which a part is missing at the end is left out, and floats hold no indices.
    pub fn extend(&mut self, from: DType, bytes: &[u8]) {
        match self {
            Self::F64(list) => extend(list, from, bytes),
            Self::F32(list) => extend(list, from, bytes),
            Self::F16(list) => extend(list, from, bytes),
            Self::BF16(list) => extend(list, from, bytes),
            Self::U32(list) => each(list, bytes, u32::from_le_bytes),
            Self::Blocks(_, list) => list.extend_from_slice(bytes),
        }
    }

    /// Whether all numbers are finite; of blocks, whether their scales are.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        match self {
            Self::F64(list) => list.iter().all(|x| x.is_finite()),
            Self::F32(list) => list.iter().all(|x| x.is_finite()),
            Self::F16(list) => list.iter().all(|x| x.is_finite()),
            Self::BF16(list) => list.iter().all(|x| x.is_finite()),
            Self::U32(_) => true,
            Self::Blocks(packed, list) => packed.is_finite(list),
        }
    }
}
