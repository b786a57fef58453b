//! What the head's loss and its gradient share on the processor, and the gradient: a block of rows by a block of the
//! vocabulary at a time.

use std::ops::Range;

use rayon::prelude::*;

use super::super::math::{CHUNK, Elementary, simd};
use super::super::product::{Start, product, product_of_rounded, scratch, scratch_of_rounded};
use super::super::tile::Strided;
use super::super::{HeadLossGrad, Io, Kernel, OpError, Precision, SizedCx};
use super::HeadLoss;
use super::table::Table;

/// Rows, and tokens of the vocabulary, whose logits are in memory at a time: what a product packs at once. A
/// gradient's sum over the vocabulary is cut where a product cuts it, so the pieces change no bit of it.
pub(super) const PIECE: usize = 2048;

/// The pieces of `n` rows or tokens.
pub(super) fn pieces(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(PIECE).map(move |i| i..n.min(i + PIECE))
}

/// Rows, vocabulary and width of the states in input `first` and the head behind it.
pub(in super::super) fn sizes(cx: &SizedCx, first: usize) -> (u64, u64, u64) {
    (cx.rows(first), cx.rows(first + 1), cx.width(first))
}

/// Scratch of a product with elements of `size` bytes.
pub(super) fn product_scratch(of: &HeadLoss, (m, n, k): (u64, u64, u64), size: u64) -> u64 {
    if of.precision == Precision::Bf16 && size == 4 {
        scratch_of_rounded(m, n, k)
    } else {
        scratch(m, n, k, size)
    }
}

/// Rows and tokens of the largest piece.
pub(super) fn largest((rows, vocabulary, _): (u64, u64, u64)) -> (u64, u64) {
    (rows.min(PIECE as u64), vocabulary.min(PIECE as u64))
}

/// Scratch of the gradient: a piece of the logits and a product's panels.
pub(in super::super) fn backward_scratch(
    grad: &HeadLossGrad,
    sizes: (u64, u64, u64),
    size: u64,
) -> u64 {
    let ((rows, columns), d) = (largest(sizes), sizes.2);
    let product = |wanted: bool, of| {
        if wanted {
            product_scratch(&grad.of, of, size)
        } else {
            0
        }
    };
    let products = [
        product(true, (rows, columns, d)),
        product(grad.input, (rows, d, columns)),
        product(grad.head, (columns, d, rows)),
    ];
    rows * columns * size + products.into_iter().max().unwrap_or(0)
}

/// `product` or `product_of_rounded`.
type Multiply<T, B> = fn((usize, usize, usize), &mut [T], Strided<'_, T>, B, T, Start<'_, T>);

/// The same of two matrices of the states' type.
type Plain<T> =
    for<'s> fn((usize, usize, usize), &mut [T], Strided<'s, T>, Strided<'s, T>, T, Start<'_, T>);

/// The products by a piece of the head and by the states.
#[derive(Clone, Copy)]
pub(in super::super) struct Products<'a, T, W: Table<'a, T>> {
    pub by_head: Multiply<T, W::Piece>,
    by_states: Plain<T>,
}

impl<'a, T: Elementary, W: Table<'a, T>> Products<'a, T, W> {
    /// Of the operands as they are.
    pub const PLAIN: Self = Self {
        by_head: |sizes, out, a, b, alpha, start| product(sizes, out, a, b, alpha, start),
        by_states: |sizes, out, a, b, alpha, start| product(sizes, out, a, b, alpha, start),
    };
}

impl<'a, W: Table<'a, f32>> Products<'a, f32, W> {
    /// Of the operands rounded to bf16.
    pub const ROUNDED: Self = Self {
        by_head: |sizes, out, a, b, alpha, start| {
            product_of_rounded(sizes, out, a, b, alpha, start);
        },
        by_states: |sizes, out, a, b, alpha, start| {
            product_of_rounded(sizes, out, a, b, alpha, start);
        },
    };
}

/// Runs an expression with the products of a state's type, of how the head is stored and of a precision.
macro_rules! by_types {
    (($x:expr, $head:expr, $precision:expr), $products:ident => $body:expr) => {{
        use half::bf16;
        use $crate::program::format::Format;
        use $crate::program::op::Precision;
        use $crate::program::op::head_loss::{Numbers, Products};
        use $crate::program::op::product::InBlocks;
        use $crate::program::types::DType;
        let rounds = $precision == Precision::Bf16;
        match ($x, $head) {
            (DType::F64, Format::Blocks(_)) => {
                let $products = Products::<f64, InBlocks<'_>>::PLAIN;
                $body
            }
            (DType::F64, _) => {
                let $products = Products::<f64, Numbers<'_, f64>>::PLAIN;
                $body
            }
            (_, Format::Blocks(_)) => {
                let products = [Products::<f32, InBlocks<'_>>::PLAIN, Products::ROUNDED];
                let $products = products[usize::from(rounds)];
                $body
            }
            (_, Format::Plain(DType::BF16)) => {
                let products = [Products::<f32, Numbers<'_, bf16>>::PLAIN, Products::ROUNDED];
                let $products = products[usize::from(rounds)];
                $body
            }
            _ => {
                let products = [Products::<f32, Numbers<'_, f32>>::PLAIN, Products::ROUNDED];
                let $products = products[usize::from(rounds)];
                $body
            }
        }
    }};
}
pub(in super::super) use by_types;

/// A matrix with its rows and its columns so far apart.
pub(super) const fn strided<T>(data: &[T], row: usize, column: usize) -> Strided<'_, T> {
    Strided { data, row, column }
}

/// What both directions read.
pub(super) struct Operands<'o, 'a, T, W: Table<'a, T>> {
    pub of: &'o HeadLoss,
    pub products: Products<'a, T, W>,
    x: &'a [T],
    pub head: W,
    pub targets: &'a [u32],
    bias: Option<&'a [T]>,
    /// Vocabulary and width.
    pub vocabulary: usize,
    pub d: usize,
}

impl<'o, 'a, T: Elementary, W: Table<'a, T>> Operands<'o, 'a, T, W> {
    /// The states are input `first`, and the others follow.
    pub fn new(
        of: &'o HeadLoss,
        products: Products<'a, T, W>,
        io: &Io<'a>,
        first: usize,
    ) -> Result<Self, OpError> {
        let (x, head) = (io.input(first), io.input(first + 1));
        let targets = io.input(first + 2).slice::<u32>();
        let (vocabulary, d) = (head.dims[0], head.dims[1]);
        if let Some(&bad) = targets.iter().find(|&&t| t as usize >= vocabulary) {
            return Err(OpError::Index {
                index: u64::from(bad),
                rows: vocabulary as u64,
            });
        }
        Ok(Self {
            of,
            products,
            x: x.slice::<T>(),
            head: W::of(head),
            targets,
            bias: of.bias.then(|| io.input(first + 4).slice::<T>()),
            vocabulary,
            d,
        })
    }

    pub fn cap(&self) -> Option<T> {
        self.of.softcap.map(|c| T::of(c.get()))
    }

    pub fn alpha(&self) -> T {
        T::of(self.of.alpha.get())
    }

    /// Some rows of the states.
    fn states(&self, rows: &Range<usize>) -> &'a [T] {
        &self.x[rows.start * self.d..rows.end * self.d]
    }

    /// A piece of the logits, before the soft cap.
    pub fn logits(&self, rows: &Range<usize>, columns: &Range<usize>, out: &mut [T]) {
        let start = match self.bias {
            Some(bias) => Start::Row(&bias[columns.clone()]),
            None => Start::Zero,
        };
        let left = strided(self.states(rows), self.d, 1);
        let sizes = (rows.len(), columns.len(), self.d);
        let right = self.head.piece(columns, true);
        (self.products.by_head)(sizes, out, left, right, self.alpha(), start);
    }
}

/// Calls `f(row of logits, its own)` for all rows of a piece, in parallel where it pays.
pub(super) fn for_rows<T: Send, S: Send>(
    logits: &mut [T],
    columns: usize,
    own: &mut [S],
    f: impl Fn(usize, &mut [T], &mut S) + Sync,
) {
    if logits.len() <= 2 * CHUNK {
        let rows = logits.chunks_exact_mut(columns).zip(own).enumerate();
        rows.for_each(|(i, (row, own))| f(i, row, own));
    } else {
        let rows = logits.par_chunks_exact_mut(columns).zip(own).enumerate();
        rows.with_min_len(4)
            .for_each(|(i, (row, own))| f(i, row, own));
    }
}

/// Turns a row's logits of tokens from some token on, before the soft cap, into the loss's gradient by them:
/// `factor · (softmax − onehot)`. `own` is the target's place, if it is among them.
fn slopes<T: Elementary>(row: &mut [T], (factor, lse): (T, T), own: Option<usize>, cap: Option<T>) {
    let at_target = own.and_then(|i| row.get(i).copied().map(|x| (i, x)));
    simd!(<T> (row: &'a mut [T] = &mut *row, factor: T = factor, lse: T = lse, cap: Option<T> = cap) {
        match cap {
            None => {
                for x in row {
                    *x = factor * (*x - lse).exp_fast();
                }
            }
            Some(c) => {
                for x in row {
                    let t = (*x / c).tanh_fast();
                    *x = factor * (c * t - lse).exp_fast() * (T::one() - t * t);
                }
            }
        }
    });
    if let Some((i, x)) = at_target {
        let slope = cap.map_or(T::one(), |c| {
            let t = (x / c).tanh_fast();
            T::one() - t * t
        });
        row[i] -= factor * slope;
    }
}

/// Computes the gradients.
pub(in super::super) fn backward<'a, T: Elementary, W: Table<'a, T>>(
    grad: &HeadLossGrad,
    products: Products<'a, T, W>,
    cx: &Kernel<'_>,
    io: &mut Io<'a>,
) -> Result<(), OpError> {
    let own = Operands::new(&grad.of, products, io, 1)?;
    let scale = f64::from(io.input(4).slice::<f32>()[0]);
    let (up, by_row) = (io.input(0).slice::<T>(), io.input(0).dims.len() > 1);
    let factor = |row: usize| match up.get(2 * row) {
        Some(&own) if by_row => own,
        _ => T::of(up[0].wide() * scale),
    };
    let lses = io.input(grad.sums()).slice::<T>();
    let (count, vocabulary, d) = (own.targets.len(), own.vocabulary, own.d);
    let mut made = io.outputs.iter_mut();
    let mut next = |wanted: bool| {
        let out = if wanted { made.next() } else { None };
        out.map(|out| out.slice::<T>())
    };
    let (mut dx, mut dhead) = (next(grad.input), next(grad.head));
    if let (0, Some(dhead)) = (count, &mut dhead) {
        dhead.fill(T::zero());
    }
    let sizes = (count as u64, vocabulary as u64, d as u64);
    let (most, widest) = (count.min(PIECE), vocabulary.min(PIECE));
    cx.scratch(backward_scratch(grad, sizes, size_of::<T>() as u64), || {
        let mut logits = vec![T::zero(); most * widest];
        for rows in pieces(count) {
            for columns in pieces(vocabulary) {
                let (m, n) = (rows.len(), columns.len());
                let logits = &mut logits[..m * n];
                own.logits(&rows, &columns, logits);
                for_rows(logits, n, &mut vec![(); m], |i, row, ()| {
                    let i = rows.start + i;
                    let target = (own.targets[i] as usize).checked_sub(columns.start);
                    slopes(row, (factor(i), lses[i]), target, own.cap());
                });
                let start = |first: bool| if first { Start::Zero } else { Start::Out };
                if let Some(dx) = &mut dx {
                    let out = &mut dx[rows.start * d..rows.end * d];
                    let (left, right) = (strided(logits, n, 1), own.head.piece(&columns, false));
                    let start = start(columns.start == 0);
                    (products.by_head)((m, d, n), out, left, right, own.alpha(), start);
                }
                if let Some(dhead) = &mut dhead {
                    let out = &mut dhead[columns.start * d..columns.end * d];
                    let (left, right) = (strided(logits, 1, n), strided(own.states(&rows), d, 1));
                    let start = start(rows.start == 0);
                    (products.by_states)((n, d, m), out, left, right, own.alpha(), start);
                }
            }
        }
    });
    Ok(())
}
