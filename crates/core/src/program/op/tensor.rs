//! Concrete tensors as kernels see them: dense, row-major.

use half::{bf16, f16};
use std::iter::Sum;

use super::super::format::{Format, Packed};
use super::super::types::DType;

/// A tensor's numbers in memory.
#[derive(Clone, Debug)]
pub enum Storage {
    /// f64.
    F64(Vec<f64>),
    /// f32.
    F32(Vec<f32>),
    /// f16.
    F16(Vec<f16>),
    /// bf16.
    BF16(Vec<bf16>),
    /// Indices.
    U32(Vec<u32>),
    /// Blocks of a format, row after row.
    Blocks(Packed, Vec<u8>),
}

impl Storage {
    /// In what format the numbers are.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self {
            Self::F64(_) => Format::Plain(DType::F64),
            Self::F32(_) => Format::Plain(DType::F32),
            Self::F16(_) => Format::Plain(DType::F16),
            Self::BF16(_) => Format::Plain(DType::BF16),
            Self::U32(_) => Format::Plain(DType::U32),
            Self::Blocks(packed, _) => Format::Blocks(*packed),
        }
    }

    /// The numbers as bytes, as they lie in memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F64(v) => bytemuck::cast_slice(v),
            Self::F32(v) => bytemuck::cast_slice(v),
            Self::F16(v) => bytemuck::cast_slice(v),
            Self::BF16(v) => bytemuck::cast_slice(v),
            Self::U32(v) => bytemuck::cast_slice(v),
            Self::Blocks(_, v) => v,
        }
    }

    /// The same, writable.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::F64(v) => bytemuck::cast_slice_mut(v),
            Self::F32(v) => bytemuck::cast_slice_mut(v),
            Self::F16(v) => bytemuck::cast_slice_mut(v),
            Self::BF16(v) => bytemuck::cast_slice_mut(v),
            Self::U32(v) => bytemuck::cast_slice_mut(v),
            Self::Blocks(_, v) => v,
        }
    }

    /// Bytes held (capacity, not length).
    #[must_use]
    pub const fn allocated(&self) -> u64 {
        let bytes = match self {
            Self::F64(v) => v.capacity() * 8,
            Self::F32(v) => v.capacity() * 4,
            Self::F16(v) => v.capacity() * 2,
            Self::BF16(v) => v.capacity() * 2,
            Self::U32(v) => v.capacity() * 4,
            Self::Blocks(_, v) => v.capacity(),
        };
        bytes as u64
    }
}

/// An element type that kernels and the executor handle.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Its dtype in the program.
    const DTYPE: DType;
    /// The storage's elements; `None` if it holds another type.
    fn slice(storage: &Storage) -> Option<&[Self]>;
    /// The storage's elements, writable.
    fn slice_mut(storage: &mut Storage) -> Option<&mut [Self]>;
    /// Wraps a vector.
    fn wrap(data: Vec<Self>) -> Storage;
    /// The storage's vector; `None` if it holds another type.
    fn unwrap(storage: Storage) -> Option<Vec<Self>>;
}

macro_rules! element {
    ($t:ty, $variant:ident) => {
        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn slice(storage: &Storage) -> Option<&[Self]> {
                if let Storage::$variant(v) = storage {
                    Some(v)
                } else {
                    None
                }
            }
            fn slice_mut(storage: &mut Storage) -> Option<&mut [Self]> {
                if let Storage::$variant(v) = storage {
                    Some(v)
                } else {
                    None
                }
            }
            fn wrap(data: Vec<Self>) -> Storage {
                Storage::$variant(data)
            }
            fn unwrap(storage: Storage) -> Option<Vec<Self>> {
                if let Storage::$variant(v) = storage {
                    Some(v)
                } else {
                    None
                }
            }
        }
    };
}
element!(f64, F64);
element!(f32, F32);
element!(f16, F16);
element!(bf16, BF16);
element!(u32, U32);

/// An owned tensor.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its elements.
    pub storage: Storage,
    /// Its dimensions.
    pub dims: Vec<usize>,
}

impl Tensor {
    /// Wraps elements.
    pub fn new<T: Element>(mut data: Vec<T>, dims: &[usize]) -> Self {
        debug_assert_eq!(data.len(), dims.iter().product::<usize>());
        // What a list has grown beyond its elements is memory that no estimate knows.
        data.shrink_to_fit();
        Self {
            storage: T::wrap(data),
            dims: dims.to_vec(),
        }
    }

    /// Zeros of a format; what zero bytes stand for, in one of blocks.
    #[must_use]
    pub fn zeros(format: impl Into<Format>, dims: &[usize]) -> Self {
        let n: usize = dims.iter().product();
        let storage = match format.into() {
            Format::Plain(DType::F64) => f64::wrap(vec![0.0; n]),
            Format::Plain(DType::F32) => f32::wrap(vec![0.0; n]),
            Format::Plain(DType::F16) => f16::wrap(vec![f16::ZERO; n]),
            Format::Plain(DType::BF16) => bf16::wrap(vec![bf16::ZERO; n]),
            Format::Plain(DType::U32) => u32::wrap(vec![0; n]),
            Format::Blocks(packed) => {
                Storage::Blocks(packed, vec![0; packed.bytes(n as u64) as usize])
            }
        };
        Self {
            storage,
            dims: dims.to_vec(),
        }
    }

    /// Its elements' type in the program: f32 of what is in blocks.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.format().dtype()
    }

    /// How its elements are stored.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.storage.format()
    }

    /// Bytes held (capacity, not length).
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.storage.allocated()
    }

    /// The elements.
    #[must_use]
    pub fn slice<T: Element>(&self) -> Option<&[T]> {
        T::slice(&self.storage)
    }

    /// The elements, without a copy.
    #[must_use]
    pub fn into_vec<T: Element>(self) -> Option<Vec<T>> {
        T::unwrap(self.storage)
    }

    /// The elements, writable.
    #[must_use]
    pub fn slice_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        T::slice_mut(&mut self.storage)
    }

    /// The same numbers in another float type of 32 or 16 bits, rounded once to the nearest, and decoded if they are in
    /// blocks.
    ///
    /// # Panics
    /// If one of the two is another type (a bug).
    #[must_use]
    pub fn cast(&self, to: DType) -> Self {
        if self.format().blocks().is_some() && to != DType::F32 {
            return self.cast(DType::F32).cast(to);
        }
        let mut own = Self::zeros(to, &self.dims);
        super::cast_elements(self.view(), own.view_mut());
        own
    }

    /// The same numbers in a format; of blocks, with what the format rounds.
    ///
    /// # Errors
    /// A number that the format of blocks cannot hold.
    ///
    /// # Panics
    /// As [`Self::cast`]; also if the rows are not whole blocks (a bug).
    pub fn stored_as(self, format: impl Into<Format>) -> Result<Self, f32> {
        let format = format.into();
        match format {
            _ if self.format() == format => Ok(self),
            Format::Plain(dtype) => Ok(self.cast(dtype)),
            Format::Blocks(packed) => {
                assert!(format.fits(self.dims.last().copied().unwrap_or(0) as u64));
                let wide = match self.format() {
                    Format::Plain(DType::F32) => self,
                    _ => self.cast(DType::F32),
                };
                let numbers = wide.slice::<f32>().unwrap_or_default();
                Ok(Self {
                    storage: Storage::Blocks(packed, packed.encode_all(numbers)?),
                    dims: wide.dims,
                })
            }
        }
    }

    /// A view to read.
    #[must_use]
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef {
            storage: &self.storage,
            dims: &self.dims,
        }
    }

    /// A view to write.
    #[must_use]
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut {
            storage: &mut self.storage,
            dims: &self.dims,
        }
    }
}

/// A tensor a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Its elements.
    pub storage: &'a Storage,
    /// Its dimensions.
    pub dims: &'a [usize],
}

impl<'a> TensorRef<'a> {
    /// Its elements' type in the program: f32 of what is in blocks.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.format().dtype()
    }

    /// How its elements are stored.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.storage.format()
    }

    /// The elements.
    ///
    /// # Panics
    /// If the tensor holds another type: the program was verified, so this is a bug.
    #[must_use]
    pub fn slice<T: Element>(&self) -> &'a [T] {
        T::slice(self.storage)
            .unwrap_or_else(|| panic!("a kernel read {} as {}", self.format(), T::DTYPE))
    }
}

/// A tensor a kernel writes. Outputs come uninitialised in value (any numbers), sized right.
#[derive(Debug)]
pub struct TensorMut<'a> {
    /// Its elements.
    pub storage: &'a mut Storage,
    /// Its dimensions.
    pub dims: &'a [usize],
}

impl TensorMut<'_> {
    /// Its elements' type in the program: f32 of what is in blocks.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.format().dtype()
    }

    /// How its elements are stored.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.storage.format()
    }

    /// A view to read.
    #[must_use]
    pub fn view(&self) -> TensorRef<'_> {
        TensorRef {
            storage: self.storage,
            dims: self.dims,
        }
    }

    /// A view to write.
    #[must_use]
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        TensorMut {
            storage: self.storage,
            dims: self.dims,
        }
    }

    /// The elements.
    ///
    /// # Panics
    /// If the tensor holds another type (a bug).
    #[must_use]
    pub fn slice<T: Element>(&mut self) -> &mut [T] {
        let format = self.format();
        T::slice_mut(self.storage)
            .unwrap_or_else(|| panic!("a kernel wrote {format} as {}", T::DTYPE))
    }
}

/// The operands of one application.
#[derive(Debug)]
pub struct Io<'a> {
    /// One entry per input; `None` for inputs that are updated in place or whose buffer output 0
    /// has taken over (then output 0 holds that input's data on entry).
    pub inputs: Vec<Option<TensorRef<'a>>>,
    /// The inputs named by [`super::OpRule::updates`], in that order.
    pub updates: Vec<TensorMut<'a>>,
    /// One entry per output.
    pub outputs: Vec<TensorMut<'a>>,
    /// Which input's buffer output 0 has taken over.
    pub taken: Option<usize>,
}

impl<'a> Io<'a> {
    /// Input `i`.
    ///
    /// # Panics
    /// If it is absent: the op asked for something it declared otherwise (a bug).
    #[must_use]
    pub fn input(&self, i: usize) -> TensorRef<'a> {
        self.inputs
            .get(i)
            .copied()
            .flatten()
            .unwrap_or_else(|| panic!("input {i} is not readable here"))
    }

    /// The number of inputs.
    #[must_use]
    pub fn arity(&self) -> usize {
        self.inputs.len()
    }
}

/// A float type kernels compute in: f32, and f64 for the gradient tests.
pub trait Compute:
    Element + num_traits::Float + num_traits::FromPrimitive + num_traits::NumAssign + Sum
{
}
impl Compute for f32 {}
impl Compute for f64 {}
