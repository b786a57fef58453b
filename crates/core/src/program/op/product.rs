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

use super::math::Elementary;
use super::tile::Strided;
use full::Full;
use panels::{Lines, Panels, Part, Side};
use stored::Plain;
use tasks::{Block, Each, Shape, Shared, Task, Tile};

mod few;
mod full;
mod narrow;
mod operand;
mod panels;
mod stored;
mod tasks;

pub use full::Multiplied;
pub use operand::{InBlocks, Operand, Source};

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

/// Most rows of a product whose scratch is not that of larger ones.
pub const FEW_ROWS: u64 = few::ROWS as u64;

/// Bytes of scratch of a product with elements of `size` bytes in its panels.
pub(super) fn scratch(m: u64, n: u64, k: u64, size: u64) -> u64 {
    let (span, wide) = (SPAN as u64, WIDEST as u64);
    if m <= FEW_ROWS {
        return k.min(DEPTH as u64) * few::packed(m, n.min(span), wide) * size;
    }
    k.min(DEPTH as u64) * (m.min(span) + n.min(span).next_multiple_of(wide)) * size
}

/// Bytes of scratch of a product of rounded operands.
pub(super) fn scratch_of_rounded(m: u64, n: u64, k: u64) -> u64 {
    // Pairs take the place of numbers.
    if has_fast_bf16() {
        scratch(m, n, k.min(DEPTH as u64).div_ceil(2), 4)
    } else {
        scratch(m, n, k, 4)
    }
}

/// `out[m, n] = alpha · a[m, k] · b[k, n] + start`, `out` dense.
///
/// # Panics
/// If a matrix reaches beyond its elements (a bug).
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn product<T: Elementary, A: Operand<T>, B: Operand<T>>(
    sizes: (usize, usize, usize),
    out: &mut [T],
    a: A,
    b: B,
    alpha: T,
    start: Start<'_, T>,
) {
    product_by(Full::on(pulp::Arch::new()), sizes, out, a, b, alpha, start);
}

/// As [`product`], with a matrix in blocks on the right.
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn product_with_blocks<S: Source<f32>>(
    sizes: (usize, usize, usize),
    out: &mut [f32],
    a: Strided<'_, S>,
    b: InBlocks<'_>,
    alpha: f32,
    start: Start<'_, f32>,
) {
    if !stored::product::<S, f32>(sizes, out, a, stored::Right::Blocks(b), (alpha, start)) {
        product(sizes, out, a, b, alpha, start);
    }
}

/// As [`product`], with a matrix of plain numbers on the right.
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn product_with_plain<S: Source<f32>, B: Plain>(
    sizes: (usize, usize, usize),
    out: &mut [f32],
    a: Strided<'_, S>,
    b: Strided<'_, B>,
    alpha: f32,
    start: Start<'_, f32>,
) {
    if !stored::product(sizes, out, a, stored::Right::Plain(b), (alpha, start)) {
        product(sizes, out, a, b, alpha, start);
    }
}

/// As [`product`], of operands rounded to bf16; their products and sums are f32.
#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
pub(super) fn product_of_rounded<A: Operand<f32>, B: Operand<f32>>(
    sizes: (usize, usize, usize),
    out: &mut [f32],
    a: A,
    b: B,
    alpha: f32,
    start: Start<'_, f32>,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(pairs) = narrow::Pairs::try_new() {
        return product_by(pairs, sizes, out, a, b, alpha, start);
    }
    product_by(
        narrow::Rounded(Full::on(pulp::Arch::new())),
        sizes,
        out,
        a,
        b,
        alpha,
        start,
    );
}

/// Whether the processor multiplies bf16 faster than f32.
pub(super) fn has_fast_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return narrow::Pairs::try_new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// How panels are packed and multiplied.
trait Arithmetic: Copy + Sync {
    /// The result's elements.
    type Out: Elementary;
    /// What a panel holds.
    type Packed: Copy + Send + Sync;
    /// Elements, one depth after another, in one of a panel's.
    const PER: usize;

    /// The register tile.
    fn shape(self) -> Shape;

    /// Packs `here` rows or columns into a panel of these measures, in elements.
    fn pack<S: Source<Self::Out>>(
        self,
        panel: &mut [MaybeUninit<Self::Packed>],
        from: &Side<'_, S>,
        here: usize,
        lines: Lines,
    );

    /// Does a task.
    fn run(self, task: &Task<'_, Self>);
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

#[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
fn product_by<K: Arithmetic, A: Operand<K::Out>, B: Operand<K::Out>>(
    by: K,
    (m, n, k): (usize, usize, usize),
    out: &mut [K::Out],
    a: A,
    b: B,
    alpha: K::Out,
    start: Start<'_, K::Out>,
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
            Start::Zero => out.fill(K::Out::default()),
            Start::Row(row) => out
                .chunks_exact_mut(n)
                .for_each(|out| out.copy_from_slice(row)),
            Start::Out => {}
        }
        return;
    }
    assert!(a.has(m - 1, k - 1) && b.has(k - 1, n - 1));
    if m <= few::ROWS {
        return few::product(by, (m, n, k), out, a, b, alpha, start);
    }
    let shared = m * n * k > WORTH_SHARING && rayon::current_num_threads() > 1;
    let registers = by.shape();
    let depth = k.min(DEPTH).div_ceil(K::PER);
    let mut left = Panels::<K::Packed>::new(depth * m.min(SPAN), registers.rows);
    let mut right = Panels::<K::Packed>::new(
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
                let of_left = Part {
                    row,
                    column: from,
                    count: rows,
                    depth,
                    right: false,
                };
                let of_right = Part {
                    row: from,
                    column,
                    count: columns,
                    depth,
                    right: true,
                };
                let mut pack_left = || left.pack(by, &a, of_left, shared);
                let mut pack_right = || right.pack(by, &b, of_right, shared);
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
                    by,
                    sizes: (rows, columns),
                    lines: depth.div_ceil(K::PER),
                    left: &left,
                    right: &right,
                    // SAFETY: `row` and `column` lie inside the result.
                    out: Shared(unsafe { out.0.add(row * n + column) }),
                    stride: n,
                    alpha,
                    start,
                };
                block.run(shared);
            }
        }
    }
}

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
            product_by(
                Full::on(Only(pulp::Scalar)),
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
                product_by(
                    Full::on(Only(v3)),
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
        assert_eq!(scratch(17, 2, 3, 4), 3 * (17 + 32) * 4);
        // Few rows are packed beside each panel of columns.
        assert_eq!(scratch(1, 2, 3, 4), 3 * (1 + 32) * 4);
        assert_eq!(scratch(3, 65, 700, 4), 256 * 3 * (3 + 32) * 4);
        assert_eq!(scratch(10_000, 30_000, 768, 4), 256 * 4096 * 4);
    }

    #[test]
    fn more_rows_need_less_scratch_only_where_there_were_few() {
        let at = |m| scratch(m, 2048, 128, 4);
        assert!(at(FEW_ROWS) > at(FEW_ROWS + 1));
        for m in (1..FEW_ROWS).chain(FEW_ROWS + 1..200) {
            assert!(at(m) <= at(m + 1), "{m}");
        }
    }
}
