//! Disentangled attention on the processor: sequences and heads in parallel, queries in tiles.

use std::ops::Range;

use rayon::prelude::*;

use super::super::super::types::Sym;
use super::super::attention::{
    Bounds, Draw, centre_rows, is_small, normalise_rows, padded, sequences, transpose,
};
use super::super::math::{Elementary, exp_all};
use super::super::tile::{Into, Rows, Strided, multiply};
use super::super::{Io, Kernel, Machine, OpError, SizedCx};
use super::{DisentangledAttention, Tail};

/// Rows of the forward's tile of scores.
const TILE: usize = 16;
/// Rows of the backward's.
pub(in super::super) const BACKWARD_TILE: usize = 32;

/// What the kernels' scratch depends on: the sequences of a batch, the rows of the tables, a head's width and an element's size.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Lengths {
    pub sequences: u64,
    pub tokens: u64,
    pub longest: u64,
    pub rows: u64,
    pub head: u64,
    pub heads: u64,
    pub size: u64,
}

impl Lengths {
    /// From the operands of a node.
    pub fn of(cx: &SizedCx, at: Tail) -> Self {
        let of = cx.inputs.first();
        let elements = of.map_or(0, |x| x.dims.iter().product::<usize>() as u64);
        Self {
            sequences: cx.rows(at.offsets).saturating_sub(1),
            tokens: cx.rows(0),
            longest: cx.sizes.get(Sym::Longest),
            rows: at.tables().map(|i| cx.rows(i)).max().unwrap_or(0),
            head: cx.width(0),
            heads: 1,
            size: of.map_or(0, |x| x.bytes) / elements.max(1),
        }
    }

    /// Those of sequences at hand, of matrices `[T, d]` of numbers of this size.
    pub fn of_sequences(seqs: &[(usize, usize)], (d, rows): (usize, usize), size: usize) -> Self {
        Self {
            sequences: seqs.len() as u64,
            tokens: seqs.last().map_or(0, |(_, end)| *end) as u64,
            longest: seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0) as u64,
            rows: rows as u64,
            head: d as u64,
            heads: 1,
            size: size as u64,
        }
    }

    /// The same with the width of a head.
    fn by(self, heads: u32) -> Self {
        let heads = u64::from(heads.max(1));
        Self {
            head: self.head / heads,
            heads,
            ..self
        }
    }

    /// Most rows of a table that a sequence has distances of.
    pub fn met(self) -> u64 {
        self.rows.min((2 * self.longest).saturating_sub(1))
    }

    /// Bytes of the lists of a matrix' rows by head.
    const fn lists(self, matrices: u64, rows: u64) -> u64 {
        matrices * rows * self.heads * size_of::<&mut [f32]>() as u64
    }

    /// Scratch of the forward: on each thread the keys of a head, transposed, rows of the tables likewise and their products with
    /// all keys and with a tile of queries, and that tile's scores and outputs; and lists of rows, twice.
    pub fn forward(self, op: &DisentangledAttention, machine: &Machine) -> u64 {
        let own = self.by(op.heads);
        let tile = (TILE as u64).min(own.longest);
        let (keys, met) = (padded_to(own.longest), padded_to(own.met()));
        let by_queries = u64::from(op.by_queries) * met * (own.head + tile);
        let by_keys = u64::from(op.by_keys) * met * (own.head + own.longest);
        let thread = keys * (own.head + tile) + by_queries + by_keys + tile * (own.head + 1);
        let threads = (machine.threads as u64).min(own.sequences * own.heads);
        threads * thread * own.size + own.lists(4, own.tokens)
    }

    /// Scratch of the backward: on each thread keys and values of a head, transposed, rows of the tables likewise, products of all
    /// keys and of a tile of queries with them and the gradients of these, two tiles, a row of factors, gradients of a head; and
    /// lists of rows.
    pub fn backward(self, op: &DisentangledAttention, tables: bool, machine: &Machine) -> u64 {
        let own = self.by(op.heads);
        let tile = (BACKWARD_TILE as u64).min(own.longest);
        let (keys, met) = (padded_to(own.longest), padded_to(own.met()));
        let table = if tables { own.rows * own.head } else { 0 };
        let by_queries = u64::from(op.by_queries) * (met * (own.head + 2 * tile) + table);
        let by_keys = u64::from(op.by_keys) * (met * (own.head + 2 * own.longest) + table);
        let plain = keys * (2 * own.head + 2 * tile + 1) + own.head * (2 * own.longest + tile);
        let threads = (machine.threads as u64).min(own.heads);
        let count = u64::from(op.by_queries) + u64::from(op.by_keys);
        let lists = if tables { count } else { 0 };
        threads * (plain + by_queries + by_keys) * own.size
            + own.lists(3, own.tokens)
            + own.lists(lists, own.rows)
    }
}

/// A length rounded up to whole vectors.
const fn padded_to(n: u64) -> u64 {
    padded(n as usize) as u64
}

/// The parts of a matrix' rows that belong to each head, row by row.
pub(in super::super) fn by_head<T>(
    data: &mut [T],
    heads: usize,
    head: usize,
) -> Vec<Vec<&mut [T]>> {
    let rows = data.len() / (heads * head).max(1);
    let mut all: Vec<Vec<&mut [T]>> = (0..heads).map(|_| Vec::with_capacity(rows)).collect();
    for row in data.chunks_exact_mut((heads * head).max(1)) {
        for (own, part) in all.iter_mut().zip(row.chunks_exact_mut(head)) {
            own.push(part);
        }
    }
    all
}

/// The rows of the tables by distance.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Places<'a> {
    list: &'a [u32],
}

impl<'a> Places<'a> {
    /// A list over all distances.
    ///
    /// # Errors
    /// It does not reach as far as the longest sequence, or a row is outside the tables.
    pub fn new(list: &'a [u32], longest: u64, rows: Option<usize>) -> Result<Self, OpError> {
        if list.len().is_multiple_of(2) || ((list.len() / 2) as u64) < longest.saturating_sub(1) {
            return Err(OpError::Index {
                index: longest,
                rows: list.len() as u64,
            });
        }
        let own = Self { list };
        match (rows, own.within(longest as usize)) {
            (Some(rows), met) if met.end > rows => Err(OpError::Index {
                index: met.end as u64 - 1,
                rows: rows as u64,
            }),
            _ => Ok(own),
        }
    }

    /// The rows that the distances of a sequence of so many tokens have, from the first to the last.
    pub fn within(self, tokens: usize) -> Range<usize> {
        let (middle, far) = (self.list.len() / 2, tokens.saturating_sub(1));
        let own = &self.list[middle - far..=middle + far];
        let least = own.iter().min().map_or(0, |&row| row as usize);
        let most = own.iter().max().map_or(0, |&row| row as usize);
        least..most + 1
    }

    /// The rows of a query and each key of its sequence of so many tokens.
    pub fn of(self, query: usize, tokens: usize) -> &'a [u32] {
        let first = self.list.len() / 2 - query;
        &self.list[first..first + tokens]
    }
}

/// Adds to the products of a query and its keys those with the tables: `queries` of this query and every row from `first` on, `keys`
/// of each key and every row, in lines `stride` apart.
pub(in super::super) fn gather_row<T: Elementary>(
    scores: &mut [T],
    (rows, first): (&[u32], usize),
    queries: Option<&[T]>,
    keys: Option<(&[T], usize)>,
) {
    if let Some(own) = queries {
        for (score, &row) in scores.iter_mut().zip(rows) {
            *score += own[row as usize - first];
        }
    }
    if let Some((own, stride)) = keys {
        let lines = own.chunks_exact(stride.max(1));
        for ((score, &row), line) in scores.iter_mut().zip(rows).zip(lines) {
            *score += line[row as usize - first];
        }
    }
}

/// What every sequence and head reads.
struct Operands<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    /// The keys and the queries of distances.
    tables: [Option<&'a [T]>; 2],
    places: Places<'a>,
    scale: T,
    d: usize,
    head: usize,
    draw: Option<Draw<'a>>,
}

/// One head of one sequence, and what it makes: outputs and log-sum-exps, row by row.
struct Item<'a, T> {
    h: usize,
    rows: Range<usize>,
    out: Vec<&'a mut [T]>,
    lse: Vec<&'a mut [T]>,
}

/// Scratch of a head of one sequence.
struct Buffers<T> {
    /// The rows of the tables that it meets.
    met: Range<usize>,
    /// Those in whole vectors.
    wide: usize,
    /// Keys, transposed.
    keys: Vec<T>,
    /// Scores of a tile of queries.
    p: Vec<T>,
    /// The keys of distances, transposed, and a tile's products with them.
    by_queries: Option<[Vec<T>; 2]>,
    /// The queries of distances, transposed, and all keys' products with them.
    by_keys: Option<[Vec<T>; 2]>,
}

impl<T: Elementary> Operands<'_, T> {
    /// A head's columns of rows of a matrix, as the left operand of a product.
    fn left<'x>(&self, matrix: &'x [T], row: usize, h: usize) -> Strided<'x, T> {
        Strided {
            data: &matrix[row * self.d + h * self.head..],
            row: self.d,
            column: 1,
        }
    }

    fn buffers(&self, h: usize, rows: &Range<usize>) -> Buffers<T> {
        let (n, w) = (rows.len(), self.head);
        let (met, tile) = (self.places.within(n), TILE.min(n));
        let wide = padded(met.len());
        let turned = |matrix: &[T], row: usize, count: usize| {
            let mut to = vec![T::zero(); w * padded(count)];
            transpose(&matrix[row * self.d + h * w..], self.d, count, w, &mut to);
            to
        };
        let table = |own: Option<&[T]>, lines: usize| {
            let made = vec![T::zero(); if own.is_some() { lines * wide } else { 0 }];
            own.map(|own| [turned(own, met.start, met.len()), made])
        };
        let mut by_keys = table(self.tables[1], n);
        if let Some([table, made]) = &mut by_keys {
            let keys = self.left(self.k, rows.start, h);
            let columns = Rows {
                data: table,
                row: wide,
            };
            multiply((n, wide, w), made, wide, keys, columns, Into::Set);
        }
        Buffers {
            keys: turned(self.k, rows.start, n),
            p: vec![T::zero(); tile * padded(n)],
            by_queries: table(self.tables[0], tile),
            by_keys,
            met,
            wide,
        }
    }

    /// Products of a tile of queries, from the sequence's `from` on, with its keys and the tables.
    fn products(
        &self,
        h: usize,
        rows: &Range<usize>,
        (from, m): (usize, usize),
        x: &mut Buffers<T>,
    ) {
        let (n, w, wide) = (rows.len(), self.head, x.wide);
        let stride = padded(n);
        let queries = || self.left(self.q, rows.start + from, h);
        let keys = Rows {
            data: &x.keys,
            row: stride,
        };
        multiply((m, stride, w), &mut x.p, stride, queries(), keys, Into::Set);
        if let Some([table, made]) = &mut x.by_queries {
            let columns = Rows {
                data: table,
                row: wide,
            };
            multiply((m, wide, w), made, wide, queries(), columns, Into::Set);
        }
        for (i, p) in x.p.chunks_exact_mut(stride).take(m).enumerate() {
            let places = (self.places.of(from + i, n), x.met.start);
            let queries = x.by_queries.as_ref();
            let queries = queries.map(|[_, made]| &made[i * wide..][..wide]);
            let keys = x.by_keys.as_ref().map(|[_, made]| (&made[..], wide));
            gather_row(&mut p[..n], places, queries, keys);
        }
    }

    fn attend(&self, item: Item<'_, T>) {
        let Item { h, rows, out, lse } = item;
        let (n, w) = (rows.len(), self.head);
        let mut x = self.buffers(h, &rows);
        let (mut made, mut sums) = (
            vec![T::zero(); TILE.min(n) * w],
            vec![T::zero(); TILE.min(n)],
        );
        let mut to = out.into_iter().zip(lse);
        for from in (0..n).step_by(TILE) {
            let m = (n - from).min(TILE);
            self.products(h, &rows, (from, m), &mut x);
            let seen = [(0, n); TILE];
            let bounds = Bounds {
                scale: self.scale,
                cap: T::zero(),
            };
            let tile = &mut x.p[..m * padded(n)];
            centre_rows(tile, &seen[..m], bounds, &mut sums, 1);
            exp_all(tile);
            normalise_rows(tile, &seen[..m], &mut sums, 1);
            if let Some(draw) = &self.draw {
                for (i, p) in tile.chunks_exact_mut(padded(n)).enumerate() {
                    draw.drop((h, 0), rows.start + from + i, &mut p[..n]);
                }
            }
            let weights = Strided {
                data: tile,
                row: padded(n),
                column: 1,
            };
            let values = Rows {
                data: &self.v[rows.start * self.d + h * w..],
                row: self.d,
            };
            multiply((m, w, n), &mut made, w, weights, values, Into::Set);
            let all = made.chunks_exact(w).zip(&sums).take(m);
            for ((row, sum), (to_row, to_sum)) in all.zip(&mut to) {
                to_row.copy_from_slice(row);
                to_sum.fill(*sum);
            }
        }
    }
}

impl DisentangledAttention {
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
        let of_table = at.tables().next().map(|i| io.input(i).dims[0]);
        let lengths = Lengths::of_sequences(&seqs, (d, of_table.unwrap_or(0)), size_of::<T>());
        let list = io.input(at.distances).slice::<u32>();
        let (heads, head) = (self.heads as usize, d / self.heads as usize);
        let operands = Operands {
            q: io.input(0).slice::<T>(),
            k: io.input(1).slice::<T>(),
            v: io.input(2).slice::<T>(),
            tables: [at.keys, at.queries].map(|at| at.map(|i| io.input(i).slice::<T>())),
            places: Places::new(list, lengths.longest, of_table)?,
            scale: T::of(self.scale.get()),
            d,
            head,
            draw: self.draw(io, at),
        };
        let [o, lse] = io.outputs.as_mut_slice() else {
            unreachable!("two outputs: inferred")
        };
        let (o, lse) = (o.slice::<T>(), lse.slice::<T>());
        cx.scratch(lengths.forward(self, cx.machine), || {
            let mut items = Vec::with_capacity(seqs.len() * heads);
            let all = by_head(o, heads, head)
                .into_iter()
                .zip(by_head(lse, heads, 1));
            for (h, (out, lse)) in all.enumerate() {
                let (mut out, mut lse) = (out.into_iter(), lse.into_iter());
                items.extend(seqs.iter().map(|&(start, end)| Item {
                    h,
                    rows: start..end,
                    out: out.by_ref().take(end - start).collect(),
                    lse: lse.by_ref().take(end - start).collect(),
                }));
            }
            items.retain(|item: &Item<'_, T>| !item.rows.is_empty());
            if is_small(&seqs, d) {
                items.into_iter().for_each(|item| operands.attend(item));
            } else {
                items.into_par_iter().for_each(|item| operands.attend(item));
            }
        });
        Ok(())
    }
}
