//! Storage formats: how a tensor's numbers lie in memory. A format of blocks is one file and one row in the table
//! below.
//!
//! **Invariant:** what a tensor in blocks stands for is what its format decodes. Nothing else of the numbers that were
//! encoded is kept, so every reader of a frozen weight sees the same ones.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::types::{DType, Shape};

mod blocks;
pub(super) mod nf4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
pub(super) mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod storing;

pub use blocks::{BlockFormat, Blocks, Encoder, Group, LONGEST, Ranges};
pub use storing::Storing;

/// The registry.
macro_rules! formats {
    (chosen: {$($module:ident :: $format:ident $doc:literal,)*} read: {$($other:ident :: $read:ident,)*}) => {
        /// Every format of blocks.
        pub const FORMATS: &[&dyn BlockFormat] = &[$(&$module::$format,)* $(&$other::$read,)*];

        /// What frozen weights can be stored as, as recipes name it.
        pub const NAMES: &[&str] = &["f32", "f16", "bf16", $(stringify!($module),)*];

        /// What recipes choose with such a name.
        pub const DOC: &str = concat!(
            "type in which frozen matrices are held; trained tensors and arithmetic are f32",
            $("; `", stringify!($module), "` ", $doc,)*
        );
    };
}

// `file::Struct "what it does"`, of those that recipes may choose, then those that are only read from files; the modules
// are declared above, where rustfmt finds them.
formats! {
    chosen: {
    q8_0::Q8_0 "stores the model's own matrices that nothing trains and whose rows are whole blocks in blocks of 32 numbers \
                of 8 bits with a scale in f16, as llama.cpp does: 8.5 bits a number; products decode them as they read",
    nf4::Nf4 "does so in blocks of 64 numbers of 4 bits with quantised scales, as QLoRA does: 4.13 bits a number",
    q4_0::Q4_0 "in blocks of 32 numbers of 4 bits, as llama.cpp does: 4.5 bits a number",
    q4_k::Q4K "in blocks of 256 numbers of 4 bits with scales and minimums in 6 bits, as llama.cpp does: 4.5 bits a number, \
               and less error than `q4_0`",
    }
    read: {
    q4_1::Q4_1,
    q5_0::Q5_0,
    q5_1::Q5_1,
    q5_k::Q5K,
    q6_k::Q6K,
    q2_k::Q2K,
    q3_k::Q3K,
    }
}

/// One of the formats of blocks.
#[derive(Clone, Copy)]
pub struct Packed(&'static dyn BlockFormat);

impl Packed {
    /// A format by itself, whether or not the table has it.
    #[must_use]
    pub const fn of(rule: &'static dyn BlockFormat) -> Self {
        Self(rule)
    }

    /// The format of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|f| f.name() == name).map(|f| Self(*f))
    }

    /// All that it says of itself.
    #[must_use]
    pub const fn rule(self) -> &'static dyn BlockFormat {
        self.0
    }

    /// Bytes of so many numbers, which are whole blocks.
    #[must_use]
    pub fn bytes(self, numbers: u64) -> u64 {
        let (blocks, group) = (numbers / self.0.numbers() as u64, self.0.group());
        blocks * self.0.bytes() as u64 + blocks.div_ceil(group.blocks as u64) * group.head as u64
    }

    /// Whether such blocks can be made of numbers.
    #[must_use]
    pub fn is_made(self) -> bool {
        self.0.encode().is_some()
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}
impl Eq for Packed {}
impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}
impl PartialOrd for Packed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Packed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name().cmp(other.0.name())
    }
}
impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Each by itself, in this type.
    Plain(DType),
    /// In blocks; ops compute them in f32.
    Blocks(Packed),
}

impl Format {
    /// The format of a name, of those that frozen weights can have.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "f32" => Some(Self::Plain(DType::F32)),
            "f16" => Some(Self::Plain(DType::F16)),
            "bf16" => Some(Self::Plain(DType::BF16)),
            other => Packed::named(other).map(Self::Blocks),
        }
    }

    /// `f32`, `q8_0`, …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain(dtype) => dtype.name(),
            Self::Blocks(packed) => packed.rule().name(),
        }
    }

    /// The type of each number, where each is stored by itself.
    #[must_use]
    pub const fn plain(self) -> Option<DType> {
        match self {
            Self::Plain(dtype) => Some(dtype),
            Self::Blocks(_) => None,
        }
    }

    /// The format of blocks, if it is one.
    #[must_use]
    pub const fn blocks(self) -> Option<Packed> {
        match self {
            Self::Plain(_) => None,
            Self::Blocks(packed) => Some(packed),
        }
    }

    /// The type of the numbers that are read: f32 of what is in blocks.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::Plain(dtype) => dtype,
            Self::Blocks(_) => DType::F32,
        }
    }

    /// Whether each number is a float of 16 bits.
    #[must_use]
    pub const fn is_half(self) -> bool {
        matches!(self, Self::Plain(dtype) if dtype.is_half())
    }

    /// Bytes of so many numbers, which are whole blocks.
    #[must_use]
    pub fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::Plain(dtype) => numbers * dtype.size(),
            Self::Blocks(packed) => packed.bytes(numbers),
        }
    }

    /// Whether it can hold rows of so many numbers.
    #[must_use]
    pub fn fits(self, width: u64) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Blocks(packed) => {
                width > 0 && width.is_multiple_of(packed.rule().numbers() as u64)
            }
        }
    }

    /// Whether it can hold a tensor of a shape: only matrices are in blocks, and their rows are whole ones.
    #[must_use]
    pub fn holds(self, shape: &Shape) -> bool {
        match (self, shape.as_slice()) {
            (Self::Plain(_), _) => true,
            (Self::Blocks(_), [rows, width]) => {
                rows.as_const().is_some() && width.as_const().is_some_and(|n| self.fits(n))
            }
            (Self::Blocks(_), _) => false,
        }
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::Plain(DType::F32)
    }
}

impl From<DType> for Format {
    fn from(dtype: DType) -> Self {
        Self::Plain(dtype)
    }
}

impl From<Packed> for Format {
    fn from(packed: Packed) -> Self {
        Self::Blocks(packed)
    }
}

impl PartialEq<DType> for Format {
    fn eq(&self, other: &DType) -> bool {
        *self == Self::Plain(*other)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(in crate::program) use samples::sample;
