//! `fill`: sets every element of a resident, in place.

use super::super::types::Real;
use super::launch::{KernelSource, Launches, Operand::In, args, is_single, source};
use super::math::for_chunks;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(x)`: `x ← value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fill {
    /// The value.
    pub value: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("fill"));

impl OpRule for Fill {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => Ok(vec![]),
            _ => Err("one float is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        list.fours(
            "fill",
            "fill",
            cx.elements(0),
            args![In(0), cx.elements(0), self.value.get() as f32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.updates[0].dtype(), T => {
            let value = self.value.get() as T;
            for_chunks(io.updates[0].slice::<T>(), |_, x| x.fill(value));
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
    all.sample(
        Fill {
            value: Real::new(3.0),
        },
        [small(4)],
    );
    all
}
