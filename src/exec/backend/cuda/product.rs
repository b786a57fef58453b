//! Products by cuBLAS, in the numbers that a recipe names.
#![expect(
    unsafe_code,
    reason = "cuBLAS gets raw addresses; their sizes come from the same table as the launches"
)]

use std::ffi::c_void;

use cudarc::cublas::{result, sys as cublas_sys};

use super::{Blocks, Cuda};
use crate::files::RunError;
use crate::program::op::Precision;
use crate::program::op::launch::Product;

pub(super) fn product_failed(error: result::CublasError) -> RunError {
    RunError::Device(format!(
        "cuBLAS could not multiply: {:?}; is libcublas of CUDA 13 the one that is found?",
        error.0
    ))
}

impl Cuda {
    pub(super) fn multiply(&self, p: &Product, blocks: &Blocks<'_>) -> Result<(), RunError> {
        let place = |operand| self.address(self.operand(blocks, operand)?);
        let size = if p.precision == Precision::Bf16 { 2 } else { 4 };
        let (a, b, c) = (place(p.a)? + p.first * size, place(p.b)?, place(p.c)?);
        let number = |x: u32| {
            i32::try_from(x).map_err(|_| {
                RunError::Device("a matrix has more than 2³¹ rows or columns".to_owned())
            })
        };
        let turned = |t: bool| {
            if t {
                cublas_sys::cublasOperation_t::CUBLAS_OP_T
            } else {
                cublas_sys::cublasOperation_t::CUBLAS_OP_N
            }
        };
        use cublas_sys::cublasComputeType_t as Compute;
        use cublas_sys::cudaDataType as Type;
        let (stored, compute) = match p.precision {
            Precision::F32 => (Type::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F),
            Precision::Tf32 => (Type::CUDA_R_32F, Compute::CUBLAS_COMPUTE_32F_FAST_TF32),
            Precision::Bf16 => (Type::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
        };
        let made = if p.narrow {
            Type::CUDA_R_16BF
        } else {
            Type::CUDA_R_32F
        };
        // SAFETY: addresses of live blocks; sizes, strides and types were inferred for them.
        unsafe {
            result::gemm_ex(
                *self.blas.handle(),
                turned(p.a_t),
                turned(p.b_t),
                number(p.m)?,
                number(p.n)?,
                number(p.k)?,
                (&raw const p.alpha).cast(),
                a as *const c_void,
                stored,
                number(p.lda)?,
                b as *const c_void,
                stored,
                number(p.ldb)?,
                (&raw const p.beta).cast(),
                c as *mut c_void,
                made,
                number(p.ldc)?,
                compute,
                cublas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(product_failed)
    }
}
