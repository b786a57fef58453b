//! Dtypes, symbolic dimensions and tensor types.
//!
//! Batches are packed and change shape at every step, so a program is built once per stage over
//! symbols; sizes are formulas in them, evaluated under [`Bindings`].

use std::collections::BTreeMap;
use std::fmt;

use super::format::Format;

/// Element type of a tensor in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 64-bit float; only tests compute in it.
    F64,
    /// 32-bit float: the compute type.
    #[default]
    F32,
    /// IEEE half: storage of frozen weights and of activations.
    F16,
    /// bfloat16: storage of frozen weights and of activations.
    BF16,
    /// 32-bit index.
    U32,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// Whether it is one of the float types kernels compute in.
    #[must_use]
    pub const fn is_compute(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Whether it is a float of 16 bits.
    #[must_use]
    pub const fn is_half(self) -> bool {
        matches!(self, Self::F16 | Self::BF16)
    }

    /// `f32`, `bf16`, …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U32 => "u32",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A quantity that differs from batch to batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sym {
    /// Number of sequences in the (micro-)batch.
    Sequences,
    /// Number of tokens, all sequences together; there is no padding.
    Tokens,
    /// Σ length² over the sequences.
    Pairs,
    /// Length of the longest sequence.
    Longest,
    /// Number of places that the head reads, where those are any number of tokens of a sequence; else 0.
    Read,
    /// Number of tokens of the sources, where each sequence has one that it is made of; else 0.
    SourceTokens,
    /// Σ length² over the sources.
    SourcePairs,
    /// Length of the longest source.
    SourceLongest,
    /// Σ length · length of its source over the sequences.
    Crossed,
}

/// All symbols with the letters they are printed with.
pub const SYMS: [(Sym, &str); 9] = [
    (Sym::Sequences, "S"),
    (Sym::Tokens, "T"),
    (Sym::Pairs, "P"),
    (Sym::Longest, "L"),
    (Sym::Read, "R"),
    (Sym::SourceTokens, "U"),
    (Sym::SourcePairs, "Q"),
    (Sym::SourceLongest, "M"),
    (Sym::Crossed, "X"),
];

/// An affine form in the symbols: `constant + Σ factor·symbol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dim {
    /// The constant part.
    pub constant: u64,
    /// Factors in the order of [`SYMS`].
    pub factors: [u64; SYMS.len()],
}

impl Dim {
    /// The symbol itself.
    #[must_use]
    pub const fn sym(sym: Sym) -> Self {
        let mut factors = [0; SYMS.len()];
        factors[sym as usize] = 1;
        Self {
            constant: 0,
            factors,
        }
    }

    /// This plus a constant.
    #[must_use]
    pub const fn plus(mut self, n: u64) -> Self {
        self.constant += n;
        self
    }

    /// This and another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.constant += other.constant;
        for (own, more) in self.factors.iter_mut().zip(other.factors) {
            *own += more;
        }
        self
    }

    /// This without another; `None` where it has not as much.
    #[must_use]
    pub fn without(self, other: Self) -> Option<Self> {
        let mut factors = self.factors;
        for (own, less) in factors.iter_mut().zip(other.factors) {
            *own = own.checked_sub(less)?;
        }
        Some(Self {
            constant: self.constant.checked_sub(other.constant)?,
            factors,
        })
    }

    /// This times a constant.
    #[must_use]
    pub fn times(self, n: u64) -> Self {
        Self {
            constant: self.constant * n,
            factors: self.factors.map(|f| f * n),
        }
    }

    /// The number, if no symbol occurs.
    #[must_use]
    pub fn as_const(self) -> Option<u64> {
        self.factors
            .iter()
            .all(|&f| f == 0)
            .then_some(self.constant)
    }

    /// The number under given sizes.
    #[must_use]
    pub fn at(self, sizes: &Bindings) -> u64 {
        self.constant
            + self
                .factors
                .iter()
                .zip(sizes.0)
                .map(|(f, s)| f * s)
                .sum::<u64>()
    }
}

impl From<u64> for Dim {
    fn from(constant: u64) -> Self {
        Self {
            constant,
            factors: [0; SYMS.len()],
        }
    }
}

impl From<Sym> for Dim {
    fn from(sym: Sym) -> Self {
        Self::sym(sym)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for ((_, letter), &factor) in SYMS.iter().zip(&self.factors) {
            match factor {
                0 => {}
                1 => parts.push((*letter).to_owned()),
                n => parts.push(format!("{n}{letter}")),
            }
        }
        if self.constant > 0 || parts.is_empty() {
            parts.push(self.constant.to_string());
        }
        f.write_str(&parts.join("+"))
    }
}

/// The symbols' values for one (micro-)batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bindings(pub [u64; SYMS.len()]);

impl Bindings {
    /// Those of what runs once, whatever the batches.
    pub const NONE: Self = Self([0; SYMS.len()]);

    /// The sizes of a batch of sequences of these lengths.
    #[must_use]
    pub fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut b = [0; SYMS.len()];
        for length in lengths {
            let n = length as u64;
            b[Sym::Sequences as usize] += 1;
            b[Sym::Tokens as usize] += n;
            b[Sym::Pairs as usize] += n * n;
            b[Sym::Longest as usize] = b[Sym::Longest as usize].max(n);
        }
        Self(b)
    }

    /// The sizes of a batch of sequences with their sources: lengths of both, the source's first.
    #[must_use]
    pub fn of_pairs(lengths: impl IntoIterator<Item = [usize; 2]>) -> Self {
        let lengths: Vec<[usize; 2]> = lengths.into_iter().collect();
        let mut own = Self::of_lengths(lengths.iter().map(|[_, own]| *own));
        let sources = Self::of_lengths(lengths.iter().map(|[source, _]| *source));
        let crossed = lengths.iter().map(|[a, b]| (a * b) as u64);
        for (sym, size) in [
            (Sym::SourceTokens, sources.get(Sym::Tokens)),
            (Sym::SourcePairs, sources.get(Sym::Pairs)),
            (Sym::SourceLongest, sources.get(Sym::Longest)),
            (Sym::Crossed, crossed.sum()),
        ] {
            own.0[sym as usize] = size;
        }
        own
    }

    /// The same sizes with so many places that the head reads.
    #[must_use]
    pub const fn reading(mut self, places: u64) -> Self {
        self.0[Sym::Read as usize] = places;
        self
    }

    /// The value of a symbol.
    #[must_use]
    pub const fn get(&self, sym: Sym) -> u64 {
        self.0[sym as usize]
    }

    /// Whether every size here is at most the other's.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| *a <= b)
    }

    /// Those of `all` that no other dominates among sizes alike where they are small: a peak over them is the peak over all.
    /// Every tensor grows with every symbol, and so does scratch, except that a product of at most `few` rows
    /// packs its operands differently and can need more of it than one with more rows.
    #[must_use]
    pub fn pareto(all: impl IntoIterator<Item = Self>, few: u64) -> Vec<Self> {
        let mut list: Vec<Self> = all.into_iter().collect();
        list.sort_unstable_by(|a, b| b.cmp(a));
        list.dedup();
        // What rows are counted by, exact as far as products can be of few.
        let regime = |b: &Self| {
            [Sym::Sequences, Sym::Tokens, Sym::Read, Sym::SourceTokens]
                .map(|sym| b.get(sym).min(few.saturating_add(1)))
        };
        let mut fronts: BTreeMap<[u64; 4], Vec<Self>> = BTreeMap::new();
        for candidate in list {
            let front = fronts.entry(regime(&candidate)).or_default();
            if !front.iter().any(|kept| candidate.within(kept)) {
                front.retain(|kept| !kept.within(&candidate));
                front.push(candidate);
            }
        }
        fronts.into_values().flatten().collect()
    }
}

/// Dimensions, slowest first; tensors are dense and row-major.
pub type Shape = Vec<Dim>;

/// Dtype and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type, as ops compute it.
    pub dtype: DType,
    /// Symbolic shape.
    pub shape: Shape,
    /// How it lies in memory: as `dtype`, as a narrower float that is widened where an op reads it and
    /// rounded where one writes it, or in blocks.
    pub stored: Format,
}

impl TensorType {
    /// A type.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Self {
            dtype,
            shape: shape.into_iter().collect(),
            stored: dtype.into(),
        }
    }

    /// The same, in another format in memory.
    #[must_use]
    pub fn stored_as(self, stored: impl Into<Format>) -> Self {
        let stored = stored.into();
        Self { stored, ..self }
    }

    /// What an op's rule sees: the type as it is computed.
    #[must_use]
    pub fn computed(&self) -> Self {
        self.clone().stored_as(self.dtype)
    }

    /// Whether it is narrower in memory than where it is computed.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.stored != self.dtype
    }

    /// A type of constant shape.
    #[must_use]
    pub fn fixed(dtype: DType, shape: &[u64]) -> Self {
        Self::new(dtype, shape.iter().map(|&n| Dim::from(n)))
    }

    /// One element.
    #[must_use]
    pub fn scalar(dtype: DType) -> Self {
        Self::fixed(dtype, &[1])
    }

    /// Number of elements under given sizes.
    #[must_use]
    pub fn elements(&self, sizes: &Bindings) -> u64 {
        self.shape.iter().map(|d| d.at(sizes)).product()
    }

    /// Bytes under given sizes.
    #[must_use]
    pub fn bytes(&self, sizes: &Bindings) -> u64 {
        self.stored.bytes(self.elements(sizes))
    }

    /// Concrete dimensions.
    #[must_use]
    pub fn dims(&self, sizes: &Bindings) -> Vec<usize> {
        self.shape.iter().map(|d| d.at(sizes) as usize).collect()
    }

    /// Rows and columns of a matrix type.
    #[must_use]
    pub fn matrix(&self) -> Option<(Dim, Dim)> {
        match self.shape.as_slice() {
            [rows, cols] => Some((*rows, *cols)),
            _ => None,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        write!(f, "{}[{}]", self.stored, dims.join(", "))
    }
}

/// A float attribute of an op: compared, ordered and hashed by its bits, so that equal ops are really equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Real(u64);

impl Real {
    /// Wraps a number.
    #[must_use]
    pub const fn new(x: f64) -> Self {
        Self(x.to_bits())
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}
