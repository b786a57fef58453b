//! `attention_grad`: gradient of attention by queries, keys and values.

use std::ops::Range;

use rayon::prelude::*;

use super::attention::{
    Attention, BACKWARD_TILE, Draw, Lengths, Mask, Tiling, aligned, check_tail, clear_outside,
    draw_buffers, draw_numbers, head_and_size, is_small, padded, sequences, split_rows, transpose,
};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, held, source,
};
use super::math::{Elementary, by_sixteen, exp_all, row_sum_of_two, simd};
use super::tile::{Into, Rows, Strided, multiply};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(up, q [T, H·w], k, v [k·T, K·w], o [T, H·w], lse [T, H], offsets[, keys, step]) → (dq, dk, dv)` of an [`Attention`].
///
/// With `s = scale · q kᵀ`, `P = exp(cap(s) − lse)`, mask factor `M` and `D = Σ up ⊙ o` per row and head:
/// `dv = (P⊙M)ᵀ up`, `dS = P ⊙ (M ⊙ (up vᵀ) − D) ⊙ cap'(s)`, `dq = scale · dS k`, `dk = scale · dSᵀ q`, those of keys and
/// values summed over the heads that share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionGrad(pub Attention);

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("attention_grad" with "sequence.cuh", "attention.cuh"));

/// The kernels whose products are of bf16 numbers.
pub(super) const IN_BF16: KernelSource = source!("attention_grad_bf16" with "sequence.cuh", "attention.cuh", "tensor_core.cuh", "attention_bf16.cuh");

impl OpRule for AttentionGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, q, k, v, o, lse, tail @ ..] = x else {
            return Err("six matrices and offsets are wanted".into());
        };
        check_tail(tail, self.0.dropout.is_some())?;
        let offsets = tail.first().is_some_and(|o| self.0.fits(q, k, o));
        if up == q && offsets && k == v && q == o && lse.dtype == q.dtype {
            Ok(vec![(*q).clone(), (*k).clone(), (*k).clone()])
        } else {
            Err("five matrices of one type, whose widths the heads divide, are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let op = &self.0;
        let held = held(cx, &[0, 1, 2, 3, 4], &[0, 1, 2])?;
        let mut list = Launches::of(held);
        let tile = Tiling::of(cx.width(0), op.heads.queries, op.precision)?;
        let (source, queries, keys) = kernels(tile);
        let lengths = Lengths::of(cx, 6, op);
        let heads = op.heads.queries;
        let (count, d) = (lengths.tokens * u64::from(heads), cx.width(0));
        let dots = list.scratch(4 * count);
        // The walk by queries of bf16 numbers makes them itself.
        if !tile.in_bf16 {
            list.rows(
                "attention_grad",
                "attention_dots",
                count.div_ceil(8),
                256,
                args![In(0), In(4), dots, d as u32, heads, count],
            );
        }
        let outputs = if tile.in_bf16 { args![In(4)] } else { args![] };
        let mut call =
            |kernel: &'static str, (before, outs): (&[Arg], Vec<Arg>), longest: u64, heads: u32| {
                let mut args = args![In(0), In(1), In(2), In(3)];
                args.extend(before);
                args.extend(args![In(5), dots, In(6)]);
                args.extend(draw_buffers(op.dropout.as_ref(), 7));
                args.extend(outs);
                args.extend(args![Fault]);
                args.extend(tile.sizes(lengths, longest, op));
                args.extend(draw_numbers(op.dropout.as_ref()));
                list.call(Call {
                    source,
                    kernel,
                    held,
                    grid: tile.grid(lengths, longest, heads),
                    block: tile.threads(),
                    shared: tile.backward_shared(),
                    args,
                });
            };
        call(queries, (&outputs, args![Out(0)]), lengths.longest, heads);
        let outs = (&[][..], args![Out(1), Out(2)]);
        call(keys, outs, lengths.most_keys(), op.heads.keys);
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let pairs = self.0.pairs(cx);
        Cost {
            flops: 10 * pairs * cx.width(0) + 6 * pairs * u64::from(self.0.heads.queries),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (head, size) = head_and_size(cx, self.0.heads.queries);
        Lengths::of(cx, 6, &self.0).backward_scratch(head, size, machine)
    }
}

/// The source of the kernels for these tiles, that by queries and that by keys.
const fn kernels(tile: Tiling) -> (&'static str, &'static str, &'static str) {
    match (tile.in_bf16, tile.columns) {
        (true, 64) => (
            "attention_grad_bf16",
            "attention_grad_queries_bf16_64",
            "attention_grad_keys_bf16_64",
        ),
        (true, _) => (
            "attention_grad_bf16",
            "attention_grad_queries_bf16_128",
            "attention_grad_keys_bf16_128",
        ),
        (false, 64) => (
            "attention_grad",
            "attention_grad_queries_64",
            "attention_grad_keys_64",
        ),
        (false, 128) => (
            "attention_grad",
            "attention_grad_queries_128",
            "attention_grad_keys_128",
        ),
        (false, _) => (
            "attention_grad",
            "attention_grad_queries_256",
            "attention_grad_keys_256",
        ),
    }
}

impl AttentionGrad {
    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let input = |i: usize| io.input(i).slice::<T>();
        let operands = Operands {
            up: input(0),
            q: input(1),
            k: input(2),
            v: input(3),
            o: input(4),
            lse: input(5),
        };
        let (rows, d, kd) = (
            io.input(0).dims[0],
            io.input(0).dims[1],
            io.input(2).dims[1],
        );
        let seqs = sequences(io.input(6).slice::<u32>(), rows)?;
        let draw = self.0.dropout.as_ref().map(|drop| {
            Draw::new(
                drop,
                io.input(7).slice::<u32>(),
                io.input(8).slice::<u32>()[0],
            )
        });
        let longest = seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0) as u64;
        let lengths = Lengths {
            sequences: seqs.len() as u64,
            tokens: rows as u64,
            longest,
            fold: self.0.fold.into(),
            prefix: self.0.prefix.into(),
        };
        let head = d / self.0.heads.queries as usize;
        let [dq, dk, dv] = io.outputs.as_mut_slice() else {
            unreachable!("three outputs: inferred")
        };
        let own: Vec<Own> = (0..)
            .zip(&seqs)
            .map(|(s, &range)| Own::of(&self.0, s, range))
            .collect();
        let keys = || own.iter().map(|own| (own.key, own.key + own.keys));
        let (dq, dk, dv) = (
            split_rows(dq.slice::<T>(), seqs.iter().copied(), d),
            split_rows(dk.slice::<T>(), keys(), kd),
            split_rows(dv.slice::<T>(), keys(), kd),
        );
        let work = |(((&own, dq), dk), dv): (((&Own, &mut [T]), &mut [T]), &mut [T])| {
            self.sequence(own, d, &operands, draw.as_ref(), [dq, dk, dv]);
        };
        cx.scratch(
            lengths.backward_scratch(head as u64, size_of::<T>() as u64, cx.machine),
            || {
                if is_small(&seqs, d) {
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
        draw: Option<&Draw<'_>>,
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
        let (stride, tile) = (padded(n), BACKWARD_TILE.min(end - start));
        let buffer = |rows: usize| vec![T::zero(); rows * stride];
        let mut buffers = Buffers {
            keys: buffer(head),
            values: buffer(head),
            p: buffer(tile),
            ds: buffer(tile),
            factors: buffer(1),
        };
        // Where every query sees every key, the first tile of a head writes all sums.
        let all = mask == Mask::FULL;
        if !all {
            dk.fill(T::zero());
            dv.fill(T::zero());
        }
        for h in 0..heads.queries as usize {
            let column = h / group * head;
            if h % group == 0 {
                let from = first_key * kd + column;
                transpose(&x.k[from..], kd, n, head, &mut buffers.keys);
                transpose(&x.v[from..], kd, n, head, &mut buffers.values);
            }
            for row in (start..end).step_by(tile) {
                let rows = row..end.min(row + tile);
                let seen = self.0.seen(row - start..rows.end - start, end - start);
                let part = Part {
                    h,
                    start,
                    end,
                    keys: aligned(seen.start)..seen.end,
                    rows,
                };
                self.scores(&part, (n, d), x, draw, &mut buffers);
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

    /// Of a part's queries and keys: the dropped probabilities, and `scale · dS`. `n` are the sequence's keys.
    fn scores<T: Elementary>(
        &self,
        part: &Part,
        (n, d): (usize, usize),
        x: &Operands<'_, T>,
        draw: Option<&Draw<'_>>,
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
            row: padded(n),
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
                shift_row(p, scale, lse(i));
            }
            exp_all(&mut own.p[..m * stride]);
        }
        let rows = own.p.chunks_exact_mut(stride);
        let rows = rows.zip(own.ds.chunks_exact_mut(stride));
        for (i, (p, ds)) in rows.take(m).enumerate() {
            if let Some(draw) = draw {
                own.factors.fill(T::one());
                let factors = &mut own.factors[..part.keys.len()];
                draw.drop((part.h, key), row + i, factors);
            }
            let dot = dot(&x.up[at(row + i)..][..head], &x.o[at(row + i)..][..head]);
            let query = Query {
                factors: draw.map(|_| &own.factors[..]),
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
    const fn of(op: &Attention, s: usize, tokens: (usize, usize)) -> Self {
        let (key, keys) = op.keys(s, tokens);
        Self { tokens, key, keys }
    }
}

/// A tile of queries of one head: their `rows` of the packed tokens, within the sequence `start .. end`, and the keys of
/// the sequence that some of them see, from a whole vector on.
struct Part {
    h: usize,
    start: usize,
    end: usize,
    rows: Range<usize>,
    keys: Range<usize>,
}

impl Part {
    /// The keys that query `i` sees, counted from the first of the part's.
    fn seen(&self, op: &Attention, i: usize) -> (usize, usize) {
        let query = self.rows.start + i - self.start;
        let keys = op.seen(query..query + 1, self.end - self.start);
        (keys.start - self.keys.start, keys.end - self.keys.start)
    }
}

/// Scratch of a sequence, rows of its keys.
struct Buffers<T> {
    /// Of one head, by columns.
    keys: Vec<T>,
    values: Vec<T>,
    /// Probabilities of a tile of queries.
    p: Vec<T>,
    /// Their gradients.
    ds: Vec<T>,
    /// Factors of dropout of one query.
    factors: Vec<T>,
}

/// The float operands.
struct Operands<'a, T> {
    up: &'a [T],
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    o: &'a [T],
    lse: &'a [T],
}

fn dot<T: Elementary>(a: &[T], b: &[T]) -> T {
    simd!(<T> (a: &'a [T] = a, b: &'a [T] = b) -> T { row_sum_of_two(a, b, |a, b| a * b) })
}

/// `p ← scale · p − lse`
fn shift_row<T: Elementary>(p: &mut [T], scale: T, lse: T) {
    simd!(<T> (p: &'a mut [T] = p, scale: T = scale, lse: T = lse) { by_sixteen(p, |x| x * scale - lse) });
}

/// What a query's row of scores is worked on with.
#[derive(Clone, Copy)]
struct Query<'a, T> {
    /// Factors of dropout.
    factors: Option<&'a [T]>,
    /// The keys it sees.
    seen: (usize, usize),
    scale: T,
    /// `D`.
    dot: T,
}

/// One query: from probabilities and `up vᵀ` to the dropped probabilities and `scale · dS`.
fn score_row<T: Elementary>(p: &mut [T], ds: &mut [T], query: Query<'_, T>) {
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

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::attention::{cases, faults, samples};
    use super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2, 3, 4], vec![0, 1, 2]));
    for [_, (op, inputs)] in samples() {
        all.sample(op, inputs);
    }
    all.offsets = Some(6);
    for [_, (op, inputs)] in cases() {
        all.case(op, inputs);
    }
    for [_, (op, inputs)] in faults() {
        all.fault(op, inputs);
    }
    all
}
