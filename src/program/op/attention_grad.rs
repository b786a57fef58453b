//! `attention_grad`: gradient of attention by queries, keys and values.

use rayon::prelude::*;

use super::super::types::{Real, Sym};
use super::attention::{AttentionDropout, check_tail, drop_row, scratch, scratch_of, sequences, split_rows};
use super::math::{Elementary, part, simd};
use super::matmul::{Strided, product};
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(up, q, k, v, o [T, d], lse [T, H], offsets[, keys, step]) → (dq, dk, dv)`.
///
/// With `P = exp(scale · q kᵀ − lse)`, mask factor `M` and `D = Σ up ⊙ o` per row and head:
/// `dv = (P⊙M)ᵀ up`, `dS = P ⊙ (M ⊙ (up vᵀ) − D)`, `dq = scale · dS k`, `dk = scale · dSᵀ q`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionGrad {
    /// Number of heads.
    pub heads: u32,
    /// Factor of the scores.
    pub scale: Real,
    /// Dropout on the probabilities.
    pub dropout: Option<AttentionDropout>,
}

impl OpRule for AttentionGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, q, k, v, o, lse, tail @ ..] = x else { return Err("six matrices and offsets are wanted".into()) };
        check_tail(tail, self.dropout.is_some())?;
        if up == q && q == k && k == v && v == o && lse.dtype == q.dtype && q.dtype.is_compute() {
            Ok(vec![(*q).clone(), (*q).clone(), (*q).clone()])
        } else {
            Err("five matrices of one type are wanted".into())
        }
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io));
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        let d = cx.inputs.first().and_then(|x| x.dims.get(1)).copied().unwrap_or(0) as u64;
        let pairs = cx.sizes.get(Sym::Pairs);
        Cost { flops: 10 * pairs * d + 6 * pairs * u64::from(self.heads), bytes: cx.traffic() }
    }

    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        scratch(cx, self.heads, machine, 3)
    }
}

impl AttentionGrad {
    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let input = |i: usize| io.input(i).slice::<T>();
        let (up, q, k, v, o, lse) = (input(0), input(1), input(2), input(3), input(4), input(5));
        let (rows, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let Ok(seqs) = sequences(io.input(6).slice::<u32>(), rows) else { return };
        let random = self.dropout.as_ref().map(|drop| (drop, io.input(7).slice::<u32>(), io.input(8).slice::<u32>()[0]));
        let (heads, scale) = (self.heads as usize, T::of(self.scale.get()));
        let head = d / heads;
        let longest = seqs.iter().map(|(a, b)| b - a).max().unwrap_or(0);
        let [dq, dk, dv] = io.outputs.as_mut_slice() else { unreachable!("three outputs: inferred") };
        let parts = split_rows(dq.slice::<T>(), &seqs, d)
            .into_par_iter()
            .zip(split_rows(dk.slice::<T>(), &seqs, d))
            .zip(split_rows(dv.slice::<T>(), &seqs, d));
        let bytes = scratch_of(longest as u64, seqs.len() as u64, head as u64, size_of::<T>() as u64, cx.machine, 3);
        cx.scratch(bytes, || {
            seqs.par_iter().zip(parts).for_each(|(&(start, end), ((dq, dk), dv))| {
                let n = end - start;
                if n == 0 {
                    return;
                }
                let (mut p, mut dropped, mut ds) = (vec![T::zero(); n * n], vec![T::zero(); n * n], vec![T::zero(); n * n]);
                let mut buffer = vec![0_u32; if random.is_some() { n } else { 0 }];
                for h in 0..heads {
                    let at = start * d + h * head;
                    let rows = |data| Strided { data: part::<T>(data, at, (n - 1) * d + head), row: d, column: 1 };
                    let columns = |data| Strided { data: part::<T>(data, at, (n - 1) * d + head), row: 1, column: d };
                    product((n, n, head), &mut p, n, rows(q), columns(k), (scale, T::zero()), 1);
                    product((n, n, head), &mut ds, n, rows(up), columns(v), (T::one(), T::zero()), 1);
                    simd(|| {
                        for (i, ((p, dropped), ds)) in p.chunks_exact_mut(n).zip(dropped.chunks_exact_mut(n)).zip(ds.chunks_exact_mut(n)).enumerate() {
                            let l = lse[(start + i) * heads + h];
                            p.iter_mut().for_each(|x| *x = (*x - l).exp_fast());
                            dropped.copy_from_slice(p);
                            if let Some((drop, keys, step)) = random {
                                let (query, example) = (keys[2 * (start + i) + 1], keys[2 * (start + i)]);
                                drop_row(drop, h, query, example, step, dropped, &mut buffer);
                                drop_row(drop, h, query, example, step, ds, &mut buffer);
                            }
                            let (ur, or) = (part(up, at + i * d, head), part(o, at + i * d, head));
                            let dot = super::math::row_sum(ur, |j, u| u * or[j]);
                            ds.iter_mut().zip(p.iter()).for_each(|(g, &p)| *g = p * (*g - dot));
                        }
                    });
                    let by = |data, transposed: bool| Strided { data, row: if transposed { 1 } else { n }, column: if transposed { n } else { 1 } };
                    product((n, head, n), &mut dv[h * head..], d, by(&dropped[..], true), rows(up), (T::one(), T::zero()), 1);
                    product((n, head, n), &mut dq[h * head..], d, by(&ds[..], false), rows(k), (scale, T::zero()), 1);
                    product((n, head, n), &mut dk[h * head..], d, by(&ds[..], true), rows(q), (scale, T::zero()), 1);
                }
            });
        });
    }
}
