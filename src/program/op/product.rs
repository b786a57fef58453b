//! Products of matrices of any size, on all threads of the pool: the linear layers.
//!
//! The usual scheme (Goto and van de Geijn 2008): both operands are copied into panels that the inner
//! loop reads in order, [`DEPTH`] deep; a tile of the result as large as the registers is summed over
//! that depth before it is touched. Scratch is the panels alone and depends on the sizes alone.
//!
//! An element is, for each block of [`DEPTH`], one chain of fused multiply-adds in order of depth.
//! Neither the tile nor the number of threads changes its bits.
#![expect(
    unsafe_code,
    reason = "bounds checks in the inner loop cost more than its arithmetic; threads share one result"
)]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::math::Elementary;
use super::tile::Strided;

/// Depth of a block. A panel of the right operand then just fills the first-level cache.
const DEPTH: usize = 256;
/// Rows, and columns, of the result that are packed at a time.
const SPAN: usize = 2048;
/// Rows of a task: whole panels for either height of a register tile, together in half a second-level cache.
const TASK_ROWS: usize = 126;
/// Columns of a task.
const TASK_COLUMNS: usize = 256;
/// Every panel of the right operand has a width that divides this, whatever the instruction set.
const WIDEST: usize = 32;
/// Multiply-adds below which handing work to other threads costs more than it saves.
const WORTH_SHARING: usize = 1 << 22;

/// What the product is added to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a, T> {
    /// Nothing.
    Zero,
    /// A row vector, on every row.
    Row(&'a [T]),
    /// What the result holds.
    Out,
}

/// Bytes of scratch of a product with elements of `size` bytes.
pub(super) fn scratch(m: u64, n: u64, k: u64, size: u64) -> u64 {
    let (span, wide) = (SPAN as u64, WIDEST as u64);
    k.min(DEPTH as u64) * (m.min(span) + n.min(span).next_multiple_of(wide)) * size
}

/// `out[m, n] = alpha · a[m, k] · b[k, n] + start`, `out` dense.
///
/// # Panics
/// If a matrix reaches beyond its elements (a bug).
pub(super) fn product<T: Elementary>(
    (m, n, k): (usize, usize, usize),
    out: &mut [T],
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    alpha: T,
    start: Start<'_, T>,
) {
    product_on(pulp::Arch::new(), (m, n, k), out, a, b, alpha, start);
}

/// An instruction set to run on.
trait Set: Copy + Sync {
    fn run<W: pulp::WithSimd>(self, work: W) -> W::Output;
}

impl Set for pulp::Arch {
    fn run<W: pulp::WithSimd>(self, work: W) -> W::Output {
        self.dispatch(work)
    }
}

fn product_on<T: Elementary>(
    set: impl Set,
    (m, n, k): (usize, usize, usize),
    out: &mut [T],
    a: Strided<'_, T>,
    b: Strided<'_, T>,
    alpha: T,
    start: Start<'_, T>,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(out.len() == m * n);
    if let Start::Row(row) = start {
        assert!(row.len() == n);
    }
    if k == 0 {
        match start {
            Start::Zero => out.fill(T::zero()),
            Start::Row(row) => out
                .chunks_exact_mut(n)
                .for_each(|out| out.copy_from_slice(row)),
            Start::Out => {}
        }
        return;
    }
    let reach = |rows: usize, columns: usize, x: &Strided<'_, T>| {
        (rows - 1) * x.row + (columns - 1) * x.column
    };
    assert!(reach(m, k, &a) < a.data.len() && reach(k, n, &b) < b.data.len());
    let shared = m * n * k > WORTH_SHARING && rayon::current_num_threads() > 1;
    let registers = set.run(Registers::<T>(std::marker::PhantomData));
    let depth = k.min(DEPTH);
    let mut left = Panels::new(depth * m.min(SPAN), registers.rows);
    let mut right = Panels::new(
        depth * n.min(SPAN).next_multiple_of(WIDEST),
        registers.columns,
    );
    let out = Shared(out.as_mut_ptr());
    for column in (0..n).step_by(SPAN) {
        let columns = SPAN.min(n - column);
        for from in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - from);
            for row in (0..m).step_by(SPAN) {
                let rows = SPAN.min(m - row);
                let mut pack_left =
                    || left.pack(Side::along(&a, row, from), rows, depth, false, shared);
                let mut pack_right =
                    || right.pack(Side::across(&b, from, column), columns, depth, true, shared);
                match (row > 0, shared) {
                    (true, _) => pack_left(),
                    (false, true) => drop(rayon::join(pack_left, pack_right)),
                    (false, false) => {
                        pack_left();
                        pack_right();
                    }
                }
                let start = match start {
                    _ if from > 0 => Start::Out,
                    Start::Row(bias) => Start::Row(&bias[column..column + columns]),
                    other => other,
                };
                let block = Block {
                    sizes: (rows, columns, depth),
                    left: &left,
                    right: &right,
                    // SAFETY: `row` and `column` lie inside the result.
                    out: Shared(unsafe { out.0.add(row * n + column) }),
                    stride: n,
                    alpha,
                    start,
                };
                block.run(set, shared);
            }
        }
    }
}

/// A pointer that threads write disjoint tiles through.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: tasks write disjoint rows and columns, and the slice behind it outlives them.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// An operand from one of its elements on, in terms of the panels: `(i, p)` is at `i · across + p · along`.
struct Side<'a, T> {
    data: &'a [T],
    across: usize,
    along: usize,
}

impl<'a, T> Side<'a, T> {
    /// The left operand: panels lie across its rows.
    fn along(x: &Strided<'a, T>, row: usize, column: usize) -> Self {
        let data = &x.data[row * x.row + column * x.column..];
        Self {
            data,
            across: x.row,
            along: x.column,
        }
    }

    /// The right operand: panels lie across its columns.
    fn across(x: &Strided<'a, T>, row: usize, column: usize) -> Self {
        let data = &x.data[row * x.row + column * x.column..];
        Self {
            data,
            across: x.column,
            along: x.row,
        }
    }
}

/// Panels of `width` rows of the left (columns of the right) operand; a panel holds, one depth after
/// another, its elements of that depth side by side.
struct Panels<T> {
    data: Vec<MaybeUninit<T>>,
    width: usize,
}

impl<T: Elementary> Panels<T> {
    fn new(elements: usize, width: usize) -> Self {
        let mut data = Vec::with_capacity(elements);
        // SAFETY: uninitialised elements are what the type says, and that many were reserved.
        unsafe { data.set_len(elements) };
        Self { data, width }
    }

    /// Copies `count` rows or columns, `depth` deep. `padded` panels are whole, filled with zeros.
    fn pack(&mut self, from: Side<'_, T>, count: usize, depth: usize, padded: bool, shared: bool) {
        let width = self.width;
        let total = if padded {
            count.next_multiple_of(width)
        } else {
            count
        };
        let data = &mut self.data[..total * depth];
        let one = |(i, panel): (usize, &mut [MaybeUninit<T>])| {
            let here = width.min(count - i * width);
            pack(panel, &from, i * width, here, panel.len() / depth);
        };
        if shared && count * depth > 1 << 14 {
            data.par_chunks_mut(width * depth).enumerate().for_each(one);
        } else {
            data.chunks_mut(width * depth).enumerate().for_each(one);
        }
    }

    /// The panel that begins with row or column `first`.
    fn panel(&self, first: usize, depth: usize) -> *const T {
        self.data[first * depth..].as_ptr().cast()
    }
}

/// One panel: `here` rows or columns from `first` on, in a width of `width`.
fn pack<T: Elementary>(
    panel: &mut [MaybeUninit<T>],
    from: &Side<'_, T>,
    first: usize,
    here: usize,
    width: usize,
) {
    let data = &from.data[first * from.across..];
    if from.across == 1 {
        for (p, line) in panel.chunks_exact_mut(width).enumerate() {
            let source = &data[p * from.along..][..here];
            for (to, &x) in line.iter_mut().zip(source) {
                to.write(x);
            }
            for to in &mut line[here..] {
                to.write(T::zero());
            }
        }
        return;
    }
    // Blocks, so that the lines read and those written stay in the first-level cache.
    const BLOCK: usize = 16;
    let depth = panel.len() / width;
    assert!((depth - 1) * from.along + (here - 1) * from.across < data.len());
    for p in (0..depth).step_by(BLOCK) {
        let count = BLOCK.min(depth - p);
        let mut i = 0;
        // SAFETY: the last element read was just checked; the panel is `depth` lines of `width`.
        unsafe {
            if from.along == 1 && count == BLOCK {
                while i + 4 <= here {
                    let source = data.as_ptr().add(i * from.across + p);
                    let to = panel.as_mut_ptr().add(p * width + i).cast::<T>();
                    for q in (0..BLOCK).step_by(4) {
                        transpose(source.add(q), from.across, to.add(q * width), width);
                    }
                    i += 4;
                }
            }
            for i in i..here {
                let source = data.as_ptr().add(i * from.across + p * from.along);
                let to = panel.as_mut_ptr().add(p * width + i).cast::<T>();
                for q in 0..count {
                    to.add(q * width).write(*source.add(q * from.along));
                }
            }
        }
    }
    if here < width {
        for line in panel.chunks_exact_mut(width) {
            for to in &mut line[here..] {
                to.write(T::zero());
            }
        }
    }
}

/// Four rows of four elements, transposed in registers.
///
/// # Safety
/// Both places hold four rows of four elements, at the given distances.
#[inline(always)]
unsafe fn transpose<T: Copy>(from: *const T, row: usize, to: *mut T, line: usize) {
    // SAFETY: the caller promises it.
    unsafe {
        let rows: [[T; 4]; 4] = std::array::from_fn(|r| from.add(r * row).cast::<[T; 4]>().read());
        let columns: [[T; 4]; 4] = std::array::from_fn(|q| rows.map(|row| row[q]));
        for (q, column) in columns.into_iter().enumerate() {
            to.add(q * line).cast::<[T; 4]>().write(column);
        }
    }
}

/// A packed block of a product and the part of the result it belongs to.
struct Block<'a, T> {
    sizes: (usize, usize, usize),
    left: &'a Panels<T>,
    right: &'a Panels<T>,
    out: Shared<T>,
    stride: usize,
    alpha: T,
    start: Start<'a, T>,
}

impl<T: Elementary> Block<'_, T> {
    /// Cuts the block into tasks. How does not change a bit of the result.
    fn run(&self, set: impl Set, shared: bool) {
        let (m, n, _) = self.sizes;
        let (height, width) = (self.left.width, self.right.width);
        let (mut rows, mut columns) = (TASK_ROWS, TASK_COLUMNS);
        if shared {
            let wanted = 8 * rayon::current_num_threads();
            while m.div_ceil(rows) * n.div_ceil(columns) < wanted {
                if columns > 2 * width {
                    columns /= 2;
                } else if rows > height {
                    rows = (rows / height).div_ceil(2) * height;
                } else {
                    break;
                }
            }
        }
        let down = m.div_ceil(rows);
        let task = |i: usize| {
            let (row, column) = (i % down * rows, i / down * columns);
            let task = Task {
                block: self,
                rows: row..m.min(row + rows),
                columns: column..n.min(column + columns),
            };
            set.run(task);
        };
        let tasks = down * n.div_ceil(columns);
        if shared {
            (0..tasks).into_par_iter().with_max_len(1).for_each(task);
        } else {
            (0..tasks).for_each(task);
        }
    }
}

/// The rows and columns of a block that one thread does.
struct Task<'a, T> {
    block: &'a Block<'a, T>,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl<T: Elementary> pulp::WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let block = self.block;
        let depth = block.sizes.2;
        let (height, width) = (block.left.width, block.right.width);
        for column in self.columns.clone().step_by(width) {
            for row in self.rows.clone().step_by(height) {
                let columns = width.min(self.columns.end - column);
                let tile = Tile {
                    depth,
                    left: block.left.panel(row, depth),
                    right: block.right.panel(column, depth),
                    // SAFETY: the row and the column lie inside the result.
                    out: unsafe { block.out.0.add(row * block.stride + column) },
                    stride: block.stride,
                    columns,
                    alpha: block.alpha,
                    start: match block.start {
                        Start::Row(bias) => Start::Row(&bias[column..column + columns]),
                        other => other,
                    },
                };
                let rows = height.min(self.rows.end - row);
                // SAFETY: the panels hold `depth` lines, and the result has these rows and columns.
                unsafe { T::tiles(simd, &tile, rows, 2 * columns > width) };
            }
        }
    }
}

/// A tile of the result and the two panels it is the product of.
pub struct Tile<'a, T> {
    depth: usize,
    left: *const T,
    right: *const T,
    out: *mut T,
    stride: usize,
    columns: usize,
    alpha: T,
    start: Start<'a, T>,
}

/// Rows and columns of a register tile.
struct Shape {
    rows: usize,
    columns: usize,
}

struct Registers<T>(std::marker::PhantomData<T>);

impl<T: Elementary> pulp::WithSimd for Registers<T> {
    type Output = Shape;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Shape {
        Shape {
            rows: height::<S>(),
            columns: 2 * T::lanes::<S>(),
        }
    }
}

/// Rows of a tile: two vectors a row, two for the right operand and one for the left.
const fn height<S: pulp::Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 14 } else { 6 }
}

/// The inner loop, by element type.
pub trait Multiplied: Sized {
    /// Elements of a vector.
    fn lanes<S: pulp::Simd>() -> usize;

    /// A tile of `rows` rows and of two vectors (one, unless `both`).
    ///
    /// # Safety
    /// The panels hold `depth` lines of `rows` and of two vectors; `out` has `rows` rows of `columns`
    /// columns, which are at most the vectors'.
    unsafe fn tiles<S: pulp::Simd>(simd: S, x: &Tile<'_, Self>, rows: usize, both: bool);
}

macro_rules! multiplied {
    ($T:ty, $vector:ident, $lanes:ident, $splat:ident, $fma:ident, $mul:ident, $add:ident; $($R:literal)*) => {
        impl Multiplied for $T {
            #[inline(always)]
            fn lanes<S: pulp::Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            unsafe fn tiles<S: pulp::Simd>(simd: S, x: &Tile<'_, Self>, rows: usize, both: bool) {
                // SAFETY: passed on.
                unsafe {
                    match (rows, both) {
                        $(($R, true) => tile::<S, $R, 2>(simd, x),
                        ($R, false) => tile::<S, $R, 1>(simd, x),)*
                        _ => unreachable!("a panel has at most fourteen rows"),
                    }
                }

                #[inline(always)]
                unsafe fn tile<S: pulp::Simd, const R: usize, const V: usize>(simd: S, x: &Tile<'_, $T>) {
                    if R > height::<S>() {
                        return;
                    }
                    let mut sums = [[simd.$splat(0.0); 2]; 14];
                    // SAFETY: the caller promises the panels' lines and the result's rows and columns.
                    unsafe {
                        let (mut left, mut right) = (x.left, x.right.cast::<S::$vector>());
                        for _ in 0..x.depth {
                            let line = [right.read_unaligned(), right.add(V - 1).read_unaligned()];
                            // Written out, since a loop that is not unrolled keeps its sums in memory.
                            $(if $R <= R {
                                let factor = simd.$splat(*left.add($R - 1));
                                sums[$R - 1][0] = simd.$fma(factor, line[0], sums[$R - 1][0]);
                                if V == 2 {
                                    sums[$R - 1][1] = simd.$fma(factor, line[1], sums[$R - 1][1]);
                                }
                            })*
                            left = left.add(R);
                            right = right.add(2);
                        }
                        let alpha = simd.$splat(x.alpha);
                        if x.columns == V * S::$lanes {
                            $(if $R <= R {
                                let to = x.out.add(($R - 1) * x.stride).cast::<S::$vector>();
                                put(simd, x, to, 0, simd.$mul(alpha, sums[$R - 1][0]));
                                if V == 2 {
                                    put(simd, x, to, 1, simd.$mul(alpha, sums[$R - 1][1]));
                                }
                            })*
                            return;
                        }
                        // No loop over the sums here either: indexing them would keep them in memory.
                        $(if $R <= R {
                            part::<S>(x, $R - 1, sums[$R - 1]);
                        })*
                    }
                }

                /// Writes a row that is not a whole number of vectors.
                unsafe fn part<S: pulp::Simd>(x: &Tile<'_, $T>, r: usize, sums: [S::$vector; 2]) {
                    let mut row = [0.0; WIDEST];
                    // SAFETY: two vectors are at most the widest panel; the caller promises the row and its columns.
                    unsafe {
                        row.as_mut_ptr().cast::<[S::$vector; 2]>().write_unaligned(sums);
                        for (c, sum) in row.into_iter().take(x.columns).enumerate() {
                            let to = x.out.add(r * x.stride + c);
                            *to = match x.start {
                                Start::Zero => x.alpha * sum,
                                Start::Out => x.alpha * sum + *to,
                                Start::Row(bias) => x.alpha * sum + bias[c],
                            };
                        }
                    }
                }

                /// Writes vector `v` of a row.
                #[inline(always)]
                unsafe fn put<S: pulp::Simd>(simd: S, x: &Tile<'_, $T>, row: *mut S::$vector, v: usize, y: S::$vector) {
                    // SAFETY: the caller promises that the result, and so the bias, has these columns.
                    unsafe {
                        let to = row.add(v);
                        to.write_unaligned(match x.start {
                            Start::Zero => y,
                            Start::Out => simd.$add(y, to.read_unaligned()),
                            Start::Row(bias) => {
                                simd.$add(y, bias.as_ptr().cast::<S::$vector>().add(v).read_unaligned())
                            }
                        });
                    }
                }
            }
        }
    };
}
multiplied!(f32, f32s, F32_LANES, splat_f32s, mul_add_f32s, mul_f32s, add_f32s; 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
multiplied!(f64, f64s, F64_LANES, splat_f64s, mul_add_f64s, mul_f64s, add_f64s; 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n: usize, by: u32) -> Vec<f64> {
        (0..n as u32)
            .map(|i| f64::from(i.wrapping_mul(by) >> 7 & 15) - 7.0)
            .collect()
    }

    #[test]
    fn products_of_all_shapes_layouts_and_starts_are_right() {
        let sizes = [1, 2, 6, 7, 13, 15, 29, 33, 127];
        let shapes = sizes
            .into_iter()
            .flat_map(|m| sizes.into_iter().map(move |n| (m, n, (m * 5 + n) % 9 + 1)));
        let long = [
            (3, 5, 700),
            (130, 270, 257),
            (2050, 3, 4),
            (2, 2081, 300),
            (5, 4, 0),
        ];
        for (m, n, k) in shapes.chain(long) {
            let (a, b, c) = (
                matrix(m * k, 2_654_435_761),
                matrix(k * n, 40_503),
                matrix(m * n, 97),
            );
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                let left = Strided {
                    data: &a,
                    row: if a_t { 1 } else { k },
                    column: if a_t { m } else { 1 },
                };
                let right = Strided {
                    data: &b,
                    row: if b_t { 1 } else { n },
                    column: if b_t { k } else { 1 },
                };
                for start in 0..3 {
                    let bias = &c[..n];
                    let mut out = c.clone();
                    let kind = [Start::Zero, Start::Out, Start::Row(bias)][start];
                    product((m, n, k), &mut out, left, right, 0.5, kind);
                    for (r, q) in (0..m).flat_map(|r| (0..n).map(move |q| (r, q))) {
                        let sum: f64 = (0..k)
                            .map(|p| {
                                a[r * left.row + p * left.column]
                                    * b[p * right.row + q * right.column]
                            })
                            .sum();
                        let want = 0.5 * sum + [0.0, c[r * n + q], bias[q]][start];
                        assert_eq!(
                            out[r * n + q],
                            want,
                            "{m}×{n}×{k} {a_t} {b_t} {start} at {r}, {q}"
                        );
                    }
                }
            }
        }
    }

    #[derive(Clone, Copy)]
    struct Only<S>(S);

    impl<S: pulp::Simd> Set for Only<S> {
        fn run<W: pulp::WithSimd>(self, work: W) -> W::Output {
            self.0.vectorize(work)
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for (m, n, k) in [(1, 1, 1), (7, 33, 5), (15, 17, 300), (40, 70, 31)] {
            let single = |n: usize, by| {
                matrix(n, by)
                    .iter()
                    .map(|&x| x as f32 * 0.137)
                    .collect::<Vec<f32>>()
            };
            let (a, b, bias) = (
                single(m * k, 2_654_435_761),
                single(k * n, 40_503),
                single(n, 97),
            );
            let left = Strided {
                data: &a[..],
                row: k,
                column: 1,
            };
            let right = Strided {
                data: &b[..],
                row: 1,
                column: k,
            };
            let mut best = vec![0.0; m * n];
            product((m, n, k), &mut best, left, right, 0.3, Start::Row(&bias));
            let mut plain = vec![0.0; m * n];
            product_on(
                Only(pulp::Scalar),
                (m, n, k),
                &mut plain,
                left,
                right,
                0.3,
                Start::Row(&bias),
            );
            assert_eq!(best, plain, "{m}×{n}×{k}");
            #[cfg(target_arch = "x86_64")]
            if let Some(v3) = pulp::x86::V3::try_new() {
                let mut v3s = vec![0.0; m * n];
                product_on(
                    Only(v3),
                    (m, n, k),
                    &mut v3s,
                    left,
                    right,
                    0.3,
                    Start::Row(&bias),
                );
                assert_eq!(best, v3s, "{m}×{n}×{k}");
            }
        }
    }

    #[test]
    fn scratch_is_what_is_packed() {
        assert_eq!(scratch(416, 768, 768, 4), 256 * (416 + 768) * 4);
        assert_eq!(scratch(1, 2, 3, 4), 3 * (1 + 32) * 4);
        assert_eq!(scratch(10_000, 30_000, 768, 4), 256 * 4096 * 4);
    }
}
