//! Concrete tensors as kernels see them. Storages are candle's; layouts are ours: dense, row-major.

use candle_core::CpuStorage;
use half::{bf16, f16};
use std::iter::Sum;

use super::super::types::DType;

/// An element type that kernels and the executor handle.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Its dtype in the program.
    const DTYPE: DType;
    /// The storage's elements; `None` if it holds another type.
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
    /// The storage's elements, writable.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// Wraps a vector.
    fn wrap(data: Vec<Self>) -> CpuStorage;
    /// The storage's vector; `None` if it holds another type.
    fn unwrap(storage: CpuStorage) -> Option<Vec<Self>>;
}

macro_rules! element {
    ($t:ty, $variant:ident) => {
        impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn slice(storage: &CpuStorage) -> Option<&[Self]> {
                if let CpuStorage::$variant(v) = storage {
                    Some(v)
                } else {
                    None
                }
            }
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(v) = storage {
                    Some(v)
                } else {
                    None
                }
            }
            fn wrap(data: Vec<Self>) -> CpuStorage {
                CpuStorage::$variant(data)
            }
            fn unwrap(storage: CpuStorage) -> Option<Vec<Self>> {
                if let CpuStorage::$variant(v) = storage {
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
    pub storage: CpuStorage,
    /// Its dimensions.
    pub dims: Vec<usize>,
}

impl Tensor {
    /// Wraps elements.
    pub fn new<T: Element>(data: Vec<T>, dims: &[usize]) -> Self {
        debug_assert_eq!(data.len(), dims.iter().product::<usize>());
        Self {
            storage: T::wrap(data),
            dims: dims.to_vec(),
        }
    }

    /// Zeros of a dtype.
    #[must_use]
    pub fn zeros(dtype: DType, dims: &[usize]) -> Self {
        let n = dims.iter().product();
        let storage = match dtype {
            DType::F64 => f64::wrap(vec![0.0; n]),
            DType::F32 => f32::wrap(vec![0.0; n]),
            DType::F16 => f16::wrap(vec![f16::ZERO; n]),
            DType::BF16 => bf16::wrap(vec![bf16::ZERO; n]),
            DType::U32 => u32::wrap(vec![0; n]),
        };
        Self {
            storage,
            dims: dims.to_vec(),
        }
    }

    /// Its dtype in the program.
    ///
    /// # Panics
    /// If the storage holds a type no program uses (a bug: they are only made here).
    #[must_use]
    pub fn dtype(&self) -> DType {
        storage_dtype(&self.storage)
    }

    /// Bytes held (capacity, not length).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let (capacity, size) = match &self.storage {
            CpuStorage::F64(v) => (v.capacity(), 8),
            CpuStorage::F32(v) => (v.capacity(), 4),
            CpuStorage::F16(v) => (v.capacity(), 2),
            CpuStorage::BF16(v) => (v.capacity(), 2),
            CpuStorage::U32(v) => (v.capacity(), 4),
            _ => (0, 0),
        };
        (capacity * size) as u64
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

    /// The same numbers in another float type of 32 or 16 bits, rounded once to the nearest.
    ///
    /// # Panics
    /// If one of the two is another type (a bug).
    #[must_use]
    pub fn cast(&self, to: DType) -> Self {
        let mut own = Self::zeros(to, &self.dims);
        super::cast_elements(self.view(), own.view_mut());
        own
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

fn storage_dtype(storage: &CpuStorage) -> DType {
    match storage {
        CpuStorage::F64(_) => DType::F64,
        CpuStorage::F32(_) => DType::F32,
        CpuStorage::F16(_) => DType::F16,
        CpuStorage::BF16(_) => DType::BF16,
        CpuStorage::U32(_) => DType::U32,
        _ => unreachable!("tensors are made of the program's dtypes only"),
    }
}

/// A tensor a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct TensorRef<'a> {
    /// Its elements.
    pub storage: &'a CpuStorage,
    /// Its dimensions.
    pub dims: &'a [usize],
}

impl<'a> TensorRef<'a> {
    /// Its dtype.
    #[must_use]
    pub fn dtype(&self) -> DType {
        storage_dtype(self.storage)
    }

    /// The elements.
    ///
    /// # Panics
    /// If the tensor holds another type: the program was verified, so this is a bug.
    #[must_use]
    pub fn slice<T: Element>(&self) -> &'a [T] {
        T::slice(self.storage)
            .unwrap_or_else(|| panic!("a kernel read {} as {}", self.dtype(), T::DTYPE))
    }
}

/// A tensor a kernel writes. Outputs come uninitialised in value (any numbers), sized right.
#[derive(Debug)]
pub struct TensorMut<'a> {
    /// Its elements.
    pub storage: &'a mut CpuStorage,
    /// Its dimensions.
    pub dims: &'a [usize],
}

impl TensorMut<'_> {
    /// Its dtype.
    #[must_use]
    pub fn dtype(&self) -> DType {
        storage_dtype(self.storage)
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
        let dtype = self.dtype();
        T::slice_mut(self.storage)
            .unwrap_or_else(|| panic!("a kernel wrote {dtype} as {}", T::DTYPE))
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
