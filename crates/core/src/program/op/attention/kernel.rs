//! Attention on the processor: sequences and heads in parallel, queries in tiles.

use rayon::prelude::*;

use super::super::dropout::drop_row;
use std::ops::Range;

use super::super::math::{Elementary, by_sixteen, exp_all, row_max, row_sum, simd};
use super::super::random::threshold;
use super::super::tile::{Into, Rows, Strided, multiply};
use super::super::{Io, Kernel, OpError};
use super::{
    Attention, AttentionDropout, FORWARD_TILE, Heads, ITEM, Lengths, Tail, aligned, padded,
};

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

    /// Drops and scales one query's row, over keys from `key`, a multiple of four: counter `[head · 2²⁰ + key/4, query,
    /// example, step]`, positions counted within the sequence.
    pub fn drop<T: Elementary>(
        &self,
        (head, key): (usize, usize),
        query_row: usize,
        row: &mut [T],
    ) {
        let tail = [
            self.keys[2 * query_row + 1],
            self.keys[2 * query_row],
            self.step,
        ];
        drop_row(
            self.stream,
            ((head << 20) + key / 4) as u32,
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
    op: &'a Attention,
    heads: Heads,
    /// Columns of a head.
    head: usize,
    scale: T,
    /// The scores' bound; 0 for none.
    cap: T,
    draw: Option<Draw<'a>>,
    bias: Option<Bias<'a, T>>,
}

/// What is added to scores by distance: `[2 middle + 1, heads]`.
#[derive(Clone, Copy)]
pub(in super::super) struct Bias<'a, T> {
    rows: &'a [T],
    heads: usize,
    middle: usize,
}

impl<'a, T: Elementary> Bias<'a, T> {
    /// Of a matrix; an error where it does not reach as far as the longest of these sequences.
    pub fn new(rows: &'a [T], heads: usize, longest: u64) -> Result<Self, OpError> {
        let distances = rows.len() / heads.max(1);
        let middle = distances / 2;
        if distances.is_multiple_of(2) || (middle as u64) < longest {
            return Err(OpError::Index {
                index: longest,
                rows: middle as u64,
            });
        }
        Ok(Self {
            rows,
            heads,
            middle,
        })
    }

    /// Turns products of a query with the keys from `key` on into scores: `scale` times each, with what is added.
    pub fn add(&self, h: usize, (query, key): (usize, usize), scale: T, row: &mut [T]) {
        let first = self.middle + key - query;
        let own = self.rows[first * self.heads + h..].iter();
        for (x, &bias) in row.iter_mut().zip(own.step_by(self.heads)) {
            *x = *x * scale + bias;
        }
    }
}

/// Queries that one thread does: rows `from .. to` of the sequence `start .. end`, which has so many `keys`, with the rows
/// from `key` on.
#[derive(Clone, Copy)]
struct Item {
    start: usize,
    end: usize,
    from: usize,
    to: usize,
    key: usize,
    keys: usize,
}

impl Item {
    /// All of a batch.
    fn all(op: &Attention, seqs: &[(usize, usize)], sources: &[(usize, usize)]) -> Vec<Self> {
        let of_sequence = |(s, &(start, end)): (usize, &(usize, usize))| {
            let (key, keys) = op.keys(s, (start, end), sources);
            (start..end).step_by(ITEM).map(move |from| Self {
                start,
                end,
                from,
                to: (from + ITEM).min(end),
                key,
                keys,
            })
        };
        seqs.iter().enumerate().flat_map(of_sequence).collect()
    }
}

/// A tile of queries of one head: `rows` of the packed tokens, and the keys of their sequence that some of them see, from a
/// whole vector on.
struct Tile {
    h: usize,
    rows: Range<usize>,
    keys: Range<usize>,
}

impl<T: Elementary> Operands<'_, T> {
    /// Keys of a sequence that some of these queries see, from a whole vector on.
    fn seen(&self, item: Item, queries: Range<usize>) -> Range<usize> {
        let own = queries.start - item.start..queries.end - item.start;
        let keys = self.op.seen(own, (item.end - item.start, item.keys));
        aligned(keys.start)..keys.end
    }

    /// Every head of some queries, head by head and tile by tile.
    fn attend(&self, item: Item, out: &mut [T], lse: &mut [T]) {
        let (head, heads) = (self.head, self.heads.queries as usize);
        let (d, kd) = (heads * head, self.heads.keys as usize * head);
        let (seen, tile) = (
            self.seen(item, item.from..item.to),
            FORWARD_TILE.min(item.end - item.start),
        );
        let stride = padded(seen.len());
        let (mut keys, mut p) = (
            vec![T::zero(); head * stride],
            vec![T::zero(); tile * stride],
        );
        let group = self.heads.group() as usize;
        for h in 0..heads {
            let column = h / group * head;
            let first = item.key;
            if h % group == 0 {
                let from = (first + seen.start) * kd + column;
                transpose(&self.keys[from..], kd, seen.len(), head, &mut keys);
            }
            for row in (item.from..item.to).step_by(FORWARD_TILE) {
                let rows = row..item.to.min(row + FORWARD_TILE);
                let own = Tile {
                    h,
                    keys: self.seen(item, rows.clone()),
                    rows,
                };
                let (m, n) = (own.rows.len(), own.keys.len());
                let weights = &mut p[..m * padded(n)];
                let columns = Rows {
                    data: &keys[own.keys.start - seen.start..],
                    row: stride,
                };
                let statistics = &mut lse[(row - item.from) * heads + h..];
                self.weigh(item, &own, columns, weights, statistics);
                multiply(
                    (m, head, n),
                    &mut out[(row - item.from) * d + h * head..],
                    d,
                    Strided {
                        data: weights,
                        row: padded(n),
                        column: 1,
                    },
                    Rows {
                        data: &self.values[(first + own.keys.start) * kd + column..],
                        row: kd,
                    },
                    Into::Set,
                );
            }
        }
    }

    /// The weights of a tile's keys, whose columns are given, after dropout, with the log-sum-exp of each query.
    #[expect(clippy::too_many_arguments, reason = "the operands of one kernel")]
    fn weigh(&self, item: Item, own: &Tile, keys: Rows<'_, T>, p: &mut [T], lse: &mut [T]) {
        let (stride, heads) = (padded(own.keys.len()), self.heads.queries as usize);
        let d = heads * self.head;
        multiply(
            (own.rows.len(), stride, self.head),
            p,
            stride,
            Strided {
                data: &self.queries[own.rows.start * d + own.h * self.head..],
                row: d,
                column: 1,
            },
            keys,
            Into::Set,
        );
        let mut seen = [(0, 0); FORWARD_TILE];
        for (seen, row) in seen.iter_mut().zip(own.rows.clone()) {
            let query = row - item.start;
            let length = (item.end - item.start, item.keys);
            let keys = self.op.seen(query..query + 1, length);
            *seen = (keys.start - own.keys.start, keys.end - own.keys.start);
        }
        let seen = &seen[..own.rows.len()];
        let mut bounds = Bounds {
            scale: self.scale,
            cap: self.cap,
        };
        if let Some(bias) = self.bias {
            for (p, row) in p.chunks_exact_mut(stride).zip(own.rows.clone()) {
                let p = &mut p[..own.keys.len()];
                bias.add(own.h, (row - item.start, own.keys.start), self.scale, p);
            }
            bounds.scale = T::one();
        }
        centre_rows(p, seen, bounds, lse, heads);
        exp_all(p);
        normalise_rows(p, seen, lse, heads);
        if let Some(draw) = &self.draw {
            for (p, row) in p.chunks_exact_mut(stride).zip(own.rows.clone()) {
                draw.drop((own.h, own.keys.start), row, &mut p[..own.keys.len()]);
            }
        }
    }
}

impl Attention {
    /// The draws of dropout.
    pub(in super::super) fn draw<'a>(&self, io: &Io<'a>, at: Tail) -> Option<Draw<'a>> {
        let ids = |i: usize| io.input(i).slice::<u32>();
        let draw = |drop| Draw::new(drop, ids(at.draw), ids(at.draw + 1)[0]);
        self.dropout.as_ref().map(draw)
    }

    pub(super) fn compute<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let at = self.tail(3);
        let seqs = sequences(io.input(at.offsets).slice::<u32>(), rows)?;
        let sources = at.sources(io)?;
        let across = at.sources.map(|_| sources.as_slice());
        let lengths = Lengths::of_sequences(self, &seqs, across);
        let draw = self.draw(io, at);
        let heads = self.heads.queries as usize;
        let bias = at
            .bias
            .map(|i| Bias::new(io.input(i).slice::<T>(), heads, lengths.longest));
        let operands = Operands {
            queries: io.input(0).slice::<T>(),
            keys: io.input(1).slice::<T>(),
            values: io.input(2).slice::<T>(),
            op: self,
            heads: self.heads,
            head: d / self.heads.queries as usize,
            scale: T::of(self.scale.get()),
            cap: T::of(self.softcap.map_or(0.0, |cap| cap.get())),
            draw,
            bias: bias.transpose()?,
        };
        let items = Item::all(self, &seqs, &sources);
        let [o, lse] = io.outputs.as_mut_slice() else {
            unreachable!("two outputs: inferred")
        };
        let ranges = || items.iter().map(|item| (item.from, item.to));
        let outs = split_rows(o.slice::<T>(), ranges(), d);
        let lses = split_rows(lse.slice::<T>(), ranges(), self.heads.queries as usize);
        let sizes = (operands.head as u64, size_of::<T>() as u64);
        let scratch = lengths.forward_scratch(sizes, self.mask, cx.machine);
        let work = |((item, out), lse): ((&Item, &mut [T]), &mut [T])| {
            operands.attend(*item, out, lse);
        };
        cx.scratch(scratch, || {
            if is_small(&seqs, d) && is_small(&sources, d) {
                items.iter().zip(outs).zip(lses).for_each(work);
            } else {
                items.par_iter().zip(outs).zip(lses).for_each(work);
            }
        });
        Ok(())
    }
}

/// What becomes of a product of a query and a key: times `scale`, within `cap` where it is not 0.
#[derive(Clone, Copy)]
pub(in super::super) struct Bounds<T> {
    pub scale: T,
    pub cap: T,
}

/// Puts a number in the place of the keys a query does not see; it sees those from `.0` to before `.1`.
#[inline(always)]
pub(in super::super) fn clear_outside<T: Copy>(row: &mut [T], seen: (usize, usize), x: T) {
    row[..seen.0].fill(x);
    row[seen.1..].fill(x);
}

/// Of a tile of products, whose rows' queries see what `seen` says: scores, minus each row's largest, which goes to
/// every `step`-th of `maxima`.
pub(in super::super) fn centre_rows<T: Elementary>(
    tile: &mut [T],
    seen: &[(usize, usize)],
    bounds: Bounds<T>,
    maxima: &mut [T],
    step: usize,
) {
    let stride = tile.len() / seen.len().max(1);
    simd!(<T> (tile: &'a mut [T] = tile, stride: usize = stride, seen: &'a [(usize, usize)] = seen, bounds: Bounds<T> = bounds, maxima: &'a mut [T] = maxima, step: usize = step) {
        for ((row, max), &seen) in tile.chunks_exact_mut(stride).zip(maxima.iter_mut().step_by(step)).zip(seen) {
            let Bounds { scale, cap } = bounds;
            if cap == T::zero() {
                by_sixteen(row, |x| x * scale);
            } else {
                by_sixteen(row, |x| (x * scale / cap).tanh_fast() * cap);
            }
            clear_outside(row, seen, T::neg_infinity());
            let m = row_max(row);
            by_sixteen(row, |x| x - m);
            *max = m;
        }
    });
}

/// Of a tile of exponentials: each row over its sum; the maxima become log-sum-exps.
pub(in super::super) fn normalise_rows<T: Elementary>(
    tile: &mut [T],
    seen: &[(usize, usize)],
    maxima: &mut [T],
    step: usize,
) {
    let stride = tile.len() / seen.len().max(1);
    simd!(<T> (tile: &'a mut [T] = tile, stride: usize = stride, seen: &'a [(usize, usize)] = seen, maxima: &'a mut [T] = maxima, step: usize = step) {
        for ((row, max), &seen) in tile.chunks_exact_mut(stride).zip(maxima.iter_mut().step_by(step)).zip(seen) {
            clear_outside(row, seen, T::zero());
            let sum = row_sum(row, |x| x);
            let inverse = T::one() / sum;
            by_sixteen(row, |x| x * inverse);
            *max += T::of(libm::log(sum.wide()));
        }
    });
}
