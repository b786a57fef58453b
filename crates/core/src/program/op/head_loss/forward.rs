//! The head's loss on the processor, and the gradient by its states, if it is made at once: a block of rows by a block
//! of the vocabulary at a time.
//!
//! A piece's logits become weights, their exponentials below the largest so far, and the head's rows times these are added to
//! the gradient. Where a piece has a larger logit, what was added before shrinks. The target's weight is left out, because
//! its slope `p − 1` may be nearly nothing: it is computed from the loss and added last.

use std::ops::Range;

use half::bf16;

use super::super::math::{Elementary, row_max, row_sum, simd};
use super::super::product::Start;
use super::super::{Io, Kernel, OpError, Precision};
use super::kernel::{
    Operands, PIECE, Products, for_rows, largest, pieces, product_scratch, strided,
};
use super::table::Table;
use super::{HeadLoss, StatesGradient};

/// Scratch of the loss: a piece of the logits, what was seen of its rows, and a product's panels.
pub(super) fn scratch(of: &HeadLoss, sizes: (u64, u64, u64), size: u64) -> u64 {
    let ((rows, columns), d) = (largest(sizes), sizes.2);
    let logits = product_scratch(of, (rows, columns, d), size);
    let states = match of.makes_gradient() {
        true => product_scratch(of, (rows, d, columns), size),
        false => 0,
    };
    rows * columns * size + rows * size_of::<Seen>() as u64 + logits.max(states)
}

/// What the pieces so far have told of a row.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Logarithm of the sum of the exponentials.
    lse: f64,
    /// The target's logit.
    own: f64,
    /// The largest, and its token.
    high: f64,
    best: usize,
    /// Factor of the weights of the pieces before the last.
    shrunk: f64,
}

impl Seen {
    const NOTHING: Self = Self {
        lse: f64::NEG_INFINITY,
        own: f64::NEG_INFINITY,
        high: f64::NEG_INFINITY,
        best: 0,
        shrunk: 1.0,
    };

    /// Takes the logits of tokens from `first` on, before the soft cap.
    fn add<T: Elementary>(&mut self, row: &mut [T], first: usize, target: usize, cap: Option<T>) {
        let (high, sum) = simd!(<T> (row: &'a mut [T] = &mut *row, cap: Option<T> = cap) -> (T, T) {
            if let Some(c) = cap {
                for x in row.iter_mut() {
                    *x = c * (*x / c).tanh_fast();
                }
            }
            let high = row_max(row);
            (high, row_sum(row, |x| (x - high).exp_fast()))
        });
        self.lse = log_add(self.lse, high.wide() + libm::log(sum.wide()));
        self.shrunk = 1.0;
        if high.wide() > self.high {
            self.shrunk = libm::exp(self.high - high.wide());
            self.high = high.wide();
            self.best = first + row.iter().position(|&x| x == high).unwrap_or(0);
        }
        if let Some(x) = target.checked_sub(first).and_then(|i| row.get(i)) {
            self.own = x.wide();
        }
    }

    /// Turns logits of tokens from `first` on, behind the soft cap, into weights.
    fn weigh<T: Elementary>(&self, row: &mut [T], first: usize, target: usize, cap: Option<T>) {
        let high = T::of(self.high);
        simd!(<T> (row: &'a mut [T] = &mut *row, high: T = high, cap: Option<T> = cap) {
            match cap {
                None => {
                    for x in row {
                        *x = (*x - high).exp_fast();
                    }
                }
                Some(c) => {
                    for x in row {
                        let t = *x / c;
                        *x = (*x - high).exp_fast() * (T::one() - t * t);
                    }
                }
            }
        });
        if let Some(x) = target.checked_sub(first).and_then(|i| row.get_mut(i)) {
            *x = T::zero();
        }
    }

    /// The factor of the weights' sum in the gradient of the row's loss by its state, and that of the target's row of the head.
    fn factors(&self, cap: Option<f64>) -> (f64, f64) {
        let slope = cap.map_or(1.0, |c| 1.0 - (self.own / c) * (self.own / c));
        let target = libm::expm1(self.own - self.lse) * slope;
        (libm::exp(self.high - self.lse), target)
    }
}

/// `log(eᵃ + eᵇ)`; no number if one of them is none.
fn log_add(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY {
        return b;
    }
    let high = if a >= b { a } else { b };
    high + libm::log1p(libm::exp(-(a - b).abs()))
}

impl<'a, T: Elementary, W: Table<'a, T>> Operands<'_, 'a, T, W> {
    /// Sees all logits of some rows; sums the weighted rows of the head, if there is a place for the sums.
    fn see(
        &self,
        rows: &Range<usize>,
        logits: &mut [T],
        seen: &mut [Seen],
        mut states: Option<&mut [T]>,
    ) {
        let (targets, d) = (&self.targets[rows.clone()], self.d);
        let weighs = states.is_some();
        seen.fill(Seen::NOTHING);
        for columns in pieces(self.vocabulary) {
            let (first, n) = (columns.start, columns.len());
            let logits = &mut logits[..rows.len() * n];
            self.logits(rows, &columns, logits);
            for_rows(logits, n, seen, |i, row, seen| {
                let target = targets[i] as usize;
                seen.add(row, first, target, self.cap());
                if weighs {
                    seen.weigh(row, first, target, self.cap());
                }
            });
            let Some(states) = states.as_deref_mut() else {
                continue;
            };
            let start = if first == 0 { Start::Zero } else { Start::Out };
            if first > 0 {
                for_rows(states, d, seen, |_, row, seen| {
                    if seen.shrunk != 1.0 {
                        let shrunk = T::of(seen.shrunk);
                        row.iter_mut().for_each(|x| *x *= shrunk);
                    }
                });
            }
            let (left, right) = (strided(logits, n, 1), self.head.piece(&columns, false));
            (self.products.by_head)((rows.len(), d, n), states, left, right, self.alpha(), start);
        }
    }

    /// Turns the sums of some rows into the gradient, times a factor.
    fn finish(&self, rows: &Range<usize>, seen: &mut [Seen], scale: f64, states: &mut [T]) {
        let targets = &self.targets[rows.clone()];
        let cap = self.of.softcap.map(|c| c.get());
        let rounds = self.of.precision == Precision::Bf16 && size_of::<T>() == 4;
        for_rows(states, self.d, seen, |i, row, seen| {
            let (sum, target) = seen.factors(cap);
            let (sum, target) = (T::of(sum * scale), T::of(target * scale) * self.alpha());
            self.head.each(targets[i] as usize, |c, x: T| {
                // As a product reads it.
                let x = if rounds {
                    T::of(bf16::from_f64(x.wide()).to_f64())
                } else {
                    x
                };
                row[c] = sum * row[c] + target * x;
            });
        });
    }
}

/// Computes the loss, and the gradient by the states if it is a result.
pub(super) fn forward<'a, T: Elementary, W: Table<'a, T>>(
    of: &HeadLoss,
    products: Products<'a, T, W>,
    cx: &Kernel<'_>,
    io: &mut Io<'a>,
) -> Result<(), OpError> {
    let own = Operands::new(of, products, io, 0)?;
    let scale = f64::from(io.input(3).slice::<f32>()[0]);
    let (count, vocabulary, d) = (own.targets.len(), own.vocabulary, own.d);
    let [loss, lses, each, states @ ..] = io.outputs.as_mut_slice() else {
        unreachable!("three outputs or four: inferred")
    };
    let (lses, each) = (lses.slice::<T>(), each.slice::<T>());
    let states = states.first_mut().filter(|_| d > 0);
    let mut states = states.map(|out| out.slice::<T>());
    let of_states = match of.gradient {
        StatesGradient::Loss => scale,
        StatesGradient::Nothing | StatesGradient::Rows => 1.0,
    };
    let sizes = (count as u64, vocabulary as u64, d as u64);
    let (most, widest) = (count.min(PIECE), vocabulary.min(PIECE));
    let sum = cx.scratch(scratch(of, sizes, size_of::<T>() as u64), || {
        let mut logits = vec![T::zero(); most * widest];
        let mut seen = vec![Seen::NOTHING; most];
        let mut sum = 0.0;
        for rows in pieces(count) {
            let seen = &mut seen[..rows.len()];
            let mut states = states
                .as_mut()
                .map(|all| &mut all[rows.start * d..rows.end * d]);
            own.see(&rows, &mut logits, seen, states.as_deref_mut());
            if let Some(states) = states {
                own.finish(&rows, seen, of_states, states);
            }
            let made = lses[rows.clone()].iter_mut();
            let made = made.zip(each[2 * rows.start..2 * rows.end].chunks_exact_mut(2));
            for (seen, (lse, row)) in seen.iter().zip(made) {
                let loss = seen.lse - seen.own;
                let is_number = !seen.lse.is_nan();
                let best = if is_number {
                    seen.best as f64
                } else {
                    f64::NAN
                };
                *lse = T::of(seen.lse);
                row.copy_from_slice(&[T::of(loss), T::of(best)]);
                sum += loss;
            }
        }
        sum
    });
    loss.slice::<T>()[0] = T::of(sum * scale);
    Ok(())
}
