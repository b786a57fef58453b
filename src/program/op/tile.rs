//! Products of matrices small enough to stay in the first-level cache, as attention needs them: on
//! one thread, without packing or allocation.
//!
//! An element is one chain of fused multiply-adds in the order of the inner dimension, however the
//! matrices are cut, so it does not depend on its neighbours.

use super::math::{Elementary, simd};

/// A matrix read element by element: `(r, c)` is `data[r · row + c · column]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strided<'a, T> {
    pub data: &'a [T],
    pub row: usize,
    pub column: usize,
}

/// Rows of a matrix whose elements lie side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a, T> {
    pub data: &'a [T],
    pub row: usize,
}

/// Whether the result is added to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Into {
    /// It replaces it.
    Set,
    /// It is added.
    Add,
}

/// `out[m, n] = a[m, k] · b[k, n]` (`+ out`), with `out` of row stride `stride`.
pub(super) fn multiply<T: Elementary>((m, n, k): (usize, usize, usize), out: &mut [T], stride: usize, a: Strided<'_, T>, b: Rows<'_, T>, into: Into) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let reach = |rows: usize, columns: usize, row: usize, column: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(reach(m, n, stride, 1) < out.len() && reach(m, k, a.row, a.column) < a.data.len() && reach(k, n, b.row, 1) < b.data.len());
    simd!(<T> (m: usize = m, n: usize = n, k: usize = k, out: &'a mut [T] = out, stride: usize = stride, a: Strided<'a, T> = a, b: Rows<'a, T> = b, into: Into = into) {
        let mut row = 0;
        while row + 4 <= m {
            columns::<T, 4>(row, n, k, out, stride, a, b, into);
            row += 4;
        }
        if row + 2 <= m {
            columns::<T, 2>(row, n, k, out, stride, a, b, into);
            row += 2;
        }
        if row < m {
            columns::<T, 1>(row, n, k, out, stride, a, b, into);
        }
    });
}

/// `R` rows of the result.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "an inlined part of one loop nest")]
fn columns<T: Elementary, const R: usize>(row: usize, n: usize, k: usize, out: &mut [T], stride: usize, a: Strided<'_, T>, b: Rows<'_, T>, into: Into) {
    let mut column = 0;
    while column + 32 <= n {
        block::<T, R, 32>((row, column), k, out, stride, a, b, into);
        column += 32;
    }
    if column + 16 <= n {
        block::<T, R, 16>((row, column), k, out, stride, a, b, into);
        column += 16;
    }
    if column + 8 <= n {
        block::<T, R, 8>((row, column), k, out, stride, a, b, into);
        column += 8;
    }
    while column < n {
        block::<T, R, 1>((row, column), k, out, stride, a, b, into);
        column += 1;
    }
}

/// A block of `R × C` results, held in registers.
#[inline(always)]
fn block<T: Elementary, const R: usize, const C: usize>((row, column): (usize, usize), k: usize, out: &mut [T], stride: usize, a: Strided<'_, T>, b: Rows<'_, T>, into: Into) {
    let mut acc = [[T::zero(); C]; R];
    if into == Into::Add {
        for (r, acc) in acc.iter_mut().enumerate() {
            acc.copy_from_slice(&out[(row + r) * stride + column..][..C]);
        }
    }
    for i in 0..k {
        // SAFETY: `multiply` checked that the last element each matrix is asked for is inside.
        #[expect(unsafe_code, reason = "two bounds checks an iteration cost more than the arithmetic")]
        let (x, left) = unsafe {
            let x = &*b.data.as_ptr().add(i * b.row + column).cast::<[T; C]>();
            let left: [T; R] = std::array::from_fn(|r| *a.data.get_unchecked((row + r) * a.row + i * a.column));
            (x, left)
        };
        for (acc, left) in acc.iter_mut().zip(left) {
            for (acc, &x) in acc.iter_mut().zip(x) {
                *acc = left.mul_add(x, *acc);
            }
        }
    }
    for (r, acc) in acc.iter().enumerate() {
        out[(row + r) * stride + column..][..C].copy_from_slice(acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_all_small_shapes_are_right() {
        for (m, n, k) in (1..8).flat_map(|m| [1, 7, 8, 9, 16, 31, 33, 65].map(|n| (m, n, m + n % 5))) {
            let a: Vec<f64> = (0..m * k).map(|i| f64::from((i * 7 % 11) as u32) - 5.0).collect();
            let b: Vec<f64> = (0..k * (n + 3)).map(|i| f64::from((i * 5 % 13) as u32) - 6.0).collect();
            let mut out = vec![1.0; m * (n + 2)];
            for (step, into) in [Into::Set, Into::Add].into_iter().enumerate() {
                let left = Strided { data: &a, row: 1, column: m };
                multiply((m, n, k), &mut out, n + 2, left, Rows { data: &b, row: n + 3 }, into);
                for (r, c) in (0..m).flat_map(|r| (0..n).map(move |c| (r, c))) {
                    let want: f64 = (0..k).map(|i| a[r + i * m] * b[i * (n + 3) + c]).sum();
                    assert_eq!(out[r * (n + 2) + c], want * (step + 1) as f64, "{m}×{n}×{k} at {r},{c}");
                }
            }
        }
    }
}
