//! Decompositions and products of matrices outside of programs, by faer. They are here, and not beside what asks for them,
//! because a build that does not optimise the crate above still has to decompose a model's weights.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::DenseSolveCore;
use faer::{Accum, Mat, MatRef, Par};

mod krylov;
mod triplets;

pub use krylov::{Parts, orthonormalise, thin};
pub use triplets::{
    Decomposition, decompose, in_own_threads, keep_span, rest, subtract, svd_scratch_bytes,
};

/// The product `a b`, by one thread.
#[must_use]
pub fn times(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(a.nrows(), b.ncols());
    matmul(product.as_mut(), Accum::Replace, a, b, 1.0, Par::Seq);
    product
}

/// The inverse of a square matrix that has one.
#[must_use]
pub fn inverse(a: MatRef<'_, f64>) -> Mat<f64> {
    a.partial_piv_lu().inverse()
}
