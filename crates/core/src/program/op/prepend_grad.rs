//! `prepend_grad`: gradient of `prepend` by both operands.

use super::attention::sequences;
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, source, stored_in,
};
use super::math::{add_to, part};
use super::{Io, Kernel, OpError, OpRule, Prepend, SizedCx, TensorType};

/// `(up [T + P·S, d], offsets u32[S+1]) → (dx [T, d], drows)` of a [`Prepend`]. Rows are summed in the order of the
/// sequences.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrependGrad(pub Prepend);

pub(super) const SOURCE: Option<KernelSource> = Some(source!("prepend_grad" with "sequence.cuh"));

impl OpRule for PrependGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let [up, offsets] = x else {
            return Err("a matrix and offsets are wanted".into());
        };
        let (Some((all, d)), Some(s)) = (up.matrix(), Prepend::sequences(offsets)) else {
            return Err("a matrix and a list of offsets are wanted".into());
        };
        let tokens = all.without(s.times(self.0.count.into()));
        match tokens {
            Some(tokens) if up.dtype.is_compute() => Ok(vec![
                TensorType::new(up.dtype, [tokens, d]),
                TensorType::new(up.dtype, [self.0.rows(s), d]),
            ]),
            _ => Err("a row for each token and each that was put before is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let out = cx.outputs.first()?;
        let sequences = cx.elements(1).saturating_sub(1);
        let (count, own) = (self.0.count, self.0.own);
        let mut args = args![
            In(0),
            In(1),
            Out(0),
            Fault,
            out.dims.first().copied()? as u32,
            sequences as u32,
            cx.sizes.get(super::super::types::Sym::Longest) as u32,
            cx.width(0) as u32,
            count
        ];
        list.rows(
            "prepend_grad",
            "prepend_grad_tokens",
            sequences,
            cx.width(0),
            args.clone(),
        );
        let (kernel, rows) = if own {
            ("prepend_grad_own", sequences)
        } else {
            ("prepend_grad_shared", count.into())
        };
        args[2] = Out(1).into();
        list.rows("prepend_grad", kernel, rows, cx.width(0), args);
        Some(list)
    }

    fn is_exact(&self, output: usize) -> bool {
        output == 1
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let d = io.input(0).dims[1];
        let tokens = io.outputs[0].dims[0];
        let seqs = sequences(io.input(1).slice::<u32>(), tokens)?;
        let (count, own) = (self.0.count as usize, self.0.own);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = io.input(0).slice::<T>();
            let [dx, drows] = io.outputs.as_mut_slice() else {
                unreachable!("two outputs: inferred")
            };
            let (mut dx, drows) = (dx.slice::<T>(), drows.slice::<T>());
            drows.fill(0.0);
            for (s, &(start, end)) in seqs.iter().enumerate() {
                let first = start + s * count;
                for j in 0..count {
                    let to = if own { s } else { j };
                    add_to(&mut drows[to * d..(to + 1) * d], part(up, (first + j) * d, d));
                }
                let n = (end - start) * d;
                let (to, rest) = std::mem::take(&mut dx).split_at_mut(n);
                to.copy_from_slice(part(up, (first + count) * d, n));
                dx = rest;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, eval, ids};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    all.offsets = Some(1);
    for (i, (op, inputs)) in super::prepend::applications().into_iter().enumerate() {
        let up = eval(&op.clone().into(), &inputs, 1).remove(0);
        let own = vec![up.clone(), inputs[2].clone()];
        match i {
            3 => all.case(PrependGrad(op), own),
            _ => all.sample(PrependGrad(op.clone()), own),
        }
        if i == 0 {
            all.fault(
                PrependGrad(Prepend {
                    count: 3,
                    own: false,
                }),
                [up, ids(&[1, 4, 4, 9])],
            );
        }
    }
    all
}
