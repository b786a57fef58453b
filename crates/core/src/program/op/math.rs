//! Vectorisable elementary functions and loops that several kernels share.
//!
//! Results are the same bits at any thread count and with any instruction set: chunks have a fixed
//! size, sums are combined in index order, and no multiplication is fused into an addition.

use std::ops::Range;

use rayon::prelude::*;

use super::tensor::{Compute, Io};

/// Elements of a parallel chunk.
pub(super) const CHUNK: usize = 8192;

/// Runs a loop compiled for the best instruction set the processor has:
/// `simd!(<T> (name: type = value, …) -> R { body })`, with lifetime `'a` for borrowed operands.
///
/// It is a macro, not a function of a closure, because the body must be inlined into the function
/// that has the instruction set switched on, and closures cannot be made to.
macro_rules! simd {
    (<$T:ident> ($($name:ident: $ty:ty = $value:expr),* $(,)?) $body:block) => {
        $crate::program::op::math::simd!(<$T> ($($name: $ty = $value),*) -> () $body)
    };
    (<$T:ident> ($($name:ident: $ty:ty = $value:expr),* $(,)?) -> $R:ty $body:block) => {{
        struct Loop<'a, $T> {
            $($name: $ty,)*
            of: std::marker::PhantomData<&'a $T>,
        }
        impl<'a, $T: $crate::program::op::math::Elementary> pulp::WithSimd for Loop<'a, $T> {
            type Output = $R;
            #[inline(always)]
            fn with_simd<Simd: pulp::Simd>(self, _: Simd) -> $R {
                let Self { $($name,)* of: _ } = self;
                $body
            }
        }
        pulp::Arch::new().dispatch(Loop::<'_, $T> { $($name: $value,)* of: std::marker::PhantomData })
    }};
}
pub(super) use simd;

/// Calls `f(start, chunk)` for fixed chunks of `out`, in parallel where it pays.
pub(super) fn for_chunks<T: Send>(out: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    if out.len() <= 2 * CHUNK {
        f(0, out);
    } else {
        out.par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(i, chunk)| f(i * CHUNK, chunk));
    }
}

/// Calls `f(first row, rows)` for fixed blocks of whole rows, in parallel where it pays.
pub(super) fn for_chunks_of_rows<T: Send>(
    out: &mut [T],
    width: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = (CHUNK / width.max(1)).max(1);
    if width == 0 {
        return;
    }
    if out.len() <= 2 * CHUNK {
        f(0, out);
    } else {
        out.par_chunks_mut(rows * width)
            .enumerate()
            .for_each(|(i, chunk)| f(i * rows, chunk));
    }
}

/// Calls `f(a, b)` for blocks of an op with two operands of one shape, where `a` is the output and holds operand 0,
/// and `b` is operand 1: whichever of them the output has taken over.
pub(super) fn for_operands<T: Elementary>(io: &mut Io<'_>, f: impl Fn(&mut [T], &[T]) + Sync) {
    const BLOCK: usize = 512;
    let taken = io.taken;
    let a = (taken != Some(0)).then(|| io.input(0).slice::<T>());
    let b = (taken != Some(1)).then(|| io.input(1).slice::<T>());
    for_chunks(io.outputs[0].slice::<T>(), |start, out| {
        let Some(b) = b else {
            // The two swap places, a block at a time.
            let mut block = [T::default(); BLOCK];
            for (i, out) in out.chunks_mut(BLOCK).enumerate() {
                let block = &mut block[..out.len()];
                block.copy_from_slice(out);
                if let Some(a) = a {
                    out.copy_from_slice(part(a, start + i * BLOCK, out.len()));
                }
                f(out, block);
            }
            return;
        };
        if let Some(a) = a {
            out.copy_from_slice(part(a, start, out.len()));
        }
        f(out, part(b, start, out.len()));
    });
}

/// The sub-slice `start .. start + len`.
#[inline(always)]
pub(super) fn part<T>(x: &[T], start: usize, len: usize) -> &[T] {
    &x[start..start + len]
}

/// Functions whose f32 versions are polynomials without branches.
pub trait Elementary:
    Compute + super::tile::Tiled + super::product::Multiplied + super::product::Source<Self>
{
    /// `eˣ`
    fn exp_fast(self) -> Self;
    /// `ln x`
    fn log_fast(self) -> Self;
    /// `tanh x`
    fn tanh_fast(self) -> Self;
    /// `(sin x, cos x)`
    fn sin_cos_fast(self) -> (Self, Self);
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

    fn log_fast(self) -> Self {
        libm::log(self)
    }

    fn tanh_fast(self) -> Self {
        libm::tanh(self)
    }

    fn sin_cos_fast(self) -> (Self, Self) {
        libm::sincos(self)
    }

    fn normal_cdf_pdf(self) -> (Self, Self) {
        let cdf = 0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2);
        (cdf, libm::exp(-0.5 * self * self) * 0.398_942_280_401_432_7)
    }

    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

impl Elementary for f32 {
    /// Cephes' `expf`: argument reduction by ln 2 in two parts, a polynomial of degree 5. Adding
    /// 1.5·2²³ rounds to an integer, which is then in the low bits.
    #[inline(always)]
    fn exp_fast(self) -> Self {
        const ROUND: f32 = 12_582_912.0 + 127.0;
        let x = self.clamp(-87.336_54, 88.37);
        let z = x * std::f32::consts::LOG2_E + ROUND;
        let n = z - ROUND;
        let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_2e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 0.166_666_65;
        let p = p * r + 0.5;
        let y = p * r * r + r + 1.0;
        y * Self::from_bits(z.to_bits() << 23)
    }

    /// Cephes' `logf`: the exponent, and a polynomial of degree 8 for the rest, which is between √½ and √2.
    #[inline(always)]
    fn log_fast(self) -> Self {
        let is_tiny = self < Self::MIN_POSITIVE;
        let x = if is_tiny { self * 8_388_608.0 } else { self };
        let exponent = x.to_bits().wrapping_sub(0x3f35_04f3).cast_signed() >> 23;
        let m = Self::from_bits(x.to_bits().wrapping_sub((exponent as u32) << 23)) - 1.0;
        let n = exponent as Self - if is_tiny { 23.0 } else { 0.0 };
        let z = m * m;
        let p = 7.037_683_6e-2;
        let p = p * m - 1.151_461e-1;
        let p = p * m + 1.167_699_9e-1;
        let p = p * m - 1.242_014_1e-1;
        let p = p * m + 1.424_932_3e-1;
        let p = p * m - 1.666_805_8e-1;
        let p = p * m + 2.000_071_5e-1;
        let p = p * m - 2.499_999_4e-1;
        let p = p * m + 3.333_333e-1;
        let y = p * m * z + n * -2.121_944_4e-4 - 0.5 * z;
        let y = m + y + n * 0.693_359_4;
        let y = if self < Self::INFINITY { y } else { self };
        let y = if self < 0.0 { Self::NAN } else { y };
        if self == 0.0 { Self::NEG_INFINITY } else { y }
    }

    /// Cephes' `tanhf`: an odd polynomial near zero, the exponential elsewhere.
    #[inline(always)]
    fn tanh_fast(self) -> Self {
        let a = self.abs();
        let e = (if a > 9.1 { 9.1 } else { a } * 2.0).exp_fast();
        let far = (1.0 - 2.0 / (e + 1.0)).copysign(self);
        let s = self * self;
        let p = -5.704_988_7e-3;
        let p = p * s + 2.063_908_9e-2;
        let p = p * s - 5.373_971_6e-2;
        let p = p * s + 0.133_314_42;
        let p = p * s - 0.333_332_82;
        let near = p * s * self + self;
        if a < 0.625 { near } else { far }
    }

    /// Cephes' polynomials of `sin` and `cos` in f64, for the rest of a division by π/2, which is taken off in two
    /// parts. Rounded once to f32; below 2²⁰ the error before is under 10⁻⁹. Adding 1.5·2⁵² rounds to an integer,
    /// which is then in the low bits.
    #[inline(always)]
    fn sin_cos_fast(self) -> (Self, Self) {
        const ROUND: f64 = 6_755_399_441_055_744.0;
        let x = f64::from(self);
        let z = x * std::f64::consts::FRAC_2_PI + ROUND;
        let n = z - ROUND;
        let r = x - n * 1.570_796_326_734_125_6 - n * 6.077_100_506_506_192e-11;
        let s = r * r;
        let p = 1.589_623_015_765_465_7e-10;
        let p = p * s - 2.505_074_776_285_780_7e-8;
        let p = p * s + 2.755_731_362_138_572_5e-6;
        let p = p * s - 1.984_126_982_958_954e-4;
        let p = p * s + 8.333_333_333_322_118e-3;
        let p = p * s - 0.166_666_666_666_666_3;
        let sine = p * s * r + r;
        let q = -1.135_853_652_138_768_2e-11;
        let q = q * s + 2.087_570_084_197_473_2e-9;
        let q = q * s - 2.755_731_417_929_674e-7;
        let q = q * s + 2.480_158_728_885_170_5e-5;
        let q = q * s - 1.388_888_888_887_305_6e-3;
        let q = q * s + 4.166_666_666_666_659e-2;
        let cosine = q * s * s - 0.5 * s + 1.0;
        let quarter = z.to_bits();
        let swapped = quarter & 1 == 1;
        let (a, b) = if swapped {
            (cosine, sine)
        } else {
            (sine, cosine)
        };
        let a = f64::from_bits(a.to_bits() ^ (quarter & 2) << 62);
        let b = f64::from_bits(b.to_bits() ^ (quarter.wrapping_add(1) & 2) << 62);
        (a as Self, b as Self)
    }

    /// Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
    #[inline(always)]
    fn normal_cdf_pdf(self) -> (Self, Self) {
        let z = self.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (0.327_591_1 * z + 1.0);
        let e = (-0.5 * self * self).exp_fast();
        let p = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t
            + 0.254_829_6)
            * t;
        let tail = 0.5 * p * e;
        let cdf = if self > 0.0 { 1.0 - tail } else { tail };
        (cdf, e * 0.398_942_3)
    }

    #[inline(always)]
    fn of(x: f64) -> Self {
        x as Self
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

/// Lanes of a row's reduction: enough to hide the latency of an addition.
const LANES: usize = 64;

/// Sum of `f` over a row: lanes, combined in a fixed order.
#[inline(always)]
pub(super) fn row_sum<T: Elementary>(row: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    fold_lanes(lanes)
}

/// Sum of `f` over two rows of one length.
#[inline(always)]
pub(super) fn row_sum_of_two<T: Elementary>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::zero(); LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = left.remainder().iter().zip(right.remainder());
    for (a, b) in left.zip(right) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(tail) {
        *lane += f(a, b);
    }
    fold_lanes(lanes)
}

/// Applies `f` to a row of whole blocks of sixteen; a short row keeps its vectors so.
#[inline(always)]
pub(super) fn by_sixteen<T: Elementary>(row: &mut [T], f: impl Fn(T) -> T) {
    for block in row.as_chunks_mut::<16>().0 {
        for x in block {
            *x = f(*x);
        }
    }
}

/// `eˣ` of every element, in place.
pub(super) fn exp_all<T: Elementary>(row: &mut [T]) {
    simd!(<T> (row: &'a mut [T] = row) {
        for x in row {
            *x = x.exp_fast();
        }
    });
}

/// Largest element of a row; a NaN may be passed over.
#[inline(always)]
pub(super) fn row_max<T: Elementary>(row: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    for chunk in row.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes
        .into_iter()
        .fold(T::neg_infinity(), |max, x| if x > max { x } else { max })
}

/// The larger of two; what is no number stays, whichever it is.
#[inline(always)]
pub(super) fn highest<T: Elementary>(a: T, b: T) -> T {
    if a >= b || a.is_nan() { a } else { b }
}

/// Largest element of a row; no number if an element is none.
#[inline(always)]
pub(super) fn row_highest<T: Elementary>(row: &[T]) -> T {
    let mut lanes = [T::neg_infinity(); LANES];
    for chunk in row.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = highest(*lane, x);
        }
    }
    lanes.into_iter().fold(T::neg_infinity(), highest)
}

#[inline(always)]
fn fold_lanes<T: Elementary>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Column sums over `rows` rows of `width`: `f(rows, sums)` adds the given rows to `sums`. Fixed
/// blocks of rows in parallel, combined in order. Scratch: one row of partial sums a block of
/// [`SUM_ROWS`] rows.
pub(super) fn column_sums<T: Elementary>(
    rows: usize,
    width: usize,
    out: &mut [T],
    f: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    column_fold((rows, width), out, T::zero(), add_to, f);
}

/// The same of any reduction: `f` folds rows into what is `start` before, and `combine` a block's result into that
/// of the blocks before it.
pub(super) fn column_fold<T: Elementary>(
    (rows, width): (usize, usize),
    out: &mut [T],
    start: T,
    combine: fn(&mut [T], &[T]),
    f: impl Fn(Range<usize>, &mut [T]) + Sync,
) {
    let blocks = rows.div_ceil(SUM_ROWS);
    out.fill(start);
    if blocks <= 1 {
        f(0..rows, out);
        return;
    }
    let mut partial = vec![start; blocks * width];
    let one = |(block, sums): (usize, &mut [T])| {
        f(block * SUM_ROWS..((block + 1) * SUM_ROWS).min(rows), sums)
    };
    if rows * width <= 2 * CHUNK {
        partial.chunks_mut(width).enumerate().for_each(one);
    } else {
        partial.par_chunks_mut(width).enumerate().for_each(one);
    }
    for sums in partial.chunks_exact(width) {
        combine(out, sums);
    }
}

/// `out += x`
pub(super) fn add_to<T: Elementary>(out: &mut [T], x: &[T]) {
    simd!(<T> (out: &'a mut [T] = out, x: &'a [T] = x) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o += x;
        }
    });
}

/// Rows of a block of [`column_sums`].
pub(super) const SUM_ROWS: usize = 64;

/// Scratch bytes of [`column_sums`].
pub(super) fn column_sums_scratch(rows: u64, width: u64, size: u64) -> u64 {
    let blocks = rows.div_ceil(SUM_ROWS as u64);
    if blocks <= 1 {
        0
    } else {
        blocks * width * size
    }
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
            let t = f64::from(x).tanh();
            assert!(
                (f64::from(x.tanh_fast()) - t).abs() <= 2e-7 * t.abs(),
                "tanh {x}"
            );
            let (cdf, pdf) = x.normal_cdf_pdf();
            let (c, p) = f64::from(x).normal_cdf_pdf();
            assert!(
                (f64::from(cdf) - c).abs() < 3e-7 && (f64::from(pdf) - p).abs() < 3e-7,
                "normal {x}"
            );
        }
        for i in -149..128 {
            for part in 0..1000 {
                let x = 2.0_f32.powi(i.max(-126)) * 2.0_f32.powi(i - i.max(-126));
                let x = x * (1.0 + part as f32 * 1e-3);
                let l = f64::from(x).ln();
                assert!(
                    (f64::from(x.log_fast()) - l).abs() <= 2e-7 * l.abs(),
                    "log {x}"
                );
            }
        }
        for i in -200_000..200_000 {
            let x = i as f32 * 0.013 * if i % 2 == 0 { 1.0 } else { 300.0 };
            let ((s, c), (sine, cosine)) = (x.sin_cos_fast(), f64::from(x).sin_cos());
            assert!(
                (f64::from(s) - sine).abs() < 3.1e-8 && (f64::from(c) - cosine).abs() < 3.1e-8,
                "sine and cosine of {x}"
            );
        }
        assert!(
            f32::NAN.exp_fast().is_nan()
                && f32::NAN.sin_cos_fast().0.is_nan()
                && f32::INFINITY.sin_cos_fast().1.is_nan()
                && f32::NAN.tanh_fast().is_nan()
                && f32::NAN.normal_cdf_pdf().0.is_nan()
        );
    }
}
