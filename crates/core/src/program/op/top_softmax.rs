//! `top_softmax`: a softmax over the largest elements of each row, 0 for the others.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks_of_rows, part};
use super::{
    At, BinaryKind, Broadcast, Builder, Elementwise, Io, Kernel, OpError, OpRule, Over, Reduce,
    ReduceKind, SizedCx, TensorType, Value,
};

/// `x[N, d] → w[N, d]`: the softmax of the `k` largest elements of each row, 0 elsewhere; of equal ones the first count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopSoftmax {
    /// How many of a row count.
    pub k: u32,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("top_softmax"));

impl OpRule for TopSoftmax {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => match a.matrix().map(|(_, d)| d.as_const()) {
                Some(Some(d)) if self.k > 0 && u64::from(self.k) <= d => Ok(vec![(*a).clone()]),
                _ => Err(format!("a matrix of at least {} columns is wanted", self.k)),
            },
            _ => Err("one float matrix is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (rows, d) = (cx.rows(0), cx.width(0));
        let args = args![In(0), Out(0), rows, d as u32, self.k];
        list.each("top_softmax", "top_softmax", rows, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let k = self.k;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.input(0).slice::<T>();
            let d = io.outputs[0].dims.get(1).copied().unwrap_or(1);
            for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, out| {
                let rows = part(x, first * d, out.len()).chunks_exact(d.max(1));
                for (x, out) in rows.zip(out.chunks_exact_mut(d.max(1))) {
                    softmax_of_largest(x, out, k);
                }
            });
        });
        Ok(())
    }

    /// `dx = w ⊙ (up − Σ w up)`: 0 where the weight is.
    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let (Some(up), true) = (at.up[0], at.needs[0]) else {
            return vec![None];
        };
        let weights = at.outputs[0];
        let mut binary = |kind, broadcast, x, y| b.push1(Elementwise { kind, broadcast }, &[x, y]);
        let weighted = binary(BinaryKind::Mul, Broadcast::Full, weights, up);
        let (kind, over) = (ReduceKind::Sum, Over::Columns);
        let mean = b.push1(Reduce { kind, over }, &[weighted]);
        let mut binary = |kind, broadcast, x, y| b.push1(Elementwise { kind, broadcast }, &[x, y]);
        let own = binary(BinaryKind::Mul, Broadcast::Column, weights, mean);
        vec![Some(binary(
            BinaryKind::Sub,
            Broadcast::Full,
            weighted,
            own,
        ))]
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

/// One row. The output marks what is taken while the largest are looked for.
fn softmax_of_largest<T: Elementary>(x: &[T], out: &mut [T], k: u32) {
    out.fill(T::zero());
    let (mut highest, mut sum) = (T::zero(), T::zero());
    for turn in 0..k {
        let mut at = None;
        for (i, (&x, &taken)) in x.iter().zip(out.iter()).enumerate() {
            if taken == T::zero() && at.is_none_or(|(_, best)| x > best) {
                at = Some((i, x));
            }
        }
        let Some((i, best)) = at else { break };
        if turn == 0 {
            highest = best;
        }
        // Not 0 even where it underflows, so that it is not taken twice.
        let weight = (best - highest).exp_fast().max(T::min_positive_value());
        if let Some(out) = out.get_mut(i) {
            *out = weight;
        }
        sum += weight;
    }
    out.iter_mut().for_each(|w| *w /= sum);
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, matrix, small};
    let mut all = Fixtures::with_same_bits();
    for k in [1, 2, 5] {
        all.sample(TopSoftmax { k }, [small(4)]);
    }
    all.case(TopSoftmax { k: 3 }, [matrix(7, 130, 300)]);
    all.large(TopSoftmax { k: 2 }, [matrix(8, 300, 256)]);
    all
}
