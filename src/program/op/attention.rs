//! `attention`: scaled dot-product attention of each sequence with itself, over packed tokens.

use rayon::prelude::*;

use super::super::types::{DType, Real, Sym};
use super::math::{Elementary, part, simd};
use super::matmul::{Strided, product, product_scratch};
use super::random::{threshold, words};
use super::{At, AttentionGrad, Builder, Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType, Value};

/// Dropout on attention probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionDropout {
    /// Probability of dropping.
    pub p: Real,
    /// Key of the random stream.
    pub stream: [u32; 2],
}

/// `(q, k, v [T, d], offsets u32[S+1][, keys u32[T, 2], step u32[1]]) → (o [T, d], lse [T, H])`.
///
/// Sequence `s` has rows `offsets[s] .. offsets[s+1]`; head `h` has columns `h·d/H ..`. For each,
/// `o = Drop(softmax(scale · q kᵀ)) v`. Only the row-wise log-sum-exp is kept for the backward, which
/// recomputes the probabilities (Dao et al. 2022, arXiv 2205.14135).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Number of heads.
    pub heads: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

/// Shared by forward and backward: checks of the operands after the float matrices.
pub(super) fn check_tail(tail: &[&TensorType], dropout: bool) -> Result<(), String> {
    let u32s = tail.iter().all(|t| t.dtype == DType::U32);
    let count = if dropout { 3 } else { 1 };
    if u32s && tail.len() == count { Ok(()) } else { Err(format!("{count} u32 operands are wanted after the matrices")) }
}

impl OpRule for Attention {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [q, k, v, tail @ ..] = x else { return Err("queries, keys, values and offsets are wanted".into()) };
        check_tail(tail, self.dropout.is_some())?;
        match q.matrix() {
            Some((t, d)) if q == k && k == v && q.dtype.is_compute() && d.as_const().is_some_and(|d| d % u64::from(self.heads) == 0) => {
                Ok(vec![(*q).clone(), TensorType::new(q.dtype, [t, u64::from(self.heads).into()])])
            }
            _ => Err("three matrices of one type, whose width the heads divide, are wanted".into()),
        }
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let mut grads = vec![None; at.inputs.len()];
        let (Some(up), [q, k, v, tail @ ..]) = (at.up[0], at.inputs) else { return grads };
        let op = AttentionGrad { heads: self.heads, scale: self.scale, dropout: self.dropout.clone() };
        let mut inputs = vec![up, *q, *k, *v, at.outputs[0], at.outputs[1]];
        inputs.extend(tail);
        let made = b.push(op, &inputs);
        for (slot, (grad, &wanted)) in grads.iter_mut().zip(made.into_iter().zip(at.needs)) {
            *slot = wanted.then_some(grad);
        }
        grads
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 3
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let d = cx.inputs.first().and_then(|x| x.dims.get(1)).copied().unwrap_or(0) as u64;
        let pairs = cx.sizes.get(Sym::Pairs);
        Cost { flops: 4 * pairs * d + 5 * pairs * u64::from(self.heads), bytes: cx.traffic() }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        scratch(cx, self.heads, machine, 1)
    }
}

/// Scratch of attention: `matrices` square score matrices of the longest sequence on each thread,
/// and the products' own.
pub(super) fn scratch(cx: &SizedCx, heads: u32, machine: &Machine, matrices: u64) -> u64 {
    let Some(x) = cx.inputs.first() else { return 0 };
    let width = x.dims.get(1).copied().unwrap_or(0) as u64;
    let size = x.bytes / (x.dims.iter().product::<usize>() as u64).max(1);
    scratch_of(cx.sizes.get(Sym::Longest), cx.sizes.get(Sym::Sequences), width / u64::from(heads).max(1), size, machine, matrices)
}

/// The same from plain numbers.
pub(super) fn scratch_of(longest: u64, sequences: u64, head: u64, size: u64, machine: &Machine, matrices: u64) -> u64 {
    let threads = (machine.threads as u64).min(sequences).max(1);
    let inner = product_scratch(longest, longest.max(head), longest.max(head), size, machine, 1);
    threads * (matrices * longest * longest * size + inner)
}

/// Start and end of each sequence, checked against the number of rows.
pub(super) fn sequences(offsets: &[u32], rows: usize) -> Result<Vec<(usize, usize)>, OpError> {
    let list: Vec<(usize, usize)> = offsets.windows(2).map(|w| (w[0] as usize, w[1] as usize)).collect();
    let good = list.iter().all(|(a, b)| a <= b) && offsets.first() == Some(&0) && offsets.last().is_some_and(|&n| n as usize == rows);
    if good { Ok(list) } else { Err(OpError::Index { index: u64::from(offsets.last().copied().unwrap_or(0)), rows: rows as u64 }) }
}

/// Splits a `[T, width]` buffer into one slice a sequence.
pub(super) fn split_rows<'a, T>(mut rest: &'a mut [T], sequences: &[(usize, usize)], width: usize) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(sequences.len());
    for (start, end) in sequences {
        let (head, tail) = rest.split_at_mut((end - start) * width);
        parts.push(head);
        rest = tail;
    }
    parts
}

/// Dropout's factor for one row of probabilities: counter `[key/4 + head·2²⁴, query, example, step]`.
#[inline(always)]
pub(super) fn drop_row<T: Elementary>(dropout: &AttentionDropout, head: usize, query: u32, example: u32, step: u32, row: &mut [T], buffer: &mut [u32]) {
    let random = &mut buffer[..row.len()];
    let key = [dropout.stream[0].wrapping_add((head as u32) << 8), dropout.stream[1]];
    words(key, [query, example, step], random);
    let (limit, scale) = (threshold(dropout.p.get()), T::of(1.0 / (1.0 - dropout.p.get())));
    for (x, &word) in row.iter_mut().zip(random.iter()) {
        *x = if word < limit { T::zero() } else { *x * scale };
    }
}

impl Attention {
    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let (q, k, v) = (io.input(0).slice::<T>(), io.input(1).slice::<T>(), io.input(2).slice::<T>());
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let Ok(seqs) = sequences(io.input(3).slice::<u32>(), rows) else { return };
        let random = self.dropout.as_ref().map(|drop| (drop, io.input(4).slice::<u32>(), io.input(5).slice::<u32>()[0]));
        let (heads, scale) = (self.heads as usize, T::of(self.scale.get()));
        let head = d / heads;
        let longest = seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0);
        let [o, lse] = io.outputs.as_mut_slice() else { unreachable!("two outputs: inferred") };
        let outs = split_rows(o.slice::<T>(), &seqs, d);
        let lses = split_rows(lse.slice::<T>(), &seqs, heads);
        let bytes = scratch_of(longest as u64, seqs.len() as u64, head as u64, size_of::<T>() as u64, cx.machine, 1);
        cx.scratch(bytes, || {
            seqs.par_iter().zip(outs).zip(lses).for_each(|((&(start, end), out), lse)| {
                let n = end - start;
                let mut p = vec![T::zero(); n * n];
                let mut buffer = vec![0_u32; if random.is_some() { n } else { 0 }];
                for h in 0..heads {
                    let at = start * d + h * head;
                    let rows = |data| Strided { data: part::<T>(data, at, (n - 1) * d + head), row: d, column: 1 };
                    let columns = |data| Strided { data: part::<T>(data, at, (n - 1) * d + head), row: 1, column: d };
                    if n == 0 {
                        continue;
                    }
                    product((n, n, head), &mut p, n, rows(q), columns(k), (scale, T::zero()), 1);
                    simd(|| {
                        for (i, row) in p.chunks_exact_mut(n).enumerate() {
                            lse[i * heads + h] = softmax_row(row);
                            if let Some((drop, keys, step)) = random {
                                drop_row(drop, h, keys[2 * (start + i) + 1], keys[2 * (start + i)], step, row, &mut buffer);
                            }
                        }
                    });
                    let weights = Strided { data: &p[..], row: n, column: 1 };
                    product((n, head, n), &mut out[h * head..], d, weights, rows(v), (T::one(), T::zero()), 1);
                }
            });
        });
    }
}

/// Softmax in place; gives the log-sum-exp.
#[inline(always)]
fn softmax_row<T: Elementary>(row: &mut [T]) -> T {
    let max = row.iter().fold(T::neg_infinity(), |m, &x| if x > m { x } else { m });
    for x in row.iter_mut() {
        *x = (*x - max).exp_fast();
    }
    let sum = super::math::row_sum(row, |_, x| x);
    let inverse = T::one() / sum;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    max + T::of(sum.wide().ln())
}
