//! `squared_error`: the regression loss.

use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{
    At, Builder, Io, Kernel, OpError, OpRule, SizedCx, SquaredErrorGrad, TensorType, Value,
};

/// `(scores[S, 1], targets f32[S], scale f32[1]) → [1]`: `scale · Σ (score − target)²`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SquaredError;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("squared_error"));

impl OpRule for SquaredError {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [scores, targets, scale] => {
                check(scores, targets, scale)?;
                Ok(vec![TensorType::scalar(scores.dtype)])
            }
            _ => Err("scores, targets and a scale are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        list.once(
            "squared_error",
            "squared_error",
            args![In(0), In(1), In(2), Out(0), cx.elements(1) as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (targets, scale) = (
            io.input(1).slice::<f32>(),
            f64::from(io.input(2).slice::<f32>()[0]),
        );
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let sum: f64 = io.input(0).slice::<T>().iter().zip(targets).map(|(x, &y)| (x.wide() - f64::from(y)).powi(2)).sum();
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| {
            b.push1(
                SquaredErrorGrad,
                &[at.inputs[0], at.inputs[1], at.inputs[2], up],
            )
        });
        vec![dx, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

pub(super) fn check(
    scores: &TensorType,
    targets: &TensorType,
    scale: &TensorType,
) -> Result<(), String> {
    match scores.matrix() {
        Some((s, one))
            if scores.dtype.is_compute()
                && one.as_const() == Some(1)
                && *targets == TensorType::new(DType::F32, [s])
                && *scale == TensorType::scalar(DType::F32) =>
        {
            Ok(())
        }
        _ => Err("one score a row, f32 targets and an f32 scale are wanted".into()),
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.sample(SquaredError, numbers());
    all
}

/// Scores, targets and the factor.
#[cfg(test)]
pub(super) fn numbers() -> Vec<super::Tensor> {
    use super::fixtures::{random, scalar};
    let targets = super::Tensor::new(vec![0.5_f32, -1.0, 2.0, 0.0], &[4]);
    vec![random(25, &[4, 1]), targets, scalar(0.25)]
}
