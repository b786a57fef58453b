//! `accumulate`: adds to a resident, in place.

use super::launch::{KernelSource, Launches, Operand::In, args, is_single, source};
use super::math::{add_to, for_chunks, part};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(acc, x)`: `acc += x`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accumulate;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("accumulate"));

impl OpRule for Accumulate {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, b] if a == b && a.dtype.is_compute() => Ok(vec![]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        list.fours(
            "accumulate",
            "accumulate",
            cx.elements(1),
            args![In(0), In(1), cx.elements(1)],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.updates[0].dtype(), T => {
            let x = io.input(1).slice::<T>();
            for_chunks(io.updates[0].slice::<T>(), |start, acc| {
                add_to(acc, part(x, start, acc.len()));
            });
        });
        Ok(())
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, small};
    let mut all = Fixtures::with_same_bits();
    all.sample(Accumulate, [small(4), small(27)]);
    all
}
