//! A matrix as it is stored and few rows of numbers: some vectors of columns of their product at a time.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use rayon::prelude::*;

use super::super::{Shared, few};
use super::avx2::{self, Avx2};
use super::avx512::{self, Avx512};
use super::formats::{Bf16, F32, Nf4, Q4_0, Q4_1, Q4K, Q5K, Q6K, Q8_0, Stored};
use super::vectors::Vectors;
use super::{DEPTH, InBlocks, Plain, ROWS, Source, Start, Strided};

/// Bytes of the next group that fit into the second-level cache beside the one that is read.
const FETCHED: usize = 192 << 10;
/// Bytes that are fetched in advance in each row where a group is larger.
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

/// Rows of the matrix side by side, one a lane, each as far from the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    /// Where the first one begins, if blocks share nothing.
    data: *const u8,
    /// The first one's first block.
    first: usize,
    /// Blocks from a row to the next: none where all lanes are the same row.
    blocks: usize,
    /// Bytes from a row to the next.
    bytes: usize,
}

impl Lanes {
    /// So many rows further.
    const fn behind(self, rows: usize) -> Self {
        Self {
            data: self.data.wrapping_add(rows * self.bytes),
            first: self.first + rows * self.blocks,
            ..self
        }
    }

    /// Block `i` of the row in a lane.
    pub(super) const fn block(&self, lane: usize, i: usize) -> usize {
        self.first + lane * self.blocks + i
    }
}

/// Columns of the product that are computed at once, one a lane.
#[derive(Clone, Copy, Debug)]
struct Columns {
    /// The first one.
    begin: usize,
    /// The first one that is written: those before it belong to another group.
    written: usize,
    /// The one behind the last.
    end: usize,
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

    /// Where block `i` of each row is, if blocks share nothing.
    #[inline(always)]
    pub(super) fn alone<const L: usize>(&self, lanes: &Lanes, i: usize) -> [*const u8; L] {
        let mut places = [lanes.data.wrapping_add(i * self.bytes); L];
        for (lane, place) in places.iter_mut().enumerate() {
            *place = place.wrapping_add(lane * lanes.bytes);
        }
        places
    }

    /// The same of blocks that share bytes with others of their group.
    #[inline(always)]
    pub(super) fn grouped<const L: usize>(&self, lanes: &Lanes, i: usize) -> [*const u8; L] {
        let mut places = [self.data.as_ptr(); L];
        for (lane, place) in places.iter_mut().enumerate() {
            let block = lanes.block(lane, i);
            let at = block * self.bytes + ((block >> self.group.0) + 1) * self.group.1;
            *place = place.wrapping_add(at);
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
        // As many vectors as hide how long a multiply-add takes, since the sum of a column is one chain of them. Without a
        // whole vector of columns, each is computed in all lanes.
        let vectors = match rows {
            1 => 4,
            2 | 4 => 2,
            _ => 1,
        };
        let lanes = set.lanes();
        let (vectors, wide) = match n {
            _ if n >= vectors * lanes => (vectors, vectors * lanes),
            _ if n >= lanes => (1, lanes),
            _ => (1, 1),
        };
        let group = |i: usize| {
            // The last group begins early enough to be whole.
            let columns = Columns {
                begin: (i * wide).min(n - wide),
                written: i * wide,
                end: n.min((i + 1) * wide),
            };
            // SAFETY: the caller says that the instructions are there; what groups write are disjoint columns of the
            // result, which has `m` rows.
            unsafe {
                match (set, rows, vectors) {
                    (Set::Avx512, 1, 4) => self.wide::<1, 4>(columns, &x, &to),
                    (Set::Avx512, 1, _) => self.wide::<1, 1>(columns, &x, &to),
                    (Set::Avx512, 2, 2) => self.wide::<2, 2>(columns, &x, &to),
                    (Set::Avx512, 2, _) => self.wide::<2, 1>(columns, &x, &to),
                    (Set::Avx512, 4, 2) => self.wide::<4, 2>(columns, &x, &to),
                    (Set::Avx512, 4, _) => self.wide::<4, 1>(columns, &x, &to),
                    (Set::Avx512, _, _) => self.wide::<ROWS, 1>(columns, &x, &to),
                    (Set::Avx2, 1, 4) => self.narrow::<1, 4>(columns, &x, &to),
                    (Set::Avx2, 1, _) => self.narrow::<1, 1>(columns, &x, &to),
                    (Set::Avx2, 2, 2) => self.narrow::<2, 2>(columns, &x, &to),
                    (Set::Avx2, 2, _) => self.narrow::<2, 1>(columns, &x, &to),
                    (Set::Avx2, 4, 2) => self.narrow::<4, 2>(columns, &x, &to),
                    (Set::Avx2, 4, _) => self.narrow::<4, 1>(columns, &x, &to),
                    (Set::Avx2, _, _) => self.narrow::<ROWS, 1>(columns, &x, &to),
                }
            }
        };
        let (groups, threads) = (n.div_ceil(wide), rayon::current_num_threads());
        if n * k > few::WORTH_SHARING && threads > 1 {
            // Groups side by side stay on a thread, which fetches the next one while it computes.
            let each = groups.div_ceil(2 * threads);
            let groups = (0..groups).into_par_iter().with_min_len(each);
            groups.for_each(group);
        } else {
            (0..groups).for_each(group);
        }
    }

    /// # Safety
    /// As of [`Self::group`].
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn wide<const M: usize, const C: usize>(
        &self,
        columns: Columns,
        x: &[f32],
        to: &To<'_>,
    ) {
        // SAFETY: passed on.
        unsafe { self.group::<Avx512, 16, M, C>(columns, x, to) }
    }

    /// # Safety
    /// As of [`Self::group`].
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn narrow<const M: usize, const C: usize>(
        &self,
        columns: Columns,
        x: &[f32],
        to: &To<'_>,
    ) {
        // SAFETY: passed on.
        unsafe { self.group::<Avx2, 8, M, C>(columns, x, to) }
    }

    /// `C` vectors of columns of the result, of `M` rows.
    ///
    /// # Safety
    /// The processor has the instructions, `x` has `M` rows, and the result those that `to` says.
    #[inline(always)]
    unsafe fn group<V: Vectors<L>, const L: usize, const M: usize, const C: usize>(
        &self,
        columns: Columns,
        x: &[f32],
        to: &To<'_>,
    ) {
        // SAFETY: passed on.
        unsafe {
            match self.kind {
                Kind::F32 => self.columns::<F32, V, L, M, C>(columns, x, to),
                Kind::Bf16 => self.columns::<Bf16, V, L, M, C>(columns, x, to),
                Kind::Q8_0 => self.columns::<Q8_0, V, L, M, C>(columns, x, to),
                Kind::Q4_0 => self.columns::<Q4_0, V, L, M, C>(columns, x, to),
                Kind::Q4_1 => self.columns::<Q4_1, V, L, M, C>(columns, x, to),
                Kind::Q4K => self.columns::<Q4K, V, L, M, C>(columns, x, to),
                Kind::Q5K => self.columns::<Q5K, V, L, M, C>(columns, x, to),
                Kind::Q6K => self.columns::<Q6K, V, L, M, C>(columns, x, to),
                Kind::Nf4 => self.columns::<Nf4, V, L, M, C>(columns, x, to),
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
        columns: Columns,
        x: &[f32],
        to: &To<'_>,
    ) where
        F: Stored<V, L>,
        V: Vectors<L>,
    {
        let (n, k) = (self.columns, self.width);
        let (row, same) = (self.first + columns.begin, columns.end - columns.begin < L);
        let lanes = Lanes {
            data: self
                .data
                .as_ptr()
                .wrapping_add(row * self.blocks * self.bytes),
            first: row * self.blocks,
            blocks: if same { 0 } else { self.blocks },
            bytes: if same { 0 } else { self.blocks * self.bytes },
        };
        let mut vectors = [lanes; C];
        for c in 1..C {
            vectors[c] = lanes.behind(c * L);
        }
        let next = Next::of::<L>(&vectors);
        assert!(x.len() == M * k);
        // SAFETY: passed on; the rows of the matrix and of `x` have `k` numbers.
        unsafe {
            for from in (0..k).step_by(DEPTH) {
                let mut sums = [[V::splat(0.0); C]; M];
                for from in (from..k.min(from + DEPTH)).step_by(F::NUMBERS) {
                    next.fetch::<L, C>(from / F::NUMBERS, F::BYTES);
                    let mut states = [F::read(self, &vectors[0], from); C];
                    for c in 1..C {
                        states[c] = F::read(self, &vectors[c], from);
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
                        to.put::<V, L>(*sum, (row, c * L, n), columns, start);
                    }
                }
            }
        }
    }
}

/// What is fetched while a group is read.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The next group, which begins here.
    Group(*const u8),
    /// More of the rows that begin here, so far from one to the next.
    Rows(*const u8, usize),
}

impl Next {
    /// Of a group of so many vectors of rows.
    #[inline(always)]
    fn of<const L: usize>(vectors: &[Lanes]) -> Self {
        let (lanes, all) = (vectors[0], vectors.len() * L * vectors[0].bytes);
        if all <= FETCHED {
            Self::Group(lanes.data.wrapping_add(all))
        } else {
            Self::Rows(lanes.data.wrapping_add(AHEAD), lanes.bytes)
        }
    }

    /// As much as step `i` reads of each of `C` vectors of rows: so many bytes. Where blocks share bytes, places are a little
    /// off, which a hint may be.
    #[inline(always)]
    fn fetch<const L: usize, const C: usize>(self, i: usize, bytes: usize) {
        // SAFETY: a hint reads nothing, so one beyond the end does no harm.
        unsafe {
            match self {
                Self::Group(data) => {
                    let data = data.wrapping_add(i * C * L * bytes);
                    for line in (0..C * L * bytes).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(data.wrapping_add(line).cast());
                    }
                }
                Self::Rows(data, apart) => {
                    for row in 0..C * L {
                        let data = data.wrapping_add(i * bytes + row * apart);
                        _mm_prefetch::<_MM_HINT_T0>(data.cast());
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
    /// Writes a vector of a row of `n` columns, which is so far behind the first of these; those that belong to others are left
    /// out.
    ///
    /// # Safety
    /// The processor has the instructions, and the result has the row.
    #[inline(always)]
    unsafe fn put<V: Vectors<L>, const L: usize>(
        &self,
        sum: V::Floats,
        (row, behind, n): (usize, usize, usize),
        columns: Columns,
        start: Start<'_, f32>,
    ) {
        let mut numbers = [0.0; L];
        // SAFETY: passed on.
        unsafe { V::store(sum, &mut numbers) };
        let first = columns.begin + behind;
        let from = columns.written.max(first);
        for c in from..columns.end.min(first + L) {
            let y = self.how.0 * numbers[c - first];
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
