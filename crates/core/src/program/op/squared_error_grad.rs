//! `squared_error_grad`: gradient of the regression loss.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::squared_error::check;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(scores[S, 1], targets f32[S], scale f32[1], up[1]) → 2 · up · scale · (score − target)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SquaredErrorGrad;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("squared_error_grad"));

impl OpRule for SquaredErrorGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [scores, targets, scale, up] if **up == TensorType::scalar(scores.dtype) => {
                check(scores, targets, scale)?;
                Ok(vec![(*scores).clone()])
            }
            _ => Err("scores, targets, a scale and a gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(0);
        list.each(
            "squared_error_grad",
            "squared_error_grad",
            n,
            args![In(0), In(1), In(2), In(3), Out(0), n],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (targets, scale) = (
            io.input(1).slice::<f32>(),
            f64::from(io.input(2).slice::<f32>()[0]),
        );
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = io.input(3).slice::<T>()[0].wide();
            let scores = io.input(0).slice::<T>();
            for ((o, x), &y) in io.outputs[0].slice::<T>().iter_mut().zip(scores).zip(targets) {
                *o = T::of(2.0 * up * scale * (x.wide() - f64::from(y)));
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, random};
    let mut all = Fixtures::with_same_bits();
    let numbers = super::squared_error::numbers();
    all.sample(SquaredErrorGrad, [numbers, vec![random(26, &[1])]].concat());
    all
}
