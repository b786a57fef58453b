//! Products of matrices small enough to stay in the first-level cache, as attention needs them: on
//! one thread, without packing or allocation.
//!
//! An element is one chain of fused multiply-adds in the order of the inner dimension, however the
//! matrices are cut, so it does not depend on its neighbours.

use super::math::Elementary;

/// A matrix read element by element: `(r, c)` is `data[r · row + c · column]`.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a, T> {
    /// Elements.
    pub data: &'a [T],
    /// From a row to the next.
    pub row: usize,
    /// From a column to the next.
    pub column: usize,
}

/// Rows of a matrix whose elements lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    /// Elements.
    pub data: &'a [T],
    /// From a row to the next.
    pub row: usize,
}

/// Whether the result is added to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// It replaces it.
    Set,
    /// It is added.
    Add,
}

/// The three matrices of a product and its sizes `m`, `n`, `k`.
#[derive(Debug)]
pub struct Product<'a, T> {
    sizes: (usize, usize, usize),
    out: &'a mut [T],
    stride: usize,
    a: Strided<'a, T>,
    b: Rows<'a, T>,
    into: Into,
}

/// `out[m, n] = a[m, k] · b[k, n]` (`+ out`), with `out` of row stride `stride`.
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn multiply<T: Elementary>(
    (m, n, k): (usize, usize, usize),
    out: &mut [T],
    stride: usize,
    a: Strided<'_, T>,
    b: Rows<'_, T>,
    into: Into,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let reach = |rows: usize, columns: usize, row: usize, column: usize| {
        (rows - 1) * row + (columns - 1) * column
    };
    assert!(
        reach(m, n, stride, 1) < out.len()
            && reach(m, k, a.row, a.column) < a.data.len()
            && reach(k, n, b.row, 1) < b.data.len()
    );
    pulp::Arch::new().dispatch(Product {
        sizes: (m, n, k),
        out,
        stride,
        a,
        b,
        into,
    });
}

impl<T: Elementary> pulp::WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let m = self.sizes.0;
        let mut row = 0;
        while row + 4 <= m {
            T::rows::<S, 4>(simd, &mut self, row);
            row += 4;
        }
        if row + 2 <= m {
            T::rows::<S, 2>(simd, &mut self, row);
            row += 2;
        }
        if row < m {
            T::rows::<S, 1>(simd, &mut self, row);
        }
    }
}

/// The inner loops, by element type.
pub trait Tiled: Sized {
    /// `R` rows of a product.
    fn rows<S: pulp::Simd, const R: usize>(simd: S, product: &mut Product<'_, Self>, row: usize);
}

macro_rules! tiled {
    ($T:ty, $vector:ident, $lanes:ident, $splat:ident, $fma:ident, $load:ident, $store:ident) => {
        impl Tiled for $T {
            #[inline(always)]
            #[expect(
                clippy::too_many_lines,
                reason = "one loop, whose tiles are kept in registers"
            )]
            fn rows<S: pulp::Simd, const R: usize>(simd: S, x: &mut Product<'_, Self>, row: usize) {
                let n = x.sizes.1;
                let mut column = 0;
                while column + 2 * S::$lanes <= n {
                    whole::<S, R, 2>(simd, x, row, column);
                    column += 2 * S::$lanes;
                }
                if column + S::$lanes <= n {
                    whole::<S, R, 1>(simd, x, row, column);
                    column += S::$lanes;
                }
                if column < n {
                    part::<S, R>(simd, x, row, column);
                }

                /// `R` rows of `V` vectors, held in registers.
                #[inline(always)]
                #[expect(
                    unsafe_code,
                    reason = "bounds checks in the inner loop cost more than its arithmetic"
                )]
                fn whole<S: pulp::Simd, const R: usize, const V: usize>(
                    simd: S,
                    x: &mut Product<'_, $T>,
                    row: usize,
                    column: usize,
                ) {
                    let mut acc = [[simd.$splat(0.0); V]; R];
                    // SAFETY: `multiply` checked that the last element asked for of each matrix
                    // lies inside it; `row + R` and `column + V` vectors do not pass its sizes.
                    unsafe {
                        let out = x.out.as_mut_ptr().add(row * x.stride + column);
                        if x.into == Into::Add {
                            for r in 0..R {
                                for v in 0..V {
                                    acc[r][v] = out
                                        .add(r * x.stride + v * S::$lanes)
                                        .cast::<S::$vector>()
                                        .read_unaligned();
                                }
                            }
                        }
                        for i in 0..x.sizes.2 {
                            let b =
                                x.b.data
                                    .as_ptr()
                                    .add(i * x.b.row + column)
                                    .cast::<S::$vector>();
                            let right: [S::$vector; V] =
                                std::array::from_fn(|v| b.add(v).read_unaligned());
                            for r in 0..R {
                                let left = simd.$splat(
                                    *x.a.data.get_unchecked((row + r) * x.a.row + i * x.a.column),
                                );
                                for v in 0..V {
                                    acc[r][v] = simd.$fma(left, right[v], acc[r][v]);
                                }
                            }
                        }
                        for r in 0..R {
                            for v in 0..V {
                                out.add(r * x.stride + v * S::$lanes)
                                    .cast::<S::$vector>()
                                    .write_unaligned(acc[r][v]);
                            }
                        }
                    }
                }

                /// `R` rows of the last columns, less than a vector.
                #[inline(always)]
                fn part<S: pulp::Simd, const R: usize>(
                    simd: S,
                    x: &mut Product<'_, $T>,
                    row: usize,
                    column: usize,
                ) {
                    let width = x.sizes.1 - column;
                    let mut acc = [simd.$splat(0.0); R];
                    if x.into == Into::Add {
                        for (r, acc) in acc.iter_mut().enumerate() {
                            *acc = simd.$load(&x.out[(row + r) * x.stride + column..][..width]);
                        }
                    }
                    for i in 0..x.sizes.2 {
                        let right = simd.$load(&x.b.data[i * x.b.row + column..][..width]);
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let left = simd.$splat(x.a.data[(row + r) * x.a.row + i * x.a.column]);
                            *acc = simd.$fma(left, right, *acc);
                        }
                    }
                    for (r, acc) in acc.into_iter().enumerate() {
                        simd.$store(&mut x.out[(row + r) * x.stride + column..][..width], acc);
                    }
                }
            }
        }
    };
}
tiled!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    mul_add_f32s,
    partial_load_f32s,
    partial_store_f32s
);
tiled!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    mul_add_f64s,
    partial_load_f64s,
    partial_store_f64s
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_all_small_shapes_are_right() {
        for (m, n, k) in
            (1..8).flat_map(|m| [1, 7, 8, 9, 16, 31, 33, 65].map(|n| (m, n, m + n % 5)))
        {
            let a: Vec<f64> = (0..m * k)
                .map(|i| f64::from((i * 7 % 11) as u32) - 5.0)
                .collect();
            let b: Vec<f64> = (0..k * (n + 3))
                .map(|i| f64::from((i * 5 % 13) as u32) - 6.0)
                .collect();
            let mut out = vec![1.0; m * (n + 2)];
            for (step, into) in [Into::Set, Into::Add].into_iter().enumerate() {
                let left = Strided {
                    data: &a,
                    row: 1,
                    column: m,
                };
                multiply(
                    (m, n, k),
                    &mut out,
                    n + 2,
                    left,
                    Rows {
                        data: &b,
                        row: n + 3,
                    },
                    into,
                );
                for (r, c) in (0..m).flat_map(|r| (0..n).map(move |c| (r, c))) {
                    let want: f64 = (0..k).map(|i| a[r + i * m] * b[i * (n + 3) + c]).sum();
                    assert_eq!(
                        out[r * (n + 2) + c],
                        want * (step + 1) as f64,
                        "{m}×{n}×{k} at {r},{c}"
                    );
                }
            }
        }
    }
}
