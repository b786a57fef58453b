//! `attention_grad`: gradient of attention by queries, keys and values.

use rayon::prelude::*;

use super::super::types::{Real, Sym};
use super::attention::{
    AttentionDropout, BACKWARD_TILE, Draw, Lengths, Tiling, check_tail, draw_buffers, draw_numbers,
    head_and_size, is_small, padded, sequences, split_rows, transpose,
};
use super::launch::{
    Arg, Call, KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, held, source,
};
use super::math::{Elementary, by_sixteen, exp_all, row_sum_of_two, simd};
use super::tile::{Into, Rows, Strided, multiply};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(up, q, k, v, o [T, d], lse [T, H], offsets[, keys, step]) → (dq, dk, dv)`.
///
/// With `P = exp(scale · q kᵀ − lse)`, mask factor `M` and `D = Σ up ⊙ o` per row and head:
/// `dv = (P⊙M)ᵀ up`, `dS = P ⊙ (M ⊙ (up vᵀ) − D)`, `dq = scale · dS k`, `dk = scale · dSᵀ q`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionGrad {
    /// Number of heads.
    pub heads: u32,
    /// Keys a token; 1 in self-attention.
    pub fold: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("attention_grad" with "attention.cuh"));

impl OpRule for AttentionGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, q, k, v, o, lse, tail @ ..] = x else {
            return Err("six matrices and offsets are wanted".into());
        };
        check_tail(tail, self.dropout.is_some())?;
        let folded = q
            .matrix()
            .is_some_and(|(t, d)| k.matrix() == Some((t.times(self.fold.into()), d)));
        if up == q
            && folded
            && k == v
            && q == o
            && k.dtype == q.dtype
            && lse.dtype == q.dtype
            && q.dtype.is_compute()
        {
            Ok(vec![(*q).clone(), (*k).clone(), (*k).clone()])
        } else {
            Err("five matrices of one type are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let held = held(cx, &[0, 1, 2, 3, 4], &[0, 1, 2])?;
        let mut list = Launches::of(held);
        let (queries, keys, tile) = match Tiling::of(cx.width(0), self.heads)? {
            tile @ Tiling { columns: 64, .. } => {
                ("attention_grad_queries_64", "attention_grad_keys_64", tile)
            }
            tile @ Tiling { columns: 128, .. } => (
                "attention_grad_queries_128",
                "attention_grad_keys_128",
                tile,
            ),
            tile => (
                "attention_grad_queries_256",
                "attention_grad_keys_256",
                tile,
            ),
        };
        let lengths = Lengths::of(cx, 6, self.fold);
        let (count, d) = (lengths.tokens * u64::from(self.heads), cx.width(0));
        let dots = list.scratch(4 * count);
        list.rows(
            "attention_grad",
            "attention_dots",
            count.div_ceil(8),
            256,
            args![In(0), In(4), dots, d as u32, self.heads, count],
        );
        let shared = tile.shared(4, 1);
        let mut call = |kernel: &'static str, outs: Vec<Arg>, longest: u64| {
            let mut args = args![In(0), In(1), In(2), In(3), In(5), dots, In(6)];
            args.extend(draw_buffers(self.dropout.as_ref(), 7));
            args.extend(outs);
            args.extend(args![Fault]);
            args.extend(tile.sizes(lengths, longest, self.scale));
            args.extend(draw_numbers(self.dropout.as_ref()));
            list.call(Call {
                source: "attention_grad",
                kernel,
                held,
                grid: tile.grid(lengths, longest),
                block: 256,
                shared,
                args,
            });
        };
        call(queries, args![Out(0)], lengths.longest);
        call(
            keys,
            args![Out(1), Out(2)],
            lengths.longest * u64::from(self.fold),
        );
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io))
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let d = cx
            .inputs
            .first()
            .and_then(|x| x.dims.get(1))
            .copied()
            .unwrap_or(0) as u64;
        let pairs = cx.sizes.get(Sym::Pairs) * u64::from(self.fold);
        Cost {
            flops: 10 * pairs * d + 6 * pairs * u64::from(self.heads),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let (head, size) = head_and_size(cx, self.heads);
        Lengths::of(cx, 6, self.fold).backward_scratch(head, size, machine)
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
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(6).slice::<u32>(), rows)?;
        let draw = self.dropout.as_ref().map(|drop| {
            Draw::new(
                drop,
                io.input(7).slice::<u32>(),
                io.input(8).slice::<u32>()[0],
            )
        });
        let longest = seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0) as u64;
        let fold = self.fold as usize;
        let lengths = Lengths {
            sequences: seqs.len() as u64,
            tokens: rows as u64,
            longest,
            fold: fold as u64,
        };
        let head = d / self.heads as usize;
        let [dq, dk, dv] = io.outputs.as_mut_slice() else {
            unreachable!("three outputs: inferred")
        };
        let split = |x, fold| split_rows(x, seqs.iter().map(|&(a, b)| (a * fold, b * fold)), d);
        let (dq, dk, dv) = (
            split(dq.slice::<T>(), 1),
            split(dk.slice::<T>(), fold),
            split(dv.slice::<T>(), fold),
        );
        let work =
            |(((&range, dq), dk), dv): (((&(usize, usize), &mut [T]), &mut [T]), &mut [T])| {
                self.sequence(range, d, &operands, draw.as_ref(), [dq, dk, dv]);
            };
        cx.scratch(
            lengths.backward_scratch(head as u64, size_of::<T>() as u64, cx.machine),
            || {
                if is_small(&seqs, d) {
                    seqs.iter().zip(dq).zip(dk).zip(dv).for_each(work);
                } else {
                    seqs.par_iter().zip(dq).zip(dk).zip(dv).for_each(work);
                }
            },
        );
        Ok(())
    }

    fn sequence<T: Elementary>(
        &self,
        (start, end): (usize, usize),
        d: usize,
        x: &Operands<'_, T>,
        draw: Option<&Draw<'_>>,
        [dq, dk, dv]: [&mut [T]; 3],
    ) {
        let (fold, heads) = (self.fold as usize, self.heads as usize);
        let n = (end - start) * fold;
        if n == 0 {
            return;
        }
        let (stride, head, tile) = (padded(n), d / heads, BACKWARD_TILE.min(end - start));
        let buffer = |rows: usize| vec![T::zero(); rows * stride];
        let mut own = Buffers {
            keys: buffer(head),
            values: buffer(head),
            p: buffer(tile),
            ds: buffer(tile),
            factors: buffer(1),
        };
        for h in 0..heads {
            let at = |row: usize| row * d + h * head;
            transpose(&x.k[at(start * fold)..], d, n, head, &mut own.keys);
            transpose(&x.v[at(start * fold)..], d, n, head, &mut own.values);
            for row in (start..end).step_by(tile) {
                let m = tile.min(end - row);
                self.scores((h, row), (m, n, d), x, draw, &mut own);
                let into = if row == start { Into::Set } else { Into::Add };
                let rows = |data| Rows { data, row: d };
                let columns = |data| Strided {
                    data,
                    row: 1,
                    column: stride,
                };
                let (up, queries) = (rows(&x.up[at(row)..]), rows(&x.q[at(row)..]));
                let [dk, dv] = [&mut dk[h * head..], &mut dv[h * head..]];
                multiply((n, head, m), dv, d, columns(&own.p), up, into);
                multiply((n, head, m), dk, d, columns(&own.ds), queries, into);
                let weights = Strided {
                    data: &own.ds,
                    row: stride,
                    column: 1,
                };
                let keys = rows(&x.k[at(start * fold)..]);
                let dq = &mut dq[at(row - start)..];
                multiply((m, head, n), dq, d, weights, keys, Into::Set);
            }
        }
    }

    /// Of `m` queries of head `h` from `row` and `n` keys: the dropped probabilities, and `scale · dS`.
    fn scores<T: Elementary>(
        &self,
        (h, row): (usize, usize),
        (m, n, d): (usize, usize, usize),
        x: &Operands<'_, T>,
        draw: Option<&Draw<'_>>,
        own: &mut Buffers<T>,
    ) {
        let (heads, scale) = (self.heads as usize, T::of(self.scale.get()));
        let (stride, head) = (padded(n), d / heads);
        let at = |row: usize| row * d + h * head;
        let by_row = |data| Strided {
            data,
            row: d,
            column: 1,
        };
        let columns = |data| Rows { data, row: stride };
        let (queries, keys) = (by_row(&x.q[at(row)..]), columns(&own.keys));
        multiply(
            (m, stride, head),
            &mut own.p,
            stride,
            queries,
            keys,
            Into::Set,
        );
        let (up, values) = (by_row(&x.up[at(row)..]), columns(&own.values));
        multiply(
            (m, stride, head),
            &mut own.ds,
            stride,
            up,
            values,
            Into::Set,
        );
        let lse = x.lse[row * heads + h..].iter().step_by(heads);
        for (p, &lse) in own.p.chunks_exact_mut(stride).take(m).zip(lse) {
            shift_row(p, scale, lse);
        }
        exp_all(&mut own.p[..m * stride]);
        let rows = own.p.chunks_exact_mut(stride);
        let rows = rows.zip(own.ds.chunks_exact_mut(stride));
        for (i, (p, ds)) in rows.take(m).enumerate() {
            if let Some(draw) = draw {
                own.factors.fill(T::one());
                draw.drop(h, row + i, &mut own.factors[..n]);
            }
            let dot = dot(&x.up[at(row + i)..][..head], &x.o[at(row + i)..][..head]);
            score_row(p, ds, draw.map(|_| &own.factors[..]), n, scale, dot);
        }
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

/// One query: from probabilities and `up vᵀ` to the dropped probabilities and `scale · dS`.
fn score_row<T: Elementary>(
    p: &mut [T],
    ds: &mut [T],
    factors: Option<&[T]>,
    n: usize,
    scale: T,
    dot: T,
) {
    simd!(<T> (p: &'a mut [T] = p, ds: &'a mut [T] = ds, factors: Option<&'a [T]> = factors, n: usize = n, scale: T = scale, dot: T = dot) {
        p[n..].fill(T::zero());
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
