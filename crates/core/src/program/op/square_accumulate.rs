//! `square_accumulate`: adds squares to a resident, in place.

use super::launch::{KernelSource, Launches, Operand::In, args, is_single, source};
use super::math::{for_chunks, part};
use super::{Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(acc, x)`: `acc += x²`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SquareAccumulate;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("square_accumulate"));

impl OpRule for SquareAccumulate {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, b] if a == b && a.dtype.is_compute() => Ok(vec![]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(1);
        list.fours(
            "square_accumulate",
            "square_accumulate",
            n,
            args![In(0), In(1), n],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.updates[0].dtype(), T => {
            let x = io.input(1).slice::<T>();
            for_chunks(io.updates[0].slice::<T>(), |start, acc| {
                let x = part(x, start, acc.len());
                acc.iter_mut().zip(x).for_each(|(a, &x)| *a += x * x);
            });
        });
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 2 * cx.elements(1),
            bytes: cx.traffic(),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, small};
    let mut all = Fixtures::with_same_bits();
    all.sample(SquareAccumulate, [small(4), small(43)]);
    all
}
