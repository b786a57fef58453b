//! The gradient of disentangled attention on the processor: heads in parallel, sequence by sequence, queries in tiles.

use std::ops::Range;

use rayon::prelude::*;

use super::super::attention::{Draw, padded, sequences, transpose};
use super::super::attention_grad::{Query, dot, score_row, shift_row};
use super::super::disentangled_attention::{BACKWARD_TILE, Lengths, Places, by_head, gather_row};
use super::super::math::{Elementary, exp_all};
use super::super::tile::{Into, Rows, Strided, multiply};
use super::super::{Io, Kernel, OpError};
use super::DisentangledAttentionGrad;

/// What every head reads.
struct Operands<'a, T> {
    up: &'a [T],
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    o: &'a [T],
    lse: &'a [T],
    tables: [Option<&'a [T]>; 2],
    places: Places<'a>,
    scale: T,
    d: usize,
    heads: usize,
    head: usize,
    draw: Option<Draw<'a>>,
}

/// The rows of a head's gradients: by queries, keys and values.
type Made<'a, T> = [Vec<&'a mut [T]>; 3];

/// Scratch of a head of one sequence.
struct Buffers<T> {
    keys: Vec<T>,
    values: Vec<T>,
    /// Probabilities of a tile of queries.
    p: Vec<T>,
    /// Their gradients.
    ds: Vec<T>,
    factors: Vec<T>,
    /// The keys of distances, transposed; products of a tile's queries with them, and the gradients of these.
    by_queries: Option<[Vec<T>; 3]>,
    /// The queries of distances, transposed; products of all keys with them, and the gradients of these.
    by_keys: Option<[Vec<T>; 3]>,
    /// Gradients by a tile's queries, by keys and by values.
    sums: [Vec<T>; 3],
}

/// A head of one sequence.
#[derive(Clone)]
struct Own {
    h: usize,
    rows: Range<usize>,
    /// The rows of the tables that it meets, and how many whole vectors hold.
    met: Range<usize>,
    wide: usize,
}

impl<'a, T: Elementary> Operands<'a, T> {
    /// Columns of a head of a matrix, from a row on.
    fn rows<'x>(&self, own: &Own, matrix: &'x [T], row: usize) -> Rows<'x, T> {
        Rows {
            data: &matrix[row * self.d + own.h * self.head..],
            row: self.d,
        }
    }

    /// The same as the left operand of a product.
    fn left<'x>(&self, own: &Own, matrix: &'x [T], row: usize) -> Strided<'x, T> {
        let Rows { data, row } = self.rows(own, matrix, row);
        Strided {
            data,
            row,
            column: 1,
        }
    }

    fn buffers(&self, own: &Own) -> Buffers<T> {
        let (n, w, m) = (own.rows.len(), self.head, own.met.len());
        let (stride, tile) = (padded(n), BACKWARD_TILE.min(n));
        let buffer = |size: usize| vec![T::zero(); size];
        let turned = |matrix: &[T], row: usize, (count, stride): (usize, usize)| {
            let mut to = buffer(w * stride);
            let from = &matrix[row * self.d + own.h * w..];
            transpose(from, self.d, count, w, &mut to);
            to
        };
        let table = |matrix: &[T], lines: usize| {
            let made = turned(matrix, own.met.start, (m, own.wide));
            [made, buffer(lines * own.wide), buffer(lines * own.wide)]
        };
        let [by_queries, by_keys] = self.tables;
        let by_keys = by_keys.map(|matrix| {
            let mut all = table(matrix, n);
            let [table, made, _] = &mut all;
            let columns = Rows {
                data: table,
                row: own.wide,
            };
            let keys = self.left(own, self.k, own.rows.start);
            multiply((n, own.wide, w), made, own.wide, keys, columns, Into::Set);
            all
        });
        Buffers {
            keys: turned(self.k, own.rows.start, (n, stride)),
            values: turned(self.v, own.rows.start, (n, stride)),
            p: buffer(tile * stride),
            ds: buffer(tile * stride),
            factors: buffer(stride),
            by_queries: by_queries.map(|matrix| table(matrix, tile)),
            by_keys,
            sums: [buffer(tile * w), buffer(n * w), buffer(n * w)],
        }
    }

    /// Of a tile of queries, from the sequence's `from` on: the dropped probabilities, and `scale · dS`.
    fn scores(&self, own: &Own, (from, m): (usize, usize), x: &mut Buffers<T>) {
        let (n, w, stride) = (own.rows.len(), self.head, padded(own.rows.len()));
        let row = own.rows.start + from;
        let columns = |data| Rows { data, row: stride };
        let (queries, up) = (self.left(own, self.q, row), self.left(own, self.up, row));
        let sizes = (m, stride, w);
        multiply(
            sizes,
            &mut x.p,
            stride,
            queries,
            columns(&x.keys),
            Into::Set,
        );
        multiply(sizes, &mut x.ds, stride, up, columns(&x.values), Into::Set);
        if let Some([table, made, _]) = &mut x.by_queries {
            let columns = Rows {
                data: table,
                row: own.wide,
            };
            let queries = self.left(own, self.q, row);
            multiply(
                (m, own.wide, w),
                made,
                own.wide,
                queries,
                columns,
                Into::Set,
            );
        }
        let lse = |i: usize| self.lse[(row + i) * self.heads + own.h];
        for (i, p) in x.p.chunks_exact_mut(stride).take(m).enumerate() {
            let places = (self.places.of(from + i, n), own.met.start);
            let queries = x.by_queries.as_ref();
            let queries = queries.map(|[_, made, _]| &made[i * own.wide..][..own.wide]);
            let keys = x.by_keys.as_ref().map(|[_, made, _]| (&made[..], own.wide));
            gather_row(&mut p[..n], places, queries, keys);
            shift_row(p, self.scale, lse(i));
        }
        exp_all(&mut x.p[..m * stride]);
        let rows = x.p.chunks_exact_mut(stride);
        for (i, (p, ds)) in rows.zip(x.ds.chunks_exact_mut(stride)).take(m).enumerate() {
            if let Some(draw) = &self.draw {
                x.factors.fill(T::one());
                draw.drop((own.h, 0), row + i, &mut x.factors[..n]);
            }
            let at = (row + i) * self.d + own.h * w;
            let query = Query {
                factors: self.draw.as_ref().map(|_| &x.factors[..]),
                seen: (0, n),
                scale: self.scale,
                dot: dot(&self.up[at..][..w], &self.o[at..][..w]),
            };
            score_row(p, ds, query);
        }
    }

    /// Adds a tile's slopes up by row of the tables: of each query, and of each key.
    fn scatter(&self, own: &Own, (from, m): (usize, usize), x: &mut Buffers<T>) {
        let (n, stride) = (own.rows.len(), padded(own.rows.len()));
        for (i, ds) in x.ds.chunks_exact(stride).take(m).enumerate() {
            let places = self.places.of(from + i, n).iter();
            let places = places.map(|&row| row as usize - own.met.start);
            if let Some([_, _, sums]) = &mut x.by_queries {
                let line = &mut sums[i * own.wide..][..own.wide];
                line.fill(T::zero());
                for (place, &ds) in places.clone().zip(ds) {
                    line[place] += ds;
                }
            }
            if let Some([_, _, sums]) = &mut x.by_keys {
                let lines = sums.chunks_exact_mut(own.wide);
                for ((place, &ds), line) in places.zip(ds).zip(lines) {
                    line[place] += ds;
                }
            }
        }
    }

    /// One head of one sequence: adds to the gradients by its tables, and writes the others.
    fn sequence(&self, own: &Own, made: &mut [&mut [&mut [T]]; 3], tables: &mut [Vec<T>; 2]) {
        let (n, w, start) = (own.rows.len(), self.head, own.rows.start);
        let (stride, count) = (padded(n), own.met.len());
        let mut x = self.buffers(own);
        for from in (0..n).step_by(BACKWARD_TILE) {
            let m = (n - from).min(BACKWARD_TILE);
            let row = start + from;
            self.scores(own, (from, m), &mut x);
            self.scatter(own, (from, m), &mut x);
            let columns = |data| Strided {
                data,
                row: 1,
                column: stride,
            };
            let (up, queries) = (self.rows(own, self.up, row), self.rows(own, self.q, row));
            let [dq, dk, dv] = &mut x.sums;
            multiply((n, w, m), dv, w, columns(&x.p), up, Into::Add);
            multiply((n, w, m), dk, w, columns(&x.ds), queries, Into::Add);
            let weights = Strided {
                data: &x.ds,
                row: stride,
                column: 1,
            };
            let keys = self.rows(own, self.k, start);
            multiply((m, w, n), dq, w, weights, keys, Into::Set);
            if let (Some([_, _, sums]), Some(table)) = (&x.by_queries, self.tables[0]) {
                let weights = Strided {
                    data: sums,
                    row: own.wide,
                    column: 1,
                };
                let rows = self.rows(own, table, own.met.start);
                multiply((m, w, count), dq, w, weights, rows, Into::Add);
                if let Some(to) = tables[0].get_mut(own.met.start * w..) {
                    add_to_table(
                        to,
                        (count, w, m),
                        (sums, own.wide),
                        self.rows(own, self.q, row),
                    );
                }
            }
            for (to, from) in made[0][row..].iter_mut().zip(dq.chunks_exact(w)).take(m) {
                to.copy_from_slice(from);
            }
        }
        let [_, dk, dv] = &mut x.sums;
        if let (Some([_, _, sums]), Some(table)) = (&x.by_keys, self.tables[1]) {
            let weights = Strided {
                data: sums,
                row: own.wide,
                column: 1,
            };
            let rows = self.rows(own, table, own.met.start);
            multiply((n, w, count), dk, w, weights, rows, Into::Add);
            if let Some(to) = tables[1].get_mut(own.met.start * w..) {
                add_to_table(
                    to,
                    (count, w, n),
                    (sums, own.wide),
                    self.rows(own, self.k, start),
                );
            }
        }
        for (made, sums) in made[1..].iter_mut().zip([dk, dv]) {
            for (to, from) in made[own.rows.clone()].iter_mut().zip(sums.chunks_exact(w)) {
                to.copy_from_slice(from);
            }
        }
    }
}

/// `to[count, w] += sumsᵀ · rows`, for sums of so many lines `wide` apart; nothing where no gradient is kept.
fn add_to_table<T: Elementary>(
    to: &mut [T],
    (count, w, lines): (usize, usize, usize),
    (sums, wide): (&[T], usize),
    rows: Rows<'_, T>,
) {
    if to.is_empty() {
        return;
    }
    let columns = Strided {
        data: sums,
        row: 1,
        column: wide,
    };
    multiply((count, w, lines), to, w, columns, rows, Into::Add);
}

impl DisentangledAttentionGrad {
    pub(super) fn compute<T: Elementary>(
        &self,
        cx: &Kernel<'_>,
        io: &mut Io<'_>,
    ) -> Result<(), OpError> {
        let (op, at) = (&self.of, self.of.tail(6));
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(at.offsets).slice::<u32>(), rows)?;
        let of_table = at.tables().next().map(|i| io.input(i).dims[0]);
        let lengths = Lengths::of_sequences(&seqs, (d, of_table.unwrap_or(0)), size_of::<T>());
        let list = io.input(at.distances).slice::<u32>();
        let input = |i: usize| io.input(i).slice::<T>();
        let (heads, head) = (op.heads as usize, d / op.heads as usize);
        let x = Operands {
            up: input(0),
            q: input(1),
            k: input(2),
            v: input(3),
            o: input(4),
            lse: input(5),
            tables: [at.keys, at.queries].map(|at| at.map(input)),
            places: Places::new(list, lengths.longest, of_table)?,
            scale: T::of(op.scale.get()),
            d,
            heads,
            head,
            draw: op.draw(io, at),
        };
        let kept = |there: bool| {
            if there && self.tables {
                of_table.unwrap_or(0) * head
            } else {
                0
            }
        };
        let kept = [kept(op.by_queries), kept(op.by_keys)];
        cx.scratch(lengths.backward(op, self.tables, cx.machine), || {
            let mut outs = io
                .outputs
                .iter_mut()
                .map(|out| by_head(out.slice::<T>(), heads, head));
            let mut next = || outs.next().unwrap_or_default();
            let (dq, dk, dv) = (next(), next(), next());
            let mut of_tables =
                kept.map(|size| if size > 0 { next() } else { Vec::new() }.into_iter());
            let tables = (0..heads).map(|_| {
                of_tables
                    .each_mut()
                    .map(|list| list.next().unwrap_or_default())
            });
            let tables: Vec<_> = tables.collect();
            let all = dq.into_iter().zip(dk).zip(dv).zip(tables).enumerate();
            let all: Vec<_> = all.collect();
            all.into_par_iter()
                .for_each(|(h, (((dq, dk), dv), tables))| {
                    head_of(&x, (h, &seqs), [dq, dk, dv], (tables, kept));
                });
        });
        Ok(())
    }
}

/// One head of all sequences, in their order; the gradients by its tables have so many numbers.
fn head_of<T: Elementary>(
    x: &Operands<'_, T>,
    (h, seqs): (usize, &[(usize, usize)]),
    mut made: Made<'_, T>,
    (tables, kept): ([Vec<&mut [T]>; 2], [usize; 2]),
) {
    let mut sums = kept.map(|size| vec![T::zero(); size]);
    let mut made = made.each_mut().map(|list| list.as_mut_slice());
    for &(start, end) in seqs.iter().filter(|(start, end)| start < end) {
        let met = x.places.within(end - start);
        let own = Own {
            h,
            rows: start..end,
            wide: padded(met.len()),
            met,
        };
        x.sequence(&own, &mut made, &mut sums);
    }
    for (rows, sums) in tables.into_iter().zip(&sums) {
        for (to, from) in rows.into_iter().zip(sums.chunks_exact(x.head)) {
            to.copy_from_slice(from);
        }
    }
}
