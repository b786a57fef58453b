//! Operands under concrete sizes: what costs, workspaces and launches are computed from.

use super::super::format::Format;
use super::super::types::{Bindings, DType, TensorType};

/// Arithmetic and traffic of one application, under given sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// An operand under concrete sizes, for costs and workspaces.
#[derive(Clone, Debug)]
pub struct Sized {
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
    /// How it lies in memory.
    pub stored: Format,
    /// Its element type as it is computed.
    pub computed: DType,
}

impl Sized {
    /// How many elements it has.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dims.iter().map(|&d| d as u64).product()
    }

    /// Whether it is narrower in memory than where it is computed.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.stored != self.computed
    }
}

/// What costs and workspaces are computed from: the operands and the batch under concrete sizes.
#[derive(Clone, Debug)]
pub struct SizedCx {
    /// The inputs.
    pub inputs: Vec<Sized>,
    /// The outputs.
    pub outputs: Vec<Sized>,
    /// The batch's sizes.
    pub sizes: Bindings,
}

impl SizedCx {
    /// Operands of these types under given sizes.
    #[must_use]
    pub fn new(inputs: &[&TensorType], outputs: &[&TensorType], sizes: &Bindings) -> Self {
        let sized = |types: &[&TensorType]| {
            types
                .iter()
                .map(|t| Sized {
                    dims: t.dims(sizes),
                    bytes: t.bytes(sizes),
                    stored: t.stored,
                    computed: t.dtype,
                })
                .collect()
        };
        Self {
            inputs: sized(inputs),
            outputs: sized(outputs),
            sizes: *sizes,
        }
    }

    /// The same with every operand stored as it is computed.
    #[must_use]
    pub fn widened(&self) -> Self {
        let wide = |list: &[Sized]| {
            let each = list.iter().map(|x| Sized {
                dims: x.dims.clone(),
                bytes: x.elements() * x.computed.size(),
                stored: x.computed.into(),
                computed: x.computed,
            });
            each.collect()
        };
        Self {
            inputs: wide(&self.inputs),
            outputs: wide(&self.outputs),
            sizes: self.sizes,
        }
    }

    /// Bytes of all operands: what an application reads and writes at least.
    #[must_use]
    pub fn traffic(&self) -> u64 {
        self.inputs
            .iter()
            .chain(&self.outputs)
            .map(|s| s.bytes)
            .sum()
    }

    /// Elements of input `i`; 0 if there is none.
    #[must_use]
    pub fn elements(&self, i: usize) -> u64 {
        self.inputs.get(i).map_or(0, Sized::elements)
    }

    /// Rows of input `i`; 0 if there is none.
    #[must_use]
    pub fn rows(&self, i: usize) -> u64 {
        self.inputs
            .get(i)
            .and_then(|s| s.dims.first())
            .copied()
            .unwrap_or(0) as u64
    }

    /// Elements of a row of input `i`, 1 if it is a list.
    #[must_use]
    pub fn width(&self, i: usize) -> u64 {
        self.inputs
            .get(i)
            .and_then(|s| s.dims.get(1))
            .copied()
            .unwrap_or(1) as u64
    }
}
