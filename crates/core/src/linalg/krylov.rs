//! The first triplets of a matrix by a block Krylov basis, and the whole thin decomposition.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder;
use faer::linalg::matmul::matmul;
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::svd::{self, ComputeSvdVectors::Thin};
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::triplets::PIECE;
use crate::base::rng::Stream;

/// Most restarts before the whole decomposition is computed.
const RESTARTS: usize = 24;
/// Largest residual of a triplet, as a part of the largest singular value.
const TOLERANCE: f64 = 1e-6;
/// The same while products with the weight are in f32, which reach little less.
const ROUGH: f64 = 1e-5;

/// Left vectors as columns, values, right vectors as columns.
pub type Parts = (Mat<f64>, Vec<f64>, Mat<f64>);

/// The thin decomposition `a = U diag(S) Vᵀ`.
pub fn thin(a: MatRef<'_, f64>) -> Option<Parts> {
    let (m, n) = a.shape();
    let size = m.min(n);
    let (mut u, mut v) = (Mat::zeros(m, size), Mat::zeros(n, size));
    let mut s = vec![0.0; size];
    let mut memory = MemBuffer::new(svd::svd_scratch::<f64>(
        m,
        n,
        Thin,
        Thin,
        Par::Seq,
        Default::default(),
    ));
    let values = faer::diag::DiagMut::from_slice_mut(&mut s);
    let stack = MemStack::new(&mut memory);
    svd::svd(
        a,
        values,
        Some(u.as_mut()),
        Some(v.as_mut()),
        Par::Seq,
        stack,
        Default::default(),
    )
    .ok()?;
    Some((u, s, v))
}

/// A weight in both widths.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub(super) wide: MatRef<'a, f64>,
    pub(super) narrow: MatRef<'a, f32>,
}

impl Weight<'_> {
    fn transpose(self) -> Self {
        Self {
            wide: self.wide.transpose(),
            narrow: self.narrow.transpose(),
        }
    }

    /// `to = self · b`, multiplied in f32 if that is near enough: half the memory to read, which is what
    /// takes the time.
    fn times(self, near: bool, b: MatRef<'_, f64>, to: MatMut<'_, f64>) {
        if !near {
            return times(self.wide, b, to);
        }
        let b = Mat::from_fn(b.nrows(), b.ncols(), |i, j| b[(i, j)] as f32);
        to.par_row_chunks_mut(PIECE)
            .enumerate()
            .for_each(|(i, mut to)| {
                let rows = self.narrow.subrows(i * PIECE, to.nrows());
                let mut own = Mat::zeros(to.nrows(), to.ncols());
                matmul(
                    own.as_mut(),
                    Accum::Replace,
                    rows,
                    b.as_ref(),
                    1.0,
                    Par::Seq,
                );
                for j in 0..to.ncols() {
                    let column = to.as_mut().col_mut(j);
                    for (to, x) in column.iter_mut().zip(own.col(j).iter()) {
                        *to = f64::from(*x);
                    }
                }
            });
    }
}

/// The first `wanted` triplets (and some more, not converged) by a restarted block Krylov iteration;
/// `None` if it does not converge. It comes near with products in f32, and ends with products in f64.
pub(super) fn krylov(w: Weight<'_>, wanted: usize, block: usize, depth: usize) -> Option<Parts> {
    let (out, input) = w.wide.shape();
    let stream = Stream::new(0, "svd");
    let mut start = Mat::from_fn(input, block, |i, j| stream.normal((i * block + j) as u64));
    orthonormalise(&mut start);
    let (mut right, mut left) = (
        Mat::<f64>::zeros(input, block * depth),
        Mat::<f64>::zeros(out, block * depth),
    );
    let mut before: Vec<f64> = Vec::new();
    let mut near = true;
    for restart in 1..=RESTARTS {
        right.as_mut().subcols_mut(0, block).copy_from(&start);
        for j in 0..depth {
            w.times(
                near,
                right.as_ref().subcols(j * block, block),
                left.as_mut().subcols_mut(j * block, block),
            );
            if j + 1 < depth {
                let mut next = Mat::zeros(input, block);
                w.transpose()
                    .times(near, left.as_ref().subcols(j * block, block), next.as_mut());
                let basis = right.as_ref().subcols(0, (j + 1) * block);
                for _twice in 0..2 {
                    project_out(basis, next.as_mut());
                    orthonormalise(&mut next);
                }
                right
                    .as_mut()
                    .subcols_mut((j + 1) * block, block)
                    .copy_from(&next);
            }
        }
        let (u, s, small) = thin(left.as_ref())?;
        times(
            right.as_ref(),
            small.as_ref().subcols(0, block),
            start.as_mut(),
        );
        let values = s.get(..wanted)?.to_vec();
        let top = values.first().copied().unwrap_or(0.0);
        let still = before.len() == wanted
            && before
                .iter()
                .zip(&values)
                .all(|(a, b)| (a - b).abs() <= TOLERANCE * top);
        let (u, v) = (
            u.as_ref().subcols(0, wanted),
            start.as_ref().subcols(0, wanted),
        );
        let within = |tolerance: f64| {
            residual(w.transpose(), near, u, &values, v) <= tolerance * top
                && residual(w, near, v, &values, u) <= tolerance * top
        };
        if near {
            near = !within(ROUGH) && restart < RESTARTS / 2;
        } else if still && within(TOLERANCE) {
            return is_orthonormal(v).then(|| (u.to_owned(), values, v.to_owned()));
        }
        before = values;
    }
    None
}

/// `to = a · b`, a piece of `a`'s rows per task.
fn times(a: MatRef<'_, f64>, b: MatRef<'_, f64>, to: MatMut<'_, f64>) {
    to.par_row_chunks_mut(PIECE)
        .enumerate()
        .for_each(|(i, to)| {
            let rows = a.subrows(i * PIECE, to.nrows());
            matmul(to, Accum::Replace, rows, b, 1.0, Par::Seq);
        });
}

/// `x −= basis basisᵀ x`.
fn project_out(basis: MatRef<'_, f64>, mut x: MatMut<'_, f64>) {
    let mut along = Mat::zeros(basis.ncols(), x.ncols());
    matmul(
        along.as_mut(),
        Accum::Replace,
        basis.transpose(),
        x.as_ref(),
        1.0,
        Par::Seq,
    );
    matmul(
        x.as_mut(),
        Accum::Add,
        basis,
        along.as_ref(),
        -1.0,
        Par::Seq,
    );
}

/// Replaces the columns by an orthonormal basis that spans at least them.
pub fn orthonormalise(x: &mut Mat<f64>) {
    let (m, n) = x.shape();
    let size = qr::recommended_block_size::<f64>(m, n);
    let scratch = qr::qr_in_place_scratch::<f64>(m, n, size, Par::Seq, Default::default()).or(
        householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(
            m, size, n,
        ),
    );
    let mut memory = MemBuffer::new(scratch);
    let mut factor = Mat::zeros(size, m.min(n));
    qr::qr_in_place(
        x.as_mut(),
        factor.as_mut(),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    );
    let mut q = Mat::identity(m, n);
    householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
        x.as_ref(),
        factor.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        MemStack::new(&mut memory),
    );
    *x = q;
}

/// Largest `‖a xᵢ − sᵢ yᵢ‖`.
fn residual(a: Weight<'_>, near: bool, x: MatRef<'_, f64>, s: &[f64], y: MatRef<'_, f64>) -> f64 {
    let mut r = Mat::zeros(a.wide.nrows(), x.ncols());
    a.times(near, x, r.as_mut());
    let norms = s.iter().enumerate().map(|(j, s)| {
        let square: f64 = r
            .col(j)
            .iter()
            .zip(y.col(j).iter())
            .map(|(r, y)| (r - s * y) * (r - s * y))
            .sum();
        square.sqrt()
    });
    norms.fold(0.0, f64::max)
}

/// Whether the columns are orthonormal; those of a singular value 0 need not be.
fn is_orthonormal(x: MatRef<'_, f64>) -> bool {
    let mut gram = Mat::zeros(x.ncols(), x.ncols());
    matmul(
        gram.as_mut(),
        Accum::Replace,
        x.transpose(),
        x,
        1.0,
        Par::Seq,
    );
    (0..x.ncols()).all(|j| {
        gram.col(j)
            .iter()
            .enumerate()
            .all(|(i, g)| (g - f64::from(u8::from(i == j))).abs() < 1e-4)
    })
}

/// Bytes that the thin decomposition of a matrix works in.
pub(super) fn stack_bytes(rows: usize, cols: usize) -> u64 {
    svd::svd_scratch::<f64>(rows, cols, Thin, Thin, Par::Seq, Default::default())
        .unaligned_bytes_required() as u64
}
