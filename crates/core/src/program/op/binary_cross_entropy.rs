//! `binary_cross_entropy`: the loss of texts with any number of classes.

use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{
    At, BinaryCrossEntropyGrad, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value,
};

/// `(logits[S, C], targets f32[S, C], scale f32[1]) → [1]`: `scale / C · Σ log(1 + eˣ) − x·t`, for targets from 0 to 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BinaryCrossEntropy;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("binary_cross_entropy"));

impl OpRule for BinaryCrossEntropy {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, targets, scale] => {
                check(logits, targets, scale)?;
                Ok(vec![TensorType::scalar(logits.dtype)])
            }
            _ => Err("logits, targets and a scale are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        list.once(
            "binary_cross_entropy",
            "binary_cross_entropy",
            args![
                In(0),
                In(1),
                In(2),
                Out(0),
                cx.elements(0),
                cx.width(0) as u32
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (targets, scale) = (
            io.input(1).slice::<f32>(),
            f64::from(io.input(2).slice::<f32>()[0]),
        );
        let classes = io.input(0).dims[1] as f64;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let logits = io.input(0).slice::<T>().iter().zip(targets);
            let sum: f64 = logits.map(|(x, &t)| loss(x.wide(), f64::from(t))).sum();
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale / classes);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| {
            b.push1(
                BinaryCrossEntropyGrad,
                &[at.inputs[0], at.inputs[1], at.inputs[2], up],
            )
        });
        vec![dx, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// `log(1 + eˣ) − x·t`, without an overflow.
fn loss(x: f64, t: f64) -> f64 {
    x.max(0.0) - x * t + libm::log1p(libm::exp(-x.abs()))
}

pub(super) fn check(
    logits: &TensorType,
    targets: &TensorType,
    scale: &TensorType,
) -> Result<(), String> {
    match logits.matrix() {
        Some((s, c))
            if logits.dtype.is_compute()
                && *targets == TensorType::new(DType::F32, [s, c])
                && *scale == TensorType::scalar(DType::F32) =>
        {
            Ok(())
        }
        _ => Err("a float matrix, as many f32 targets and an f32 scale are wanted".into()),
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES};
    let mut all = Fixtures::new();
    all.sample(BinaryCrossEntropy, sets(4, 3));
    for (rows, d) in SHAPES {
        let narrow = sets(rows, d);
        let narrow: Vec<_> = narrow.iter().map(super::fixtures::narrow).collect();
        all.case(BinaryCrossEntropy, narrow);
    }
    all
}

/// Scores, targets and the factor.
#[cfg(test)]
pub(super) fn sets(rows: usize, classes: usize) -> Vec<super::Tensor> {
    use super::fixtures::{random, scalar};
    let targets: Vec<f32> = (0..rows * classes)
        .map(|i| if i % 3 == 0 { 1.0 } else { 0.0 })
        .collect();
    let targets = super::Tensor::new(targets, &[rows, classes]);
    vec![random(27, &[rows, classes]), targets, scalar(0.25)]
}

#[cfg(test)]
mod tests {
    use super::loss;

    #[test]
    fn large_scores_neither_overflow_nor_vanish() {
        assert_eq!(loss(1e4, 0.0), 1e4);
        assert_eq!(loss(-1e4, 1.0), 1e4);
        assert_eq!(loss(1e4, 1.0), 0.0);
        assert!((loss(0.0, 0.5) - 2.0_f64.ln()).abs() < 1e-15);
        assert!(loss(40.0, 1.0) > 0.0);
    }
}
