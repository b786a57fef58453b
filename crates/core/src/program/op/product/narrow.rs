//! Products of operands rounded to bf16, summed in f32: what a recipe's `precision = bf16` asks for.
//!
//! Where the processor multiplies pairs of bf16 (AVX512-BF16), panels hold pairs of neighbours in depth, and
//! one instruction does what takes two in f32. Elsewhere the rounded numbers are multiplied in f32, which
//! differs in the order of a pair's sum alone.

use std::mem::MaybeUninit;

use super::full::Full;
use super::operand::Source;
use super::panels::{Lines, Side, pack};
use super::{Arithmetic, Set, Shape, Task};

/// `x` rounded to bf16, to even; the upper half of its bits. Finite numbers only become infinite where
/// bf16's rounding does.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN could round to infinity, so it keeps its upper half, made quiet.
    (if x.is_nan() { bits | 0x0040_0000 } else { even }) >> 16
}

/// Rounds as it packs and multiplies in f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounded<I: Copy>(pub Full<I, f32>);

impl<I: Set> Arithmetic for Rounded<I> {
    type Out = f32;
    type Packed = f32;
    const PER: usize = 1;

    fn shape(self) -> Shape {
        self.0.shape()
    }

    fn pack<S: Source<f32>>(
        self,
        panel: &mut [MaybeUninit<f32>],
        from: &Side<'_, S>,
        here: usize,
        lines: Lines,
    ) {
        pack(
            panel,
            from,
            here,
            lines,
            |x| f32::from_bits(rounded(x.read()) << 16),
            0.0,
        );
    }

    fn run(self, task: &Task<'_, Self>) {
        self.0.walk(task);
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use pairs::Pairs;

#[cfg(target_arch = "x86_64")]
mod pairs {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
        _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_or_si512,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
        _mm512_storeu_si512,
    };
    use std::mem::transmute;

    use super::super::{Each, Start, Tile};
    use super::*;

    /// Multiplies pairs of bf16.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) struct Pairs(());

    impl Pairs {
        /// Only where the processor has the instructions.
        pub fn try_new() -> Option<Self> {
            let has = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16");
            has.then_some(Self(()))
        }
    }

    const ROWS: usize = 14;
    const LANES: usize = 16;

    impl Arithmetic for Pairs {
        type Out = f32;
        type Packed = u32;
        const PER: usize = 2;

        fn shape(self) -> Shape {
            Shape {
                rows: ROWS,
                columns: 2 * LANES,
            }
        }

        fn pack<S: Source<f32>>(
            self,
            panel: &mut [MaybeUninit<u32>],
            from: &Side<'_, S>,
            here: usize,
            lines: Lines,
        ) {
            // SAFETY: `try_new` saw the instructions.
            unsafe { pack_pairs(panel, from, here, lines) }
        }

        fn run(self, task: &Task<'_, Self>) {
            task.tiles(self);
        }
    }

    impl Each<Self> for Pairs {
        #[inline(always)]
        fn tile(&self, tile: &Tile<'_, u32, f32>, rows: usize, both: bool) {
            // SAFETY: `try_new` saw the instructions; the task promises the panels' lines and the result's rows
            // and columns.
            unsafe {
                if both {
                    tiles::<2>(tile, rows);
                } else {
                    tiles::<1>(tile, rows);
                }
            }
        }
    }

    /// Elements `2p` and `2p + 1` of the depth side by side in line `p`; zero beyond an odd depth.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack_pairs<S: Source<f32>>(
        panel: &mut [MaybeUninit<u32>],
        from: &Side<'_, S>,
        here: usize,
        lines: Lines,
    ) {
        let Lines { width, depth } = lines;
        let data = from.data;
        assert!((depth - 1) * from.along + (here - 1) * from.across < data.len());
        assert!(panel.len() == depth.div_ceil(2) * width && here <= width);
        let to = panel.as_mut_ptr().cast::<u32>();
        let at = data.as_ptr();
        // SAFETY: rows or columns below `here` and depths below `depth` lie inside the operand, as was just
        // checked, and lines below half the depth, rounded up, inside the panel.
        unsafe {
            if from.across == 1 {
                for p in 0..depth / 2 {
                    let (low, high) =
                        (at.add(2 * p * from.along), at.add((2 * p + 1) * from.along));
                    interleave(low, Some(high), here, width, to.add(p * width));
                }
                if depth % 2 == 1 {
                    interleave(
                        at.add((depth - 1) * from.along),
                        None,
                        here,
                        width,
                        to.add(depth / 2 * width),
                    );
                }
                return;
            }
            // Rows of the operand, 32 elements of each at a time; the panel takes them as columns.
            for p in (0..depth).step_by(2 * LANES) {
                let count = (depth - p).min(2 * LANES);
                let mut i = 0;
                while i < here {
                    let rows = (here - i).min(4);
                    let mut block = [[0_u32; LANES]; 4];
                    for (r, row) in block.iter_mut().enumerate().take(rows) {
                        row_of_pairs(
                            at.add((i + r) * from.across + p * from.along),
                            from.along,
                            count,
                            row,
                        );
                    }
                    let lines = count.div_ceil(2);
                    let into = to.add(p / 2 * width + i);
                    if rows == 4 {
                        let [a, b, c, d] = &block;
                        for q in 0..lines {
                            let line = [a[q], b[q], c[q], d[q]];
                            into.add(q * width).cast::<[u32; 4]>().write_unaligned(line);
                        }
                    } else {
                        for q in 0..lines {
                            for (r, row) in block.iter().enumerate().take(rows) {
                                into.add(q * width + r).write(row[q]);
                            }
                        }
                    }
                    i += rows;
                }
            }
            if here < width {
                for p in 0..depth.div_ceil(2) {
                    for i in here..width {
                        to.add(p * width + i).write(0);
                    }
                }
            }
        }
    }

    /// `count` elements, `along` apart, as pairs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn row_of_pairs<S: Source<f32>>(
        from: *const S,
        along: usize,
        count: usize,
        to: &mut [u32; LANES],
    ) {
        // SAFETY: the caller promises the elements.
        unsafe {
            let mut wide = [0.0_f32; 2 * LANES];
            if along == 1 && count == 2 * LANES {
                for (q, x) in wide.iter_mut().enumerate() {
                    *x = (*from.add(q)).read();
                }
            } else {
                for (q, x) in wide.iter_mut().enumerate().take(count) {
                    *x = (*from.add(q * along)).read();
                }
            }
            let (low, high) = (
                _mm512_loadu_ps(wide.as_ptr()),
                _mm512_loadu_ps(wide.as_ptr().add(LANES)),
            );
            let pairs: __m512i = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }

    /// A line of pairs out of two lines of the operand, filled with zeros up to `width`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn interleave<S: Source<f32>>(
        low: *const S,
        high: Option<*const S>,
        here: usize,
        width: usize,
        to: *mut u32,
    ) {
        // SAFETY: the caller promises `here` elements of each line and `width` places.
        unsafe {
            let vector = |from: *const S, i: usize, count: usize| {
                let mut wide = [0.0_f32; LANES];
                if count == LANES {
                    for (q, x) in wide.iter_mut().enumerate() {
                        *x = (*from.add(i + q)).read();
                    }
                } else {
                    for (q, x) in wide.iter_mut().enumerate().take(count) {
                        *x = (*from.add(i + q)).read();
                    }
                }
                _mm512_cvtepu16_epi32(transmute::<
                    std::arch::x86_64::__m256bh,
                    std::arch::x86_64::__m256i,
                >(_mm512_cvtneps_pbh(_mm512_loadu_ps(
                    wide.as_ptr(),
                ))))
            };
            let mut i = 0;
            while i < width {
                let count = here.saturating_sub(i).min(LANES);
                let mut pairs = vector(low, i, count);
                if let Some(high) = high {
                    pairs = _mm512_or_si512(pairs, _mm512_slli_epi32::<16>(vector(high, i, count)));
                }
                if i + LANES <= width {
                    _mm512_storeu_si512(to.add(i).cast(), pairs);
                } else {
                    let pairs: [u32; LANES] = transmute(pairs);
                    for (q, x) in pairs.into_iter().enumerate().take(width - i) {
                        to.add(i + q).write(x);
                    }
                }
                i += LANES;
            }
        }
    }

    macro_rules! tiles {
        ($($R:literal)*) => {
            /// A tile of `rows` rows and `V` vectors.
            ///
            /// # Safety
            /// As a task promises; and the processor has the instructions.
            #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
            unsafe fn tiles<const V: usize>(x: &Tile<'_, u32, f32>, rows: usize) {
                // SAFETY: passed on.
                unsafe {
                    match rows {
                        $($R => tile::<$R, V>(x),)*
                        _ => unreachable!("a panel has at most fourteen rows"),
                    }
                }
            }

            #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
            unsafe fn tile<const R: usize, const V: usize>(x: &Tile<'_, u32, f32>) {
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                // SAFETY: the caller promises the panels' lines and the result's rows and columns.
                unsafe {
                    let (mut left, mut right) = (x.left, x.right);
                    for _ in 0..x.lines {
                        let line = [pairs(right), pairs(right.add((V - 1) * LANES))];
                        // Written out, since a loop that is not unrolled keeps its sums in memory.
                        $(if $R <= R {
                            let factor: __m512bh = transmute(_mm512_set1_epi32(left.add($R - 1).read().cast_signed()));
                            sums[$R - 1][0] = _mm512_dpbf16_ps(sums[$R - 1][0], factor, line[0]);
                            if V == 2 {
                                sums[$R - 1][1] = _mm512_dpbf16_ps(sums[$R - 1][1], factor, line[1]);
                            }
                        })*
                        left = left.add(R);
                        right = right.add(2 * LANES);
                    }
                    $(if $R <= R {
                        put(x, $R - 1, 0, sums[$R - 1][0]);
                        if V == 2 {
                            put(x, $R - 1, 1, sums[$R - 1][1]);
                        }
                    })*
                }
            }
        };
    }
    tiles!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn pairs(from: *const u32) -> __m512bh {
        // SAFETY: the caller promises a vector.
        unsafe { transmute(_mm512_loadu_si512(from.cast())) }
    }

    /// Writes vector `v` of row `r`, as far as the result has columns.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn put(x: &Tile<'_, u32, f32>, r: usize, v: usize, sums: __m512) {
        let columns = x.columns.saturating_sub(v * LANES).min(LANES);
        let mask = ((1_u32 << columns) - 1) as u16;
        // SAFETY: the mask leaves out what the result, and so the bias, does not have.
        unsafe {
            let to = x.out.add(r * x.stride + v * LANES);
            let y = _mm512_mul_ps(_mm512_set1_ps(x.alpha), sums);
            let y = match x.start {
                Start::Zero => y,
                Start::Out => _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, to)),
                Start::Row(bias) => _mm512_add_ps(
                    y,
                    _mm512_maskz_loadu_ps(mask, bias.as_ptr().wrapping_add(v * LANES)),
                ),
            };
            _mm512_mask_storeu_ps(to, mask, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{product_by, product_of_rounded};
    use super::*;
    use crate::program::op::tile::Strided;

    #[test]
    fn rounding_is_bf16s() {
        for bits in (0..u32::MAX).step_by(65_537 / 3) {
            let x = f32::from_bits(bits);
            let want = half::bf16::from_f32(x);
            assert!(
                rounded(x) == u32::from(want.to_bits()) || x.is_nan(),
                "{x:e}"
            );
        }
    }

    #[test]
    fn products_of_rounded_operands_are_right_in_all_shapes_and_layouts() {
        let number =
            |i: usize, by: u32| ((i as u32).wrapping_mul(by) >> 9 & 255) as f32 * 0.037 - 4.1;
        let exact = |x: f32| f64::from(f32::from_bits(rounded(x) << 16));
        let shapes = [
            (1, 1, 1),
            (3, 5, 2),
            (14, 32, 31),
            (15, 33, 64),
            (29, 47, 257),
            (40, 16, 300),
            (130, 70, 513),
        ];
        for (m, n, k) in shapes {
            let a: Vec<f32> = (0..m * k).map(|i| number(i, 2_654_435_761)).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i, 40_503 << 9)).collect();
            let stored: Vec<half::bf16> = b.iter().map(|&x| half::bf16::from_f32(x)).collect();
            let c: Vec<f32> = (0..m * n).map(|i| number(i, 97 << 9)).collect();
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                let (ar, ac) = if a_t { (1, m) } else { (k, 1) };
                let (br, bc) = if b_t { (1, k) } else { (n, 1) };
                let left = Strided {
                    data: &a[..],
                    row: ar,
                    column: ac,
                };
                let right = Strided {
                    data: &b[..],
                    row: br,
                    column: bc,
                };
                let mut out = c.clone();
                product_of_rounded(
                    (m, n, k),
                    &mut out,
                    left,
                    right,
                    0.5,
                    super::super::Start::Out,
                );
                let mut same = c.clone();
                let narrow = Strided {
                    data: &stored[..],
                    row: br,
                    column: bc,
                };
                product_of_rounded(
                    (m, n, k),
                    &mut same,
                    left,
                    narrow,
                    0.5,
                    super::super::Start::Out,
                );
                assert_eq!(out, same, "stored in bf16: {m}×{n}×{k}");
                let mut plain = c.clone();
                let by = Rounded(Full::on(pulp::Arch::new()));
                product_by(
                    by,
                    (m, n, k),
                    &mut plain,
                    left,
                    right,
                    0.5,
                    super::super::Start::Out,
                );
                for (r, q) in (0..m).flat_map(|r| (0..n).map(move |q| (r, q))) {
                    let terms =
                        (0..k).map(|p| exact(a[r * ar + p * ac]) * exact(b[p * br + q * bc]));
                    let (sum, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
                    let want = 0.5 * sum + f64::from(c[r * n + q]);
                    for got in [out[r * n + q], plain[r * n + q]] {
                        assert!(
                            (f64::from(got) - want).abs() <= 1e-6 * (size + 1.0),
                            "{m}×{n}×{k} {a_t} {b_t} at {r}, {q}: {got} {want}"
                        );
                    }
                }
            }
        }
    }
}
