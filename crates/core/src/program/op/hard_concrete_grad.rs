//! `hard_concrete_grad`: gradient of `hard_concrete`, with the same draws again.

use super::launch::{
    Arg, KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{for_chunks, part};
use super::{HardConcrete, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(a, up[, step u32[1]])` → the gradient by `a`: zero where the gate is at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HardConcreteGrad {
    /// The gates.
    pub of: HardConcrete,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("hard_concrete_grad" with "hard_concrete.cuh"));

impl OpRule for HardConcreteGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, up, rest @ ..] if a == up => {
                let mut own = vec![*a];
                own.extend(rest);
                self.of.infer(&own)
            }
            _ => Err("a float and its gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(0);
        let mut args = args![In(0), In(1), Out(0)];
        args.extend(self.of.args(2));
        args.push(Arg::from(n));
        list.each(
            "hard_concrete_grad",
            "hard_concrete_grad",
            n.div_ceil(4),
            args,
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let step = self.of.stream.map(|_| io.input(2).slice::<u32>()[0]);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (a, up) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                out.copy_from_slice(part(a, start, out.len()));
                let up = part(up, start, out.len());
                self.of.walk(step, start, out, Some(up));
            });
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, ids, list, small};
    let mut all = Fixtures::new();
    let [drawn, still] = super::hard_concrete::gates().map(|of| HardConcreteGrad { of });
    all.sample(drawn, [small(4), small(5), ids(&[7])]);
    all.sample(still, [small(4), small(5)]);
    all.large(drawn, [list(5, 30_000), list(6, 30_000), ids(&[7])]);
    all.case(drawn, [list(5, 20_001), list(6, 20_001), ids(&[8])]);
    all.case(still, [list(5, 20_001), list(6, 20_001)]);
    all
}
