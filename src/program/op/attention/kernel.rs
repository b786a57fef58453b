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

impl Attention {
    pub(super) fn compute<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (q, k, v) = (
            io.input(0).slice::<T>(),
            io.input(1).slice::<T>(),
            io.input(2).slice::<T>(),
        );
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(3).slice::<u32>(), rows)?;
        let draw = self.dropout.as_ref().map(|drop| {
            Draw::new(
                drop,
                io.input(4).slice::<u32>(),
                io.input(5).slice::<u32>()[0],
            )
        });
        let heads = self.heads as usize;
        let head = d / heads;
        let items: Vec<(usize, usize, usize, usize)> = seqs
            .iter()
            .flat_map(|&(start, end)| {
                (start..end)
                    .step_by(ITEM)
                    .map(move |from| (start, end, from, (from + ITEM).min(end)))
            })
            .collect();
        let [o, lse] = io.outputs.as_mut_slice() else {
            unreachable!("two outputs: inferred")
        };
        let ranges = || items.iter().map(|&(_, _, from, to)| (from, to));
        let outs = split_rows(o.slice::<T>(), ranges(), d);
        let lses = split_rows(lse.slice::<T>(), ranges(), heads);
        let longest = seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0) as u64;
        let fold = self.fold as usize;
        let lengths = Lengths {
            sequences: seqs.len() as u64,
            tokens: rows as u64,
            longest,
            fold: fold as u64,
        };
        let work = |((&(start, end, from, to), out), lse): (
            (&(usize, usize, usize, usize), &mut [T]),
            &mut [T],
        )| {
            let n = (end - start) * fold;
            let stride = padded(n);
            let (mut keys, mut p) = (
                vec![T::zero(); head * stride],
                vec![T::zero(); FORWARD_TILE.min(end - start) * stride],
            );
            for h in 0..heads {
                let at = |row: usize| row * d + h * head;
                transpose(&k[at(start * fold)..], d, n, head, &mut keys);
                for row in (from..to).step_by(FORWARD_TILE) {
                    let m = FORWARD_TILE.min(to - row);
                    let queries = Strided {
                        data: &q[at(row)..],
                        row: d,
                        column: 1,
                    };
                    multiply(
                        (m, stride, head),
                        &mut p,
                        stride,
                        queries,
                        Rows {
                            data: &keys,
                            row: stride,
                        },
                        Into::Set,
                    );
                    let scores = &mut p[..m * stride];
                    let maxima = &mut lse[(row - from) * heads..];
                    centre_rows(scores, n, T::of(self.scale.get()), &mut maxima[h..], heads);
                    exp_all(scores);
                    normalise_rows(scores, n, &mut maxima[h..], heads);
                    if let Some(draw) = &draw {
                        for (i, p) in scores.chunks_exact_mut(stride).enumerate() {
                            draw.drop(h, row + i, &mut p[..n]);
                        }
                    }
                    let weights = Strided {
                        data: &p,
                        row: stride,
                        column: 1,
                    };
                    multiply(
                        (m, head, n),
                        &mut out[at(row - from)..],
                        d,
                        weights,
                        Rows {
                            data: &v[at(start * fold)..],
                            row: d,
                        },
                        Into::Set,
                    );
                }
            }
        };
        cx.scratch(
            lengths.forward_scratch(head as u64, size_of::<T>() as u64, cx.machine),
            || {
                if is_small(&seqs, d) {
                    items.iter().zip(outs).zip(lses).for_each(work);
                } else {
                    items.par_iter().zip(outs).zip(lses).for_each(work);
                }
            },
        );
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
