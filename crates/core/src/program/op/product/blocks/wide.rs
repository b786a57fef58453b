//! A matrix in blocks and few rows of numbers, two vectors of columns at a time.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_ps, _mm512_setzero_ps,
};

use rayon::prelude::*;

use super::super::{Shared, few};
use super::lanes::{LANES, Lanes};
use super::{DEPTH, InBlocks, ROWS, Source, Start, Strided};

/// Whether the processor has the instructions.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// How the blocks of a format are decoded.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Q8_0,
    Q4_0,
    Q4_1,
    Q4K,
    Q6K,
    Nf4,
}

/// Goes over a depth in steps of some numbers, with both vectors of columns.
macro_rules! steps {
    ($step:ident, $numbers:literal, $depth:expr, $x:expr, $k:expr, $lanes:expr, $sums:expr) => {
        for from in $depth.step_by($numbers) {
            let own = |row: usize| $x[row * $k + from..].first_chunk::<$numbers>();
            let mut rows = [&[0.0; $numbers]; M];
            for (row, to) in rows.iter_mut().enumerate() {
                *to = own(row).unwrap_or(&[0.0; $numbers]);
            }
            for (own, sums) in $lanes.iter().zip(&mut $sums) {
                own.$step(from, rows, sums);
            }
        }
    };
}
/// A matrix in blocks whose rows are columns of the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    kind: Kind,
    pub data: &'a [u8],
    /// The first row that is multiplied.
    first: usize,
    /// Columns of the product.
    columns: usize,
    /// Numbers of a row.
    width: usize,
    /// Blocks of a row.
    blocks: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// Blocks of a group, as a power of two, and the bytes that they share.
    pub group: (u32, usize),
}

impl<'a> Rows<'a> {
    pub(super) fn new((n, k): (usize, usize), of: InBlocks<'a>) -> Option<Self> {
        let rule = of.format.rule();
        let kind = match rule.name() {
            "q8_0" => Kind::Q8_0,
            "q4_0" => Kind::Q4_0,
            "q4_1" => Kind::Q4_1,
            "q4_k" => Kind::Q4K,
            "q6_k" => Kind::Q6K,
            "nf4" => Kind::Nf4,
            _ => return None,
        };
        let (numbers, group) = (rule.numbers(), rule.group());
        let all = ((of.first + n) * of.width) as u64;
        let fits = k == of.width
            && k.is_multiple_of(numbers)
            && group.blocks.is_power_of_two()
            && of.format.bytes(all) <= of.data.len() as u64;
        fits.then_some(Self {
            kind,
            data: of.data,
            first: of.first,
            columns: n,
            width: k,
            blocks: k / numbers,
            bytes: rule.bytes(),
            group: (group.blocks.trailing_zeros(), group.head),
        })
    }

    pub(super) fn multiply<S: Source<f32>>(
        &self,
        m: usize,
        out: &mut [f32],
        a: Strided<'_, S>,
        how: (f32, Start<'_, f32>),
    ) {
        let (n, k) = (self.columns, self.width);
        assert!(out.len() == m * n);
        if let Start::Row(row) = how.1 {
            assert!(row.len() == n);
        }
        // Rows that are missing to one of the numbers of rows below are zeros.
        let rows = [1, 2, 4, ROWS].into_iter().find(|&rows| m <= rows);
        let rows = rows.unwrap_or(ROWS);
        let mut x = vec![0.0; rows * k];
        for (row, x) in x.chunks_exact_mut(k).enumerate().take(m) {
            for (p, x) in x.iter_mut().enumerate() {
                *x = a.data[row * a.row + p * a.column].read();
            }
        }
        let to = To {
            out: Shared(out.as_mut_ptr()),
            m,
            how,
        };
        let group = |i: usize| {
            // SAFETY: `is_here` saw the instructions; groups are disjoint columns of the result, which has `m` rows.
            unsafe {
                match rows {
                    1 => self.group::<1>(i, &x, &to),
                    2 => self.group::<2>(i, &x, &to),
                    4 => self.group::<4>(i, &x, &to),
                    _ => self.group::<ROWS>(i, &x, &to),
                }
            }
        };
        let groups = n.div_ceil(2 * LANES);
        if n * k > few::WORTH_SHARING && rayon::current_num_threads() > 1 {
            (0..groups).into_par_iter().for_each(group);
        } else {
            (0..groups).for_each(group);
        }
    }

    /// Two vectors of columns of the result, of `M` rows.
    ///
    /// # Safety
    /// The processor has the instructions, and the result has the rows that `to` says.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn group<const M: usize>(&self, i: usize, x: &[f32], to: &To<'_>) {
        let (n, k) = (self.columns, self.width);
        let vectors = [2 * i, 2 * i + 1].map(|v| v * LANES);
        // Columns beyond the last are that one once more, and are not written.
        let lanes = vectors.map(|from| Lanes {
            of: self,
            first: std::array::from_fn(|lane| {
                (self.first + (from + lane).min(n - 1)) * self.blocks
            }),
        });
        for from in (0..k).step_by(DEPTH) {
            let end = k.min(from + DEPTH);
            let mut sums = [[_mm512_setzero_ps(); M]; 2];
            match self.kind {
                Kind::Q8_0 => steps!(q8_0, 32, from..end, x, k, lanes, sums),
                Kind::Q4_0 => steps!(q4_0, 32, from..end, x, k, lanes, sums),
                Kind::Q4_1 => steps!(q4_1, 32, from..end, x, k, lanes, sums),
                Kind::Q6K => steps!(q6_k, 128, from..end, x, k, lanes, sums),
                Kind::Q4K => steps!(q4_k, 64, from..end, x, k, lanes, sums),
                Kind::Nf4 => steps!(nf4, 64, from..end, x, k, lanes, sums),
            }
            let start = if from > 0 { Start::Out } else { to.how.1 };
            for (at, sums) in vectors.into_iter().zip(&sums) {
                // SAFETY: passed on.
                unsafe { to.put(sums, (at, n), start) };
            }
        }
    }
}

/// Where the result goes, of how many rows, and what it is added to.
struct To<'a> {
    out: Shared<f32>,
    m: usize,
    how: (f32, Start<'a, f32>),
}

impl To<'_> {
    /// Writes a vector of each row.
    ///
    /// # Safety
    /// The result has the rows, of `n` columns.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn put(&self, sums: &[__m512], (at, n): (usize, usize), start: Start<'_, f32>) {
        let here = n.saturating_sub(at).min(LANES);
        let mask = ((1_u32 << here) - 1) as u16;
        for (row, sum) in sums.iter().enumerate().take(self.m) {
            let to = self.out.0.wrapping_add(row * n + at);
            let y = _mm512_mul_ps(_mm512_set1_ps(self.how.0), *sum);
            // SAFETY: the mask leaves out what the result, and so the bias, does not have.
            unsafe {
                let y = match start {
                    Start::Zero => y,
                    Start::Out => _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, to)),
                    Start::Row(bias) => {
                        let bias = bias.as_ptr().wrapping_add(at);
                        _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, bias))
                    }
                };
                _mm512_mask_storeu_ps(to, mask, y);
            }
        }
    }
}
