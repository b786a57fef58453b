//! A matrix as it is stored and few rows of numbers: some vectors of columns of their product at a time.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use rayon::prelude::*;

use super::super::{Shared, few};
use super::avx2::{self, Avx2};
use super::avx512::{self, Avx512};
use super::formats::{Bf16, F32, Nf4, Q4_0, Q4_1, Q4K, Q5K, Q6K, Q8_0, Stored};
use super::vectors::Vectors;
use super::{DEPTH, InBlocks, Plain, ROWS, Source, Start, Strided};

/// Bytes that are fetched in advance, in each row.
const AHEAD: usize = 320;

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Avx512,
    Avx2,
}

impl Set {
    /// Those that the processor has, the best first.
    pub(super) fn here() -> impl Iterator<Item = Self> {
        let both = [
            (Self::Avx512, avx512::is_here()),
            (Self::Avx2, avx2::is_here()),
        ];
        both.into_iter()
            .filter_map(|(set, is_here)| is_here.then_some(set))
    }

    /// Rows of the matrix in a vector.
    const fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 => 8,
        }
    }
}

/// What the numbers are stored as.
#[derive(Clone, Copy, Debug)]
enum Kind {
    F32,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q4K,
    Q5K,
    Q6K,
    Nf4,
}

/// A matrix whose rows are columns of the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    kind: Kind,
    data: &'a [u8],
    /// The first row that is multiplied.
    first: usize,
    /// Columns of the product.
    columns: usize,
    /// Numbers of a row.
    width: usize,
    /// Blocks of a row.
    blocks: usize,
    /// Bytes of a block.
    bytes: usize,
    /// Blocks of a group, as a power of two, and the bytes that they share.
    group: (u32, usize),
}

impl<'a> Rows<'a> {
    /// A matrix in blocks, if its format is known here.
    pub(super) fn in_blocks((n, k): (usize, usize), of: InBlocks<'a>) -> Option<Self> {
        let rule = of.format.rule();
        let kind = match rule.name() {
            "q8_0" => Kind::Q8_0,
            "q4_0" => Kind::Q4_0,
            "q4_1" => Kind::Q4_1,
            "q4_k" => Kind::Q4K,
            "q5_k" => Kind::Q5K,
            "q6_k" => Kind::Q6K,
            "nf4" => Kind::Nf4,
            _ => return None,
        };
        let (numbers, group) = (rule.numbers(), rule.group());
        let all = ((of.first + n) * of.width) as u64;
        let fits = of.transposed
            && k == of.width
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

    /// A matrix of plain numbers, if it is transposed and its rows are whole vectors.
    pub(super) fn plain<B: Plain>((n, k): (usize, usize), of: Strided<'a, B>) -> Option<Self> {
        let (kind, numbers) = if B::IS_NARROW {
            (Kind::Bf16, 16)
        } else {
            (Kind::F32, 8)
        };
        let fits = of.row == 1
            && of.column == k
            && k.is_multiple_of(numbers)
            && n.checked_mul(k).is_some_and(|all| all <= of.data.len());
        fits.then(|| Self {
            kind,
            data: bytemuck::cast_slice(of.data),
            first: 0,
            columns: n,
            width: k,
            blocks: k / numbers,
            bytes: 32,
            group: (0, 0),
        })
    }

    /// Where block `i` is of the rows that begin with these. More of each is fetched in advance.
    #[inline(always)]
    pub(super) fn blocks<const L: usize>(&self, first: &[usize; L], i: usize) -> [*const u8; L] {
        let mut places = [self.data.as_ptr(); L];
        for (place, first) in places.iter_mut().zip(first) {
            let block = first + i;
            let at = block * self.bytes + ((block >> self.group.0) + 1) * self.group.1;
            *place = place.wrapping_add(at);
            // SAFETY: a hint reads nothing, so one beyond the end does no harm.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(AHEAD).cast()) };
        }
        places
    }

    /// What a block shares with others of its group.
    #[inline(always)]
    pub(super) fn head(&self, block: usize) -> &[u8] {
        let (shift, shared) = self.group;
        let place = (block >> shift) * ((self.bytes << shift) + shared);
        &self.data[place..place + shared]
    }

    /// The product with `m` rows, by an instruction set that the processor has.
    pub(super) fn multiply<S: Source<f32>>(
        &self,
        set: Set,
        m: usize,
        out: &mut [f32],
        (a, how): (Strided<'_, S>, (f32, Start<'_, f32>)),
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
        // As many vectors as hide how long a multiply-add takes, since the sum of a column is one chain of them.
        let vectors = match rows {
            1 => 4,
            2 | 4 => 2,
            _ => 1,
        };
        let group = |i: usize| {
            // SAFETY: the caller says that the instructions are there; groups are disjoint columns of the result, which
            // has `m` rows.
            unsafe {
                match (set, rows) {
                    (Set::Avx512, 1) => self.wide::<1, 4>(i, &x, &to),
                    (Set::Avx512, 2) => self.wide::<2, 2>(i, &x, &to),
                    (Set::Avx512, 4) => self.wide::<4, 2>(i, &x, &to),
                    (Set::Avx512, _) => self.wide::<ROWS, 1>(i, &x, &to),
                    (Set::Avx2, 1) => self.narrow::<1, 4>(i, &x, &to),
                    (Set::Avx2, 2) => self.narrow::<2, 2>(i, &x, &to),
                    (Set::Avx2, 4) => self.narrow::<4, 2>(i, &x, &to),
                    (Set::Avx2, _) => self.narrow::<ROWS, 1>(i, &x, &to),
                }
            }
        };
        let groups = n.div_ceil(vectors * set.lanes());
        if n * k > few::WORTH_SHARING && rayon::current_num_threads() > 1 {
            (0..groups).into_par_iter().for_each(group);
        } else {
            (0..groups).for_each(group);
        }
    }

    /// # Safety
    /// As of [`Self::group`].
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn wide<const M: usize, const C: usize>(&self, i: usize, x: &[f32], to: &To<'_>) {
        // SAFETY: passed on.
        unsafe { self.group::<Avx512, 16, M, C>(i, x, to) }
    }

    /// # Safety
    /// As of [`Self::group`].
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn narrow<const M: usize, const C: usize>(&self, i: usize, x: &[f32], to: &To<'_>) {
        // SAFETY: passed on.
        unsafe { self.group::<Avx2, 8, M, C>(i, x, to) }
    }

    /// Group `i` of `C` vectors of columns of the result, of `M` rows.
    ///
    /// # Safety
    /// The processor has the instructions, `x` has `M` rows, and the result those that `to` says.
    #[inline(always)]
    unsafe fn group<V: Vectors<L>, const L: usize, const M: usize, const C: usize>(
        &self,
        i: usize,
        x: &[f32],
        to: &To<'_>,
    ) {
        // SAFETY: passed on.
        unsafe {
            match self.kind {
                Kind::F32 => self.columns::<F32, V, L, M, C>(i, x, to),
                Kind::Bf16 => self.columns::<Bf16, V, L, M, C>(i, x, to),
                Kind::Q8_0 => self.columns::<Q8_0, V, L, M, C>(i, x, to),
                Kind::Q4_0 => self.columns::<Q4_0, V, L, M, C>(i, x, to),
                Kind::Q4_1 => self.columns::<Q4_1, V, L, M, C>(i, x, to),
                Kind::Q4K => self.columns::<Q4K, V, L, M, C>(i, x, to),
                Kind::Q5K => self.columns::<Q5K, V, L, M, C>(i, x, to),
                Kind::Q6K => self.columns::<Q6K, V, L, M, C>(i, x, to),
                Kind::Nf4 => self.columns::<Nf4, V, L, M, C>(i, x, to),
            }
        }
    }

    /// The same of numbers that are stored as `F`.
    ///
    /// # Safety
    /// As of [`Self::group`].
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "iterators over vectors are not compiled for the instruction set, and keep them in memory"
    )]
    unsafe fn columns<F, V, const L: usize, const M: usize, const C: usize>(
        &self,
        i: usize,
        x: &[f32],
        to: &To<'_>,
    ) where
        F: Stored<V, L>,
        V: Vectors<L>,
    {
        let (n, k) = (self.columns, self.width);
        let begin = i * C * L;
        // Columns beyond the last are that one once more, and are not written.
        let mut first = [[0; L]; C];
        for (lane, first) in first.as_flattened_mut().iter_mut().enumerate() {
            *first = (self.first + (begin + lane).min(n - 1)) * self.blocks;
        }
        assert!(x.len() == M * k);
        // SAFETY: passed on; the rows of the matrix and of `x` have `k` numbers.
        unsafe {
            for from in (0..k).step_by(DEPTH) {
                let mut sums = [[V::splat(0.0); C]; M];
                for from in (from..k.min(from + DEPTH)).step_by(F::NUMBERS) {
                    let mut states = [F::read(self, &first[0], from); C];
                    for c in 1..C {
                        states[c] = F::read(self, &first[c], from);
                    }
                    for four in 0..F::NUMBERS / 4 {
                        let x = x.as_ptr().add(from + 4 * four);
                        let mut weights = [F::four(&states[0], four); C];
                        for c in 1..C {
                            weights[c] = F::four(&states[c], four);
                        }
                        for j in 0..4 {
                            for row in 0..M {
                                let x = V::splat(*x.add(row * k + j));
                                for c in 0..C {
                                    sums[row][c] = V::fma(x, weights[c][j], sums[row][c]);
                                }
                            }
                        }
                    }
                }
                let start = if from > 0 { Start::Out } else { to.how.1 };
                for (row, sums) in sums.iter().enumerate().take(to.m) {
                    for (c, sum) in sums.iter().enumerate() {
                        to.put::<V, L>(*sum, (row, begin + c * L, n), start);
                    }
                }
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
    /// Writes a vector of a row of `n` columns, from one of them on; those that the result does not have are left out.
    ///
    /// # Safety
    /// The processor has the instructions, and the result has the row.
    #[inline(always)]
    unsafe fn put<V: Vectors<L>, const L: usize>(
        &self,
        sum: V::Floats,
        (row, column, n): (usize, usize, usize),
        start: Start<'_, f32>,
    ) {
        let mut numbers = [0.0; L];
        // SAFETY: passed on.
        unsafe { V::store(sum, &mut numbers) };
        let numbers = numbers.iter().take(n.saturating_sub(column));
        for (c, &x) in (column..).zip(numbers) {
            let y = self.how.0 * x;
            // SAFETY: the caller promises the row; the column is one of its.
            unsafe {
                let to = self.out.0.add(row * n + c);
                *to = match start {
                    Start::Zero => y,
                    Start::Out => y + *to,
                    Start::Row(bias) => y + bias[c],
                };
            }
        }
    }
}
