//! `prepend`: rows put before those of each sequence, as a prefix before its keys.

use super::super::types::{DType, Dim};
use super::attention::sequences;
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::math::part;
use super::{At, Builder, Io, Kernel, OpError, OpRule, PrependGrad, SizedCx, TensorType, Value};

/// `(x [T, d], rows, offsets u32[S+1]) → [T + P·S, d]`: before the rows of each sequence stand P others. They are
/// `rows [P, d]`, the same for all sequences, or P times the sequence's own of `rows [S, d]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prepend {
    /// Rows before each sequence: P.
    pub count: u32,
    /// Whether each sequence has a row of its own.
    pub own: bool,
}

impl Prepend {
    /// Rows of the operand that is put before sequences, of which there are so many.
    pub(super) fn rows(&self, sequences: Dim) -> Dim {
        if self.own {
            sequences
        } else {
            Dim::from(u64::from(self.count))
        }
    }

    /// Number of sequences, from the type of their offsets.
    pub(super) fn sequences(offsets: &TensorType) -> Option<Dim> {
        match offsets.shape.as_slice() {
            [n] if offsets.dtype == DType::U32 => n.without(1.into()),
            _ => None,
        }
    }
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("prepend" with "sequence.cuh"));

impl OpRule for Prepend {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [x, rows, offsets] = x else {
            return Err("a matrix, rows and offsets are wanted".into());
        };
        let (Some((t, d)), Some((n, width)), Some(s)) =
            (x.matrix(), rows.matrix(), Self::sequences(offsets))
        else {
            return Err("two matrices and a list of offsets are wanted".into());
        };
        let fits = n == self.rows(s) && width == d && rows.dtype == x.dtype;
        if fits && x.dtype.is_compute() && self.count > 0 {
            let all = t.and(s.times(self.count.into()));
            Ok(vec![TensorType::new(x.dtype, [all, d])])
        } else {
            Err("rows of the matrix' type and width are wanted, as many as are put before".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (tokens, d) = (cx.rows(0) as u32, cx.width(0) as u32);
        let sequences = cx.elements(2).saturating_sub(1);
        let args = args![
            In(0),
            In(1),
            In(2),
            Out(0),
            Fault,
            tokens,
            sequences as u32,
            cx.sizes.get(super::super::types::Sym::Longest) as u32,
            d,
            self.count,
            u32::from(self.own)
        ];
        list.rows("prepend", "prepend", sequences, cx.width(0), args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (tokens, d) = (io.input(0).dims[0], io.input(0).dims[1]);
        let seqs = sequences(io.input(2).slice::<u32>(), tokens)?;
        let count = self.count as usize;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (x, rows) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
            let mut rest = io.outputs[0].slice::<T>();
            for (s, &(start, end)) in seqs.iter().enumerate() {
                let (before, after) = rest.split_at_mut(count * d);
                for (j, to) in before.chunks_exact_mut(d.max(1)).enumerate() {
                    let from = if self.own { s } else { j };
                    to.copy_from_slice(part(rows, from * d, d));
                }
                let n = (end - start) * d;
                let (own, after) = after.split_at_mut(n);
                own.copy_from_slice(part(x, start * d, n));
                rest = after;
            }
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None; at.inputs.len()];
        };
        let made = b.push(PrependGrad(self.clone()), &[up, at.inputs[2]]);
        let wanted = |i: usize| at.needs[i].then(|| made[i]);
        vec![wanted(0), wanted(1), None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input < 2
    }
}

#[cfg(test)]
pub(super) fn applications() -> Vec<(Prepend, Vec<super::Tensor>)> {
    use super::fixtures::{ids, random};
    let of = |own, count: u32, ends: &[u32], d: usize| {
        let tokens = ends.last().copied().unwrap_or(0) as usize;
        let rows = if own { ends.len() - 1 } else { count as usize };
        let inputs = vec![random(7, &[tokens, d]), random(8, &[rows, d]), ids(ends)];
        (Prepend { count, own }, inputs)
    };
    vec![
        of(false, 3, &[0, 4, 4, 9], 5),
        of(true, 2, &[0, 4, 5, 9], 3),
        of(false, 1, &[0, 2], 1),
        of(true, 4, &[0, 3, 70], 66),
    ]
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    all.offsets = Some(2);
    let mut list = applications();
    if let Some((op, mut inputs)) = list.first().cloned() {
        inputs[2] = ids(&[1, 4, 4, 9]);
        all.fault(op, inputs);
    }
    let large = list.pop();
    for (op, inputs) in list {
        all.sample(op, inputs);
    }
    if let Some((op, inputs)) = large {
        all.case(op, inputs);
    }
    all
}
