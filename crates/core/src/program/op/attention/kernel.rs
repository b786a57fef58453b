//! Attention on the processor: sequences and heads in parallel, queries in tiles.

use rayon::prelude::*;

use super::super::dropout::drop_row;
use super::super::math::{Elementary, by_sixteen, exp_all, row_max, row_sum, simd};
use super::super::random::threshold;
use super::super::tile::{Into, Rows, Strided, multiply};
use super::super::{Io, Kernel, OpError};
use super::{Attention, AttentionDropout, FORWARD_TILE, ITEM, Lengths, padded};

/// Start and end of each sequence, checked against the number of rows.
pub(in super::super) fn sequences(
    offsets: &[u32],
    rows: usize,
) -> Result<Vec<(usize, usize)>, OpError> {
    let list: Vec<(usize, usize)> = offsets
        .windows(2)
        .map(|w| (w[0] as usize, w[1] as usize))
        .collect();
    let good = list.iter().all(|(a, b)| a <= b)
        && offsets.first() == Some(&0)
        && offsets.last().is_some_and(|&n| n as usize == rows);
    if good {
        Ok(list)
    } else {
        Err(OpError::Index {
            index: u64::from(offsets.last().copied().unwrap_or(0)),
            rows: rows as u64,
        })
    }
}

/// Splits a `[T, width]` buffer into one slice a range of rows; the ranges follow each other.
pub(in super::super) fn split_rows<T>(
    mut rest: &mut [T],
    ranges: impl Iterator<Item = (usize, usize)>,
    width: usize,
) -> Vec<&mut [T]> {
    ranges
        .map(|(start, end)| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut((end - start) * width);
            rest = tail;
            head
        })
        .collect()
}

/// Whether so little work, in products of elements, is done on one thread.
pub(in super::super) fn is_small(seqs: &[(usize, usize)], width: usize) -> bool {
    seqs.iter().map(|(a, b)| (b - a) * (b - a)).sum::<usize>() * width < 1 << 16
}

/// Dropout with the keys and the step it draws by.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Draw<'a> {
    stream: [u32; 2],
    limit: u32,
    scale: f64,
    keys: &'a [u32],
    step: u32,
}

impl<'a> Draw<'a> {
    pub fn new(dropout: &AttentionDropout, keys: &'a [u32], step: u32) -> Self {
        let p = dropout.p.get();
        Self {
            stream: dropout.stream,
            limit: threshold(p),
            scale: 1.0 / (1.0 - p),
            keys,
            step,
        }
    }

    /// Drops and scales one query's row, over keys: counter `[head · 2²⁰ + key/4, query, example,
    /// step]`, positions counted within the sequence.
    pub fn drop<T: Elementary>(&self, head: usize, query_row: usize, row: &mut [T]) {
        let tail = [
            self.keys[2 * query_row + 1],
            self.keys[2 * query_row],
            self.step,
        ];
        drop_row(
            self.stream,
            (head << 20) as u32,
            tail,
            self.limit,
            T::of(self.scale),
            row,
        );
    }
}

/// `to[c, j] = from[j, c]` for `n` rows of one head, with rows of `to` padded with zeros.
pub(in super::super) fn transpose<T: Elementary>(
    from: &[T],
    d: usize,
    n: usize,
    head: usize,
    to: &mut [T],
) {
    let stride = padded(n);
    for (c, to) in to.chunks_exact_mut(stride).take(head).enumerate() {
        for (j, x) in to.iter_mut().enumerate() {
            *x = if j < n { from[j * d + c] } else { T::zero() };
        }
    }
}

/// What every block of queries reads.
struct Operands<'a, T> {
    queries: &'a [T],
    keys: &'a [T],
    values: &'a [T],
    /// Width of a row, of all heads together.
    d: usize,
    heads: usize,
    /// Keys a token.
    fold: usize,
    scale: T,
    draw: Option<Draw<'a>>,
}

/// Queries that one thread does: rows `from .. to` of the sequence `start .. end`.
#[derive(Clone, Copy)]
struct Item {
    start: usize,
    end: usize,
    from: usize,
    to: usize,
}

impl Item {
    /// All of a batch.
    fn all(seqs: &[(usize, usize)]) -> Vec<Self> {
        let of_sequence = |&(start, end): &(usize, usize)| {
            (start..end).step_by(ITEM).map(move |from| Self {
                start,
                end,
                from,
                to: (from + ITEM).min(end),
            })
        };
        seqs.iter().flat_map(of_sequence).collect()
    }
}

impl<T: Elementary> Operands<'_, T> {
    /// Every head of some queries, head by head and tile by tile.
    fn attend(&self, item: Item, out: &mut [T], lse: &mut [T]) {
        let n = (item.end - item.start) * self.fold;
        let (stride, head) = (padded(n), self.d / self.heads);
        let tile = FORWARD_TILE.min(item.end - item.start);
        let (mut keys, mut p) = (
            vec![T::zero(); head * stride],
            vec![T::zero(); tile * stride],
        );
        for h in 0..self.heads {
            let first = item.start * self.fold * self.d + h * head;
            transpose(&self.keys[first..], self.d, n, head, &mut keys);
            for row in (item.from..item.to).step_by(FORWARD_TILE) {
                let m = FORWARD_TILE.min(item.to - row);
                let weights = &mut p[..m * stride];
                let statistics = &mut lse[(row - item.from) * self.heads + h..];
                self.weigh((h, row), n, &keys, weights, statistics);
                let at = (row - item.from) * self.d + h * head;
                multiply(
                    (m, head, n),
                    &mut out[at..],
                    self.d,
                    Strided {
                        data: weights,
                        row: stride,
                        column: 1,
                    },
                    Rows {
                        data: &self.values[first..],
                        row: self.d,
                    },
                    Into::Set,
                );
            }
        }
    }

    /// The weights of `n` keys for a tile of queries from `row`, after dropout, with the log-sum-exp of each query.
    fn weigh(&self, (h, row): (usize, usize), n: usize, keys: &[T], p: &mut [T], lse: &mut [T]) {
        let (stride, head) = (padded(n), self.d / self.heads);
        multiply(
            (p.len() / stride, stride, head),
            p,
            stride,
            Strided {
                data: &self.queries[row * self.d + h * head..],
                row: self.d,
                column: 1,
            },
            Rows {
                data: keys,
                row: stride,
            },
            Into::Set,
        );
        centre_rows(p, n, self.scale, lse, self.heads);
        exp_all(p);
        normalise_rows(p, n, lse, self.heads);
        if let Some(draw) = &self.draw {
            for (i, p) in p.chunks_exact_mut(stride).enumerate() {
                draw.drop(h, row + i, &mut p[..n]);
            }
        }
    }
}

impl Attention {
    pub(super) fn compute<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(3).slice::<u32>(), rows)?;
        let draw = self.dropout.as_ref().map(|drop| {
            let (keys, step) = (io.input(4).slice::<u32>(), io.input(5).slice::<u32>());
            Draw::new(drop, keys, step[0])
        });
        let operands = Operands {
            queries: io.input(0).slice::<T>(),
            keys: io.input(1).slice::<T>(),
            values: io.input(2).slice::<T>(),
            d,
            heads: self.heads as usize,
            fold: self.fold as usize,
            scale: T::of(self.scale.get()),
            draw,
        };
        let items = Item::all(&seqs);
        let [o, lse] = io.outputs.as_mut_slice() else {
            unreachable!("two outputs: inferred")
        };
        let ranges = || items.iter().map(|item| (item.from, item.to));
        let outs = split_rows(o.slice::<T>(), ranges(), d);
        let lses = split_rows(lse.slice::<T>(), ranges(), operands.heads);
        let lengths = Lengths {
            sequences: seqs.len() as u64,
            tokens: rows as u64,
            longest: seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0) as u64,
            fold: u64::from(self.fold),
        };
        let head = (d / operands.heads) as u64;
        let scratch = lengths.forward_scratch(head, size_of::<T>() as u64, cx.machine);
        let work = |((item, out), lse): ((&Item, &mut [T]), &mut [T])| {
            operands.attend(*item, out, lse);
        };
        cx.scratch(scratch, || {
            if is_small(&seqs, d) {
                items.iter().zip(outs).zip(lses).for_each(work);
            } else {
                items.par_iter().zip(outs).zip(lses).for_each(work);
            }
        });
        Ok(())
    }
}

/// Of a tile of scores with `n` real columns: times `scale`, minus each row's largest, which goes to
/// every `step`-th of `maxima`.
fn centre_rows<T: Elementary>(tile: &mut [T], n: usize, scale: T, maxima: &mut [T], step: usize) {
    simd!(<T> (tile: &'a mut [T] = tile, n: usize = n, scale: T = scale, maxima: &'a mut [T] = maxima, step: usize = step) {
        for (row, max) in tile.chunks_exact_mut(padded(n)).zip(maxima.iter_mut().step_by(step)) {
            by_sixteen(row, |x| x * scale);
            row[n..].fill(T::neg_infinity());
            let m = row_max(row);
            by_sixteen(row, |x| x - m);
            *max = m;
        }
    });
}

/// Of a tile of exponentials: each row over its sum; the maxima become log-sum-exps.
fn normalise_rows<T: Elementary>(tile: &mut [T], n: usize, maxima: &mut [T], step: usize) {
    simd!(<T> (tile: &'a mut [T] = tile, n: usize = n, maxima: &'a mut [T] = maxima, step: usize = step) {
        for (row, max) in tile.chunks_exact_mut(padded(n)).zip(maxima.iter_mut().step_by(step)) {
            row[n..].fill(T::zero());
            let sum = row_sum(row, |x| x);
            let inverse = T::one() / sum;
            by_sixteen(row, |x| x * inverse);
            *max += T::of(libm::log(sum.wide()));
        }
    });
}
