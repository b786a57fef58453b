//! Vectorisable elementary functions and loops that several kernels share.
//!
//! Results are the same bits at any thread count and with any instruction set: chunks have a fixed
//! size, sums are combined in index order, and no multiplication is fused into an addition.

use rayon::prelude::*;

use super::tensor::Compute;

/// Elements of a parallel chunk.
pub(super) const CHUNK: usize = 8192;

/// Runs a loop compiled for the best instruction set the processor has.
#[inline(always)]
pub(super) fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Calls `f(start, chunk)` for fixed chunks of `out`, in parallel where it pays.
pub(super) fn for_chunks<T: Send>(out: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    if out.len() <= 2 * CHUNK {
        f(0, out);
    } else {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| f(i * CHUNK, chunk));
    }
}

/// Calls `f(first row, rows)` for fixed blocks of whole rows, in parallel where it pays.
pub(super) fn for_chunks_of_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows = (CHUNK / width.max(1)).max(1);
    if width == 0 {
        return;
    }
    if out.len() <= 2 * CHUNK {
        f(0, out);
    } else {
        out.par_chunks_mut(rows * width).enumerate().for_each(|(i, chunk)| f(i * rows, chunk));
    }
}

/// The sub-slice `start .. start + len`.
#[inline(always)]
pub(super) fn part<T>(x: &[T], start: usize, len: usize) -> &[T] {
    &x[start..start + len]
}

/// The elements from `start` on.
#[inline(always)]
pub(super) fn rest<T>(x: &[T], start: usize) -> &[T] {
    &x[start..]
}

/// Functions whose f32 versions are polynomials without branches.
pub trait Elementary: Compute {
    /// `eˣ`
    fn exp_fast(self) -> Self;
    /// `tanh x`
    fn tanh_fast(self) -> Self;
    /// `(Φ(x), φ(x))`: the normal distribution function and its density.
    fn normal_cdf_pdf(self) -> (Self, Self);
    /// From f64, rounded.
    fn of(x: f64) -> Self;
    /// To f64.
    fn wide(self) -> f64;
}

impl Elementary for f64 {
    fn exp_fast(self) -> Self {
        libm::exp(self)
    }

    fn tanh_fast(self) -> Self {
        libm::tanh(self)
    }

    fn normal_cdf_pdf(self) -> (Self, Self) {
        let cdf = 0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2);
        (cdf, libm::exp(-0.5 * self * self) * 0.398_942_280_401_432_7)
    }

    fn of(x: f64) -> Self {
        x
    }

    fn wide(self) -> f64 {
        self
    }
}

impl Elementary for f32 {
    /// Cephes' `expf`: argument reduction by ln 2 in two parts, a polynomial of degree 5.
    #[inline(always)]
    fn exp_fast(self) -> Self {
        let x = self.clamp(-87.336_54, 88.376_26);
        let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
        let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_2e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 0.166_666_65;
        let p = p * r + 0.5;
        let y = p * r * r + r + 1.0;
        y * Self::from_bits((((n as i32) + 127) << 23) as u32)
    }

    #[inline(always)]
    fn tanh_fast(self) -> Self {
        let e = (self.abs().min(9.1) * 2.0).exp_fast();
        (1.0 - 2.0 / (e + 1.0)).copysign(self)
    }

    /// Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
    #[inline(always)]
    fn normal_cdf_pdf(self) -> (Self, Self) {
        let z = self.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (0.327_591_1 * z + 1.0);
        let e = (-0.5 * self * self).exp_fast();
        let p = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
        let tail = 0.5 * p * e;
        let cdf = if self > 0.0 { 1.0 - tail } else { tail };
        (cdf, e * 0.398_942_3)
    }

    fn of(x: f64) -> Self {
        x as Self
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }
}

/// Sum of a row: eight lanes, combined in order.
#[inline(always)]
pub(super) fn row_sum<T: Elementary>(row: &[T], f: impl Fn(usize, T) -> T) -> T {
    let mut lanes = [T::zero(); 16];
    let chunks = row.chunks_exact(16);
    let tail = chunks.remainder();
    let start = row.len() - tail.len();
    for (c, chunk) in chunks.enumerate() {
        for (lane, (slot, &x)) in lanes.iter_mut().zip(chunk).enumerate() {
            *slot += f(c * 16 + lane, x);
        }
    }
    let mut sum = T::zero();
    for lane in lanes {
        sum += lane;
    }
    for (i, &x) in tail.iter().enumerate() {
        sum += f(start + i, x);
    }
    sum
}

/// Column sums of `f(row)` over `rows` rows of `width`: fixed blocks of rows in parallel, combined
/// in order. Scratch: one row of partial sums a block of [`SUM_ROWS`] rows.
pub(super) fn column_sums<T: Elementary>(rows: usize, width: usize, out: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    let blocks = rows.div_ceil(SUM_ROWS);
    if blocks <= 1 {
        out.fill(T::zero());
        for row in 0..rows {
            f(row, out);
        }
        return;
    }
    let mut partial = vec![T::zero(); blocks * width];
    partial.par_chunks_mut(width).enumerate().for_each(|(block, sums)| {
        for row in block * SUM_ROWS..((block + 1) * SUM_ROWS).min(rows) {
            f(row, sums);
        }
    });
    out.fill(T::zero());
    for sums in partial.chunks_exact(width) {
        for (o, s) in out.iter_mut().zip(sums) {
            *o += *s;
        }
    }
}

/// Rows of a block of [`column_sums`].
pub(super) const SUM_ROWS: usize = 64;

/// Scratch bytes of [`column_sums`].
pub(super) fn column_sums_scratch(rows: u64, width: u64, size: u64) -> u64 {
    let blocks = rows.div_ceil(SUM_ROWS as u64);
    if blocks <= 1 { 0 } else { blocks * width * size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_functions_are_accurate_to_single_precision() {
        for i in -4000..4000 {
            let x = i as f32 * 0.005;
            let e = (f64::from(x)).exp();
            assert!((f64::from(x.exp_fast()) - e).abs() <= 2e-7 * e, "exp {x}");
            assert!((f64::from(x.tanh_fast()) - f64::from(x).tanh()).abs() < 2e-7, "tanh {x}");
            let (cdf, pdf) = x.normal_cdf_pdf();
            let (c, p) = f64::from(x).normal_cdf_pdf();
            assert!((f64::from(cdf) - c).abs() < 3e-7 && (f64::from(pdf) - p).abs() < 3e-7, "normal {x}");
        }
    }
}
