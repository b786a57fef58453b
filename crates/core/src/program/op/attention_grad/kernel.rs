//! The gradient of attention on the processor: sequences in parallel, queries in tiles.

use std::ops::Range;

use rayon::prelude::*;

use super::super::attention::{
    Attention, BACKWARD_TILE, Bias, Draw, Lengths, Mask, aligned, clear_outside, is_small, padded,
    sequences, split_rows, transpose,
};
use super::super::math::{Elementary, by_sixteen, exp_all, row_sum_of_two, simd};
use super::super::tile::{Into, Rows, Strided, multiply};
use super::super::{Io, Kernel, OpError};
use super::AttentionGrad;

impl AttentionGrad {
    pub(super) fn compute<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let at = self.0.tail(6);
        let (rows, d, kd) = (
            io.input(0).dims[0],
            io.input(0).dims[1],
            io.input(2).dims[1],
        );
        let seqs = sequences(io.input(at.offsets).slice::<u32>(), rows)?;
        let sources = at.sources(io)?;
        let across = at.sources.map(|_| sources.as_slice());
        let lengths = Lengths::of_sequences(&self.0, &seqs, across);
        let operands = Operands::of(&self.0, io, lengths.longest)?;
        let head = d / self.0.heads.queries as usize;
        let [dq, dk, dv] = io.outputs.as_mut_slice() else {
            unreachable!("three outputs: inferred")
        };
        let own: Vec<Own> = (0..)
            .zip(&seqs)
            .map(|(s, &range)| Own::of(&self.0, s, range, &sources))
            .collect();
        let keys = || own.iter().map(|own| (own.key, own.key + own.keys));
        let (dq, dk, dv) = (
            split_rows(dq.slice::<T>(), seqs.iter().copied(), d),
            split_rows(dk.slice::<T>(), keys(), kd),
            split_rows(dv.slice::<T>(), keys(), kd),
        );
        let work = |(((&own, dq), dk), dv): (((&Own, &mut [T]), &mut [T]), &mut [T])| {
            self.sequence(own, d, &operands, [dq, dk, dv]);
        };
        cx.scratch(
            lengths.backward_scratch(head as u64, size_of::<T>() as u64, cx.machine),
            || {
                if is_small(&seqs, d) && is_small(&sources, d) {
                    own.iter().zip(dq).zip(dk).zip(dv).for_each(work);
                } else {
                    own.par_iter().zip(dq).zip(dk).zip(dv).for_each(work);
                }
            },
        );
        Ok(())
    }

    fn sequence<T: Elementary>(
        &self,
        own: Own,
        d: usize,
        x: &Operands<'_, T>,
        [dq, dk, dv]: [&mut [T]; 3],
    ) {
        let Attention { heads, mask, .. } = self.0;
        let (start, end) = own.tokens;
        let (first_key, n, group) = (own.key, own.keys, heads.group() as usize);
        if start == end {
            // A prefix that no query reads.
            dk.fill(T::zero());
            dv.fill(T::zero());
            return;
        }
        let head = d / heads.queries as usize;
        let kd = head * heads.keys as usize;
        let tile = BACKWARD_TILE.min(end - start);
        let mut buffers = Buffers::new((head, n, tile));
        // Where every query sees every key, the first tile of a head writes all sums.
        let all = mask == Mask::FULL;
        if !all {
            dk.fill(T::zero());
            dv.fill(T::zero());
        }
        for h in 0..heads.queries as usize {
            let column = h / group * head;
            if h % group == 0 {
                buffers.fill(x, (first_key * kd + column, kd), (head, n));
            }
            for row in (start..end).step_by(tile) {
                let rows = row..end.min(row + tile);
                let queries = row - start..rows.end - start;
                let seen = self.0.seen(queries, (end - start, n));
                let part = Part {
                    h,
                    start,
                    end,
                    all: n,
                    keys: aligned(seen.start)..seen.end,
                    rows,
                };
                self.scores(&part, d, x, &mut buffers);
                let (m, n) = (part.rows.len(), part.keys.len());
                let first = all && h % group == 0 && row == start;
                let into = if first { Into::Set } else { Into::Add };
                let at = row * d + h * head;
                let rows = |data| Rows { data, row: d };
                let columns = |data| Strided {
                    data,
                    row: 1,
                    column: padded(n),
                };
                let (up, queries) = (rows(&x.up[at..]), rows(&x.q[at..]));
                let key = part.keys.start * kd + column;
                let [dk, dv] = [&mut dk[key..], &mut dv[key..]];
                multiply((n, head, m), dv, kd, columns(&buffers.p), up, into);
                multiply((n, head, m), dk, kd, columns(&buffers.ds), queries, into);
                let weights = Strided {
                    data: &buffers.ds,
                    row: padded(n),
                    column: 1,
                };
                let keys = Rows {
                    data: &x.k[first_key * kd + key..],
                    row: kd,
                };
                let dq = &mut dq[(row - start) * d + h * head..];
                multiply((m, head, n), dq, d, weights, keys, Into::Set);
            }
        }
    }

    /// Of a part's queries and keys: the dropped probabilities, and `scale · dS`.
    pub(in super::super) fn scores<T: Elementary>(
        &self,
        part: &Part,
        d: usize,
        x: &Operands<'_, T>,
        own: &mut Buffers<T>,
    ) {
        let heads = self.0.heads.queries as usize;
        let (head, stride, m) = (d / heads, padded(part.keys.len()), part.rows.len());
        let at = |row: usize| row * d + part.h * head;
        let by_row = |data| Strided {
            data,
            row: d,
            column: 1,
        };
        let columns = |data| Rows {
            data,
            row: padded(part.all),
        };
        let (row, key) = (part.rows.start, part.keys.start);
        let (queries, keys) = (by_row(&x.q[at(row)..]), columns(&own.keys[key..]));
        let sizes = (m, stride, head);
        multiply(sizes, &mut own.p, stride, queries, keys, Into::Set);
        let (up, values) = (by_row(&x.up[at(row)..]), columns(&own.values[key..]));
        multiply(sizes, &mut own.ds, stride, up, values, Into::Set);
        let scale = T::of(self.0.scale.get());
        let cap = self.0.softcap.map(|cap| T::of(cap.get()));
        let lse = |i: usize| x.lse[(row + i) * heads + part.h];
        if cap.is_none() {
            for (i, p) in own.p.chunks_exact_mut(stride).take(m).enumerate() {
                match x.bias {
                    Some(bias) => {
                        let query = row + i - part.start;
                        bias.add(part.h, (query, key), scale, &mut p[..part.keys.len()]);
                        shift_row(p, T::one(), lse(i));
                    }
                    None => shift_row(p, scale, lse(i)),
                }
            }
            exp_all(&mut own.p[..m * stride]);
        }
        let rows = own.p.chunks_exact_mut(stride);
        let rows = rows.zip(own.ds.chunks_exact_mut(stride));
        for (i, (p, ds)) in rows.take(m).enumerate() {
            if let Some(draw) = &x.draw {
                own.factors.fill(T::one());
                let factors = &mut own.factors[..part.keys.len()];
                draw.drop((part.h, key), row + i, factors);
            }
            let dot = dot(&x.up[at(row + i)..][..head], &x.o[at(row + i)..][..head]);
            let query = Query {
                factors: x.draw.as_ref().map(|_| &own.factors[..]),
                seen: part.seen(&self.0, i),
                scale,
                dot,
            };
            match cap {
                Some(cap) => capped_row(p, ds, query, cap, lse(i)),
                None => score_row(p, ds, query),
            }
        }
    }
}

/// A sequence: its tokens, the row of its first key, and how many keys it has.
#[derive(Clone, Copy)]
struct Own {
    tokens: (usize, usize),
    key: usize,
    keys: usize,
}

impl Own {
    fn of(op: &Attention, s: usize, tokens: (usize, usize), sources: &[(usize, usize)]) -> Self {
        let (key, keys) = op.keys(s, tokens, sources);
        Self { tokens, key, keys }
    }
}

/// A tile of queries of one head: their `rows` of the packed tokens, within the sequence `start .. end`, and which of all the
/// keys of the sequence some of them see, from a whole vector on.
pub(in super::super) struct Part {
    pub h: usize,
    pub start: usize,
    pub end: usize,
    pub rows: Range<usize>,
    pub all: usize,
    pub keys: Range<usize>,
}

impl Part {
    /// The keys that query `i` sees, counted from the first of the part's.
    pub fn seen(&self, op: &Attention, i: usize) -> (usize, usize) {
        let query = self.rows.start + i - self.start;
        let keys = op.seen(query..query + 1, (self.end - self.start, self.all));
        (keys.start - self.keys.start, keys.end - self.keys.start)
    }
}

/// Scratch of a sequence, rows of its keys.
pub(in super::super) struct Buffers<T> {
    /// Of one head, by columns.
    keys: Vec<T>,
    values: Vec<T>,
    /// Probabilities of a tile of queries.
    pub p: Vec<T>,
    /// Their gradients.
    pub ds: Vec<T>,
    /// Factors of dropout of one query.
    factors: Vec<T>,
}

impl<T: Elementary> Buffers<T> {
    /// Of a head of so many columns, so many keys and a tile of so many queries.
    pub fn new((head, keys, tile): (usize, usize, usize)) -> Self {
        let buffer = |rows: usize| vec![T::zero(); rows * padded(keys)];
        Self {
            keys: buffer(head),
            values: buffer(head),
            p: buffer(tile),
            ds: buffer(tile),
            factors: buffer(1),
        }
    }

    /// Takes a head's keys and values, the first of which is at `from`, in rows `kd` apart.
    pub fn fill(
        &mut self,
        x: &Operands<'_, T>,
        (from, kd): (usize, usize),
        (head, keys): (usize, usize),
    ) {
        transpose(&x.k[from..], kd, keys, head, &mut self.keys);
        transpose(&x.v[from..], kd, keys, head, &mut self.values);
    }
}

/// The operands, but for the offsets.
pub(in super::super) struct Operands<'a, T> {
    up: &'a [T],
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    o: &'a [T],
    lse: &'a [T],
    bias: Option<Bias<'a, T>>,
    draw: Option<Draw<'a>>,
}

impl<'a, T: Elementary> Operands<'a, T> {
    /// Those of a gradient of an attention over sequences of which the longest is so long.
    pub fn of(op: &Attention, io: &Io<'a>, longest: u64) -> Result<Self, OpError> {
        let at = op.tail(6);
        let input = |i: usize| io.input(i).slice::<T>();
        let heads = op.heads.queries as usize;
        let bias = at.bias.map(|i| Bias::new(input(i), heads, longest));
        Ok(Self {
            up: input(0),
            q: input(1),
            k: input(2),
            v: input(3),
            o: input(4),
            lse: input(5),
            bias: bias.transpose()?,
            draw: op.draw(io, at),
        })
    }
}

pub(in super::super) fn dot<T: Elementary>(a: &[T], b: &[T]) -> T {
    simd!(<T> (a: &'a [T] = a, b: &'a [T] = b) -> T { row_sum_of_two(a, b, |a, b| a * b) })
}

/// `p ← scale · p − lse`
pub(in super::super) fn shift_row<T: Elementary>(p: &mut [T], scale: T, lse: T) {
    simd!(<T> (p: &'a mut [T] = p, scale: T = scale, lse: T = lse) { by_sixteen(p, |x| x * scale - lse) });
}

/// What a query's row of scores is worked on with.
#[derive(Clone, Copy)]
pub(in super::super) struct Query<'a, T> {
    /// Factors of dropout.
    pub factors: Option<&'a [T]>,
    /// The keys it sees.
    pub seen: (usize, usize),
    pub scale: T,
    /// `D`.
    pub dot: T,
}

/// One query: from probabilities and `up vᵀ` to the dropped probabilities and `scale · dS`.
pub(in super::super) fn score_row<T: Elementary>(p: &mut [T], ds: &mut [T], query: Query<'_, T>) {
    simd!(<T> (p: &'a mut [T] = p, ds: &'a mut [T] = ds, query: Query<'a, T> = query) {
        let Query { factors, seen, scale, dot } = query;
        clear_outside(p, seen, T::zero());
        let blocks = p.as_chunks_mut::<16>().0.iter_mut().zip(ds.as_chunks_mut::<16>().0);
        match factors {
            None => {
                for (p, ds) in blocks {
                    for (ds, &mut p) in ds.iter_mut().zip(p) {
                        *ds = p * (*ds - dot) * scale;
                    }
                }
            }
            Some(factors) => {
                for ((p, ds), factors) in blocks.zip(factors.as_chunks::<16>().0) {
                    for ((ds, p), &f) in ds.iter_mut().zip(p).zip(factors) {
                        *ds = *p * (*ds * f - dot) * scale;
                        *p *= f;
                    }
                }
            }
        }
    });
}

/// The same from the products of a query and its keys, whose scores stay within `cap`.
fn capped_row<T: Elementary>(p: &mut [T], ds: &mut [T], query: Query<'_, T>, cap: T, lse: T) {
    simd!(<T> (p: &'a mut [T] = p, ds: &'a mut [T] = ds, query: Query<'a, T> = query, cap: T = cap, lse: T = lse) {
        let Query { factors, seen, scale, dot } = query;
        let factor = |i: usize| factors.map_or(T::one(), |list| list[i]);
        for (i, (p, ds)) in p.iter_mut().zip(ds.iter_mut()).enumerate() {
            let bent = (*p * scale / cap).tanh_fast();
            *ds = (*ds * factor(i) - dot) * scale * (T::one() - bent * bent);
            *p = (cap * bent - lse).exp_fast();
        }
        clear_outside(p, seen, T::zero());
        for (i, (p, ds)) in p.iter_mut().zip(ds).enumerate() {
            *ds *= *p;
            *p *= factor(i);
        }
    });
}
