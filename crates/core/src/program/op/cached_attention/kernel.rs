//! Attention over a cache on the processor: sequences, tiles of queries and, for single queries, heads in parallel.
//!
//! A query's result is a function of itself and of the keys and values it sees: blocks of keys begin at the same tokens of a
//! sequence for every query, and sums are scaled anew whenever a block brings a larger score.

use std::ops::Range;

use rayon::prelude::*;

use super::super::attention::{clear_outside, padded, sequences, split_rows, transpose};
use super::super::math::{Elementary, by_sixteen, exp_all, row_max, row_sum, simd};
use super::super::tile::{Into, Rows, Strided, multiply};
use super::super::{Io, Kernel, OpError};
use super::{CachedAttention, KEYS, QUERIES};

/// New tokens of a sequence: their rows, the sequence's first token in the cache, the tokens it had there, and all that it
/// has there now.
#[derive(Clone, Copy)]
pub(in super::super) struct Sequence {
    pub rows: (usize, usize),
    pub first: usize,
    pub before: usize,
    pub length: usize,
}

/// What queries attend to: caches of keys and values, and a bias of so many rows.
#[derive(Clone, Copy)]
pub(in super::super) struct Keys<'a, T> {
    pub keys: &'a [T],
    pub values: &'a [T],
    pub bias: Option<(&'a [T], usize)>,
}

/// Some queries of a sequence and the heads of keys that are done for them.
#[derive(Clone)]
struct Item {
    of: Sequence,
    rows: (usize, usize),
    shared: Range<usize>,
}

/// What every item reads.
struct Operands<'a, T> {
    op: &'a CachedAttention,
    queries: &'a [T],
    to: Keys<'a, T>,
    head: usize,
}

/// What one thread works in.
struct Buffers<T> {
    keys: Vec<T>,
    scores: Vec<T>,
    /// The largest score of each query and head so far.
    tops: Vec<T>,
    /// The sums of their exponentials.
    sums: Vec<T>,
}

impl CachedAttention {
    pub(super) fn compute<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let (new_keys, new_values) = (io.input(1).slice::<T>(), io.input(2).slice::<T>());
        let kd = io.input(1).dims[1];
        let [keys, values] = io.updates.as_mut_slice() else {
            unreachable!("two caches are updated")
        };
        let fold = self.fold as usize;
        let capacity = keys.dims[0] / fold;
        let (offsets, cached) = (io.inputs[5], io.inputs[6]);
        let words = |x: Option<super::super::TensorRef<'_>>| -> Vec<u32> {
            x.map(|x| x.slice::<u32>().to_vec()).unwrap_or_default()
        };
        let list = placed(&words(offsets), &words(cached), rows, capacity)?;
        for of in &list {
            let (from, to) = (of.rows.0 * fold * kd, of.rows.1 * fold * kd);
            let at = (of.first + of.before) * fold * kd;
            keys.slice::<T>()[at..at + to - from].copy_from_slice(&new_keys[from..to]);
            values.slice::<T>()[at..at + to - from].copy_from_slice(&new_values[from..to]);
        }
        let bias = io.inputs.get(7).copied().flatten();
        let bias = bias.map(|bias| (bias.slice::<T>(), bias.dims[0]));
        if let Some((_, most)) = bias
            && let Some(of) = list.iter().find(|of| of.length > most)
        {
            return Err(OpError::Index {
                index: of.length as u64,
                rows: most as u64,
            });
        }
        let to = Keys {
            keys: keys.slice::<T>(),
            values: values.slice::<T>(),
            bias,
        };
        let queries = io.inputs[0].map_or(&[][..], |x| x.slice::<T>());
        self.attend(cx, &list, (queries, d, to), io.outputs[0].slice::<T>());
        Ok(())
    }

    /// The attention of some sequences' queries, which are `d` wide.
    pub(in super::super) fn attend<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        list: &[Sequence],
        (queries, d, to): (&[T], usize, Keys<'_, T>),
        out: &mut [T],
    ) {
        let operands = Operands {
            op: self,
            queries,
            to,
            head: d / self.heads.queries as usize,
        };
        let items = self.items(list);
        let outs = self.parts(out, &items, operands.head);
        let sizes = (
            (queries.len() / d.max(1)) as u64,
            list.len() as u64,
            operands.head as u64,
            size_of::<T>() as u64,
        );
        let work: usize = list.iter().map(|of| of.pairs()).sum();
        cx.scratch(self.scratch(sizes, cx.machine), || {
            let each = |(item, out): (&Item, &mut [T])| operands.attend(item, out);
            if work * self.fold as usize * d < 1 << 16 {
                items.iter().zip(outs).for_each(each);
            } else {
                items.par_iter().zip(outs).for_each(each);
            }
        });
    }

    /// Tiles of queries with all heads; a query that is alone in its sequence has an item for each head of keys.
    fn items(&self, list: &[Sequence]) -> Vec<Item> {
        let shared = self.heads.keys as usize;
        let mut items = Vec::new();
        for &of in list {
            let (start, end) = of.rows;
            if end - start == 1 {
                items.extend((0..shared).map(|h| Item {
                    of,
                    rows: of.rows,
                    shared: h..h + 1,
                }));
            } else {
                items.extend((start..end).step_by(QUERIES).map(|from| Item {
                    of,
                    rows: (from, end.min(from + QUERIES)),
                    shared: 0..shared,
                }));
            }
        }
        items
    }

    /// The output, cut as the items are.
    fn parts<'a, T>(&self, out: &'a mut [T], items: &[Item], head: usize) -> Vec<&'a mut [T]> {
        let wide = self.heads.group() as usize * head;
        let mut at = 0;
        let ends = items.iter().map(|item| {
            let count = (item.rows.1 - item.rows.0) * item.shared.len();
            at += count;
            (at - count, at)
        });
        split_rows(out, ends, wide)
    }
}

/// The sequences of a run, whose rows and places in the cache are there.
fn placed(
    offsets: &[u32],
    cached: &[u32],
    rows: usize,
    capacity: usize,
) -> Result<Vec<Sequence>, OpError> {
    let ranges = sequences(offsets, rows)?;
    let mut list = Vec::with_capacity(ranges.len());
    for (range, place) in ranges.into_iter().zip(cached.chunks_exact(2)) {
        let of = Sequence {
            rows: range,
            first: place[0] as usize,
            before: place[1] as usize,
            length: place[1] as usize + range.1 - range.0,
        };
        let end = of.first + of.length;
        if end > capacity {
            return Err(OpError::Index {
                index: end as u64,
                rows: capacity as u64,
            });
        }
        if range.1 > range.0 {
            list.push(of);
        }
    }
    Ok(list)
}

impl Sequence {
    fn pairs(&self) -> usize {
        (self.rows.1 - self.rows.0) * self.length
    }
}

impl<T: Elementary> Operands<'_, T> {
    /// The heads of an item.
    fn attend(&self, item: &Item, out: &mut [T]) {
        let (group, m) = (self.op.heads.group() as usize, item.rows.1 - item.rows.0);
        let mut own = Buffers {
            keys: vec![T::zero(); if m > 1 { self.head * KEYS } else { 0 }],
            scores: vec![T::zero(); m * KEYS],
            tops: vec![T::zero(); m * group],
            sums: vec![T::zero(); m * group],
        };
        let wide = item.shared.len() * group * self.head;
        for (i, shared) in item.shared.clone().enumerate() {
            let column = i * group * self.head;
            self.of_keys(item, shared, &mut own, (&mut out[column..], wide));
        }
    }

    /// The heads that share a head of keys; `out` has rows `wide` apart.
    #[expect(
        clippy::too_many_lines,
        reason = "one loop, whose tiles are kept in registers"
    )]
    fn of_keys(
        &self,
        item: &Item,
        shared: usize,
        own: &mut Buffers<T>,
        (out, wide): (&mut [T], usize),
    ) {
        let (op, head) = (self.op, self.head);
        let (group, fold) = (op.heads.group() as usize, op.fold as usize);
        let (d, kd) = (
            head * op.heads.queries as usize,
            head * op.heads.keys as usize,
        );
        let (m, of) = (item.rows.1 - item.rows.0, item.of);
        // Tokens of the sequence, of which the new ones come last.
        let token = of.before + item.rows.0 - of.rows.0;
        let length = of.length;
        let seen = op.mask.seen(token..token + m, length);
        let seen = seen.start * fold..seen.end * fold;
        own.tops.fill(T::neg_infinity());
        own.sums.fill(T::zero());
        let begin = seen.start - seen.start % KEYS;
        for from in (begin..seen.end).step_by(KEYS) {
            let count = KEYS.min(seen.end - from);
            let at = (of.first * fold + from) * kd + shared * head;
            let (keys, values) = (&self.to.keys[at..], &self.to.values[at..]);
            if m > 1 {
                transpose(keys, kd, count, head, &mut own.keys);
            }
            for g in 0..group {
                let query = item.rows.0 * d + (shared * group + g) * head;
                let queries = &self.queries[query..];
                let stride = padded(count);
                let scores = &mut own.scores[..m * stride];
                if m > 1 {
                    let queries = Strided {
                        data: queries,
                        row: d,
                        column: 1,
                    };
                    let columns = Rows {
                        data: &own.keys,
                        row: stride,
                    };
                    multiply(
                        (m, stride, head),
                        scores,
                        stride,
                        queries,
                        columns,
                        Into::Set,
                    );
                } else {
                    dots(&queries[..head], keys, kd, &mut scores[..count]);
                }
                let out = &mut out[g * head..];
                let state = (&mut own.tops[g * m..][..m], &mut own.sums[g * m..][..m]);
                let first = from == begin;
                let sees = |i: usize| {
                    let tokens = op.mask.seen(token + i..token + i + 1, length);
                    let part = |token: usize| (token * fold).clamp(from, from + count) - from;
                    (part(tokens.start), part(tokens.end))
                };
                for i in 0..m {
                    let row = &mut scores[i * stride..][..stride];
                    let seen = sees(i);
                    let mut scale = T::of(op.scale.get());
                    if let Some((bias, most)) = self.to.bias {
                        let heads = op.heads.queries as usize;
                        let near = (most - 1 + from + seen.0).saturating_sub(token + i);
                        let own = bias.iter().skip(near * heads + shared * group + g);
                        let own = own.step_by(heads);
                        for (x, &more) in row[seen.0..seen.1.max(seen.0)].iter_mut().zip(own) {
                            *x = *x * scale + more;
                        }
                        scale = T::one();
                    }
                    let bounds = (scale, T::of(op.softcap.map_or(0.0, |c| c.get())));
                    let shrink = weigh(row, seen, bounds, (&mut state.0[i], &mut state.1[i]));
                    if !first && shrink != T::one() {
                        let out = &mut out[i * wide..][..head];
                        out.iter_mut().for_each(|x| *x *= shrink);
                    }
                }
                let weights = Strided {
                    data: &*scores,
                    row: stride,
                    column: 1,
                };
                let values = Rows {
                    data: values,
                    row: kd,
                };
                let into = if first { Into::Set } else { Into::Add };
                multiply((m, head, count), out, wide, weights, values, into);
            }
        }
        for (g, i) in (0..group).flat_map(|g| (0..m).map(move |i| (g, i))) {
            let inverse = T::one() / own.sums[g * m + i];
            let out = &mut out[i * wide + g * head..][..head];
            out.iter_mut().for_each(|x| *x *= inverse);
        }
    }
}

/// Of a row of products, of which a query sees those from `.0` to before `.1`: the exponentials of its scores over that
/// of the largest so far, which is brought up to date with the sum; gives the factor of what was summed before.
fn weigh<T: Elementary>(
    row: &mut [T],
    seen: (usize, usize),
    (scale, cap): (T, T),
    (top, sum): (&mut T, &mut T),
) -> T {
    if seen.0 >= seen.1 {
        row.fill(T::zero());
        return T::one();
    }
    let high = simd!(<T> (row: &'a mut [T] = row, seen: (usize, usize) = seen, scale: T = scale, cap: T = cap, top: T = *top) -> T {
        if cap == T::zero() {
            by_sixteen(row, |x| x * scale);
        } else {
            by_sixteen(row, |x| (x * scale / cap).tanh_fast() * cap);
        }
        clear_outside(row, seen, T::neg_infinity());
        let own = row_max(row);
        let high = if own > top { own } else { top };
        by_sixteen(row, |x| x - high);
        high
    });
    exp_all(row);
    clear_outside(row, seen, T::zero());
    let shrink = if *top == T::neg_infinity() {
        T::zero()
    } else if *top == high {
        T::one()
    } else {
        (*top - high).exp_fast()
    };
    let own = simd!(<T> (row: &'a [T] = row) -> T { row_sum(row, |x| x) });
    *sum = *sum * shrink + own;
    *top = high;
    shrink
}

/// The products of a query with some keys, `step` apart.
fn dots<T: Elementary>(query: &[T], keys: &[T], step: usize, out: &mut [T]) {
    simd!(<T> (query: &'a [T] = query, keys: &'a [T] = keys, step: usize = step, out: &'a mut [T] = out) {
        const LANES: usize = 16;
        let whole = query.len() - query.len() % LANES;
        for (j, out) in out.iter_mut().enumerate() {
            let key = &keys[j * step..][..query.len()];
            let mut lanes = [T::zero(); LANES];
            for (q, k) in query[..whole].as_chunks::<LANES>().0.iter().zip(key.as_chunks::<LANES>().0) {
                for ((lane, &q), &k) in lanes.iter_mut().zip(q).zip(k) {
                    *lane += q * k;
                }
            }
            for ((lane, &q), &k) in lanes.iter_mut().zip(&query[whole..]).zip(&key[whole..]) {
                *lane += q * k;
            }
            *out = row_sum(&lanes, |x| x);
        }
    });
}
