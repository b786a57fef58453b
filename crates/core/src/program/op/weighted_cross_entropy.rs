//! `weighted_cross_entropy`: the classification loss with weights of classes and smoothed labels.

use super::super::types::{DType, Real};
use super::cross_entropy::{check, log_sum_exp};
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{
    At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value, WeightedCrossEntropyGrad,
};

/// `(logits[S, C], labels u32[S], scale f32[1], weights f32[C]) → [1]`: with `l = −log softmax(logits)` and the smoothing ε,
/// `scale · Σ ((1 − ε) · weights[label] · l[label] + ε / C · Σ weights · l)`, as torch's `CrossEntropyLoss` sums it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedCrossEntropy {
    /// The share of a label that is spread over all classes.
    pub smoothing: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("weighted_cross_entropy"));

impl OpRule for WeightedCrossEntropy {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, labels, scale, weights] => {
                check(logits, labels, scale)?;
                check_weights(logits, weights)?;
                Ok(vec![TensorType::scalar(logits.dtype)])
            }
            _ => Err("logits, labels, a scale and weights are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (rows, classes) = (cx.elements(1), cx.width(0));
        let losses = list.scratch(8 * rows);
        list.rows(
            "weighted_cross_entropy",
            "weighted_cross_entropy",
            rows,
            classes,
            args![
                In(0),
                In(1),
                In(3),
                losses,
                Fault,
                classes as u32,
                self.smoothing.get()
            ],
        );
        list.once(
            "cross_entropy",
            "scaled_sum",
            args![losses, In(2), Out(0), rows as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (labels, weights) = (io.input(1).slice::<u32>(), io.input(3).slice::<f32>());
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        let classes = io.input(0).dims[1];
        let spread = self.smoothing.get() / classes as f64;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let mut sum = 0.0;
            for (row, &label) in io.input(0).slice::<T>().chunks_exact(classes).zip(labels) {
                let (Some(own), Some(&weight)) = (row.get(label as usize), weights.get(label as usize)) else {
                    return Err(OpError::Index { index: u64::from(label), rows: classes as u64 });
                };
                let lse = log_sum_exp(row);
                let all: f64 = row.iter().zip(weights).map(|(x, &w)| f64::from(w) * (lse - x.wide())).sum();
                sum += (1.0 - self.smoothing.get()) * f64::from(weight) * (lse - own.wide()) + spread * all;
            }
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let smoothing = self.smoothing;
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| {
            let inputs = [&at.inputs[..4], &[up]].concat();
            b.push1(WeightedCrossEntropyGrad { smoothing }, &inputs)
        });
        vec![dx, None, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// Whether there is an f32 weight for each column of a matrix.
pub(super) fn check_weights(logits: &TensorType, weights: &TensorType) -> Result<(), String> {
    match logits.matrix() {
        Some((_, c)) if *weights == TensorType::new(DType::F32, [c]) => Ok(()),
        _ => Err("an f32 weight for each class is wanted".into()),
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::cross_entropy::{classes, many_classes};
    use super::fixtures::{Fixtures, SHAPES, ids, matrix, scalar};
    let mut all = Fixtures::new();
    for smoothing in [0.0, 0.1].map(Real::new) {
        let op = || WeightedCrossEntropy { smoothing };
        all.sample(op(), [classes(), vec![weights(3)]].concat());
        for (rows, d) in SHAPES {
            all.case(op(), [many_classes(rows, d), vec![weights(d)]].concat());
        }
    }
    let smoothing = Real::new(0.1);
    all.fault(
        WeightedCrossEntropy { smoothing },
        [matrix(1, 2, 3), ids(&[0, 3]), scalar(1.0), weights(3)],
    );
    all
}

/// A weight for each class.
#[cfg(test)]
pub(super) fn weights(classes: usize) -> super::Tensor {
    let weights: Vec<f32> = (0..classes).map(|c| 0.5 + 0.75 * (c % 5) as f32).collect();
    super::Tensor::new(weights, &[classes])
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, floats, ids, scalar};
    use super::super::{CrossEntropy, Op, Tensor};
    use super::*;

    /// `torch.nn.CrossEntropyLoss(weight=[0.5, 3, 1.25], label_smoothing=ε, reduction="sum")` in f64.
    #[test]
    fn sums_are_those_of_torch() {
        let logits = vec![0.5_f64, -1.25, 2.0, 3.0, 0.25, -0.5];
        let inputs = [
            Tensor::new(logits, &[2, 3]),
            ids(&[1, 0]),
            scalar(1.0),
            Tensor::new(vec![0.5_f32, 3.0, 1.25], &[3]),
        ];
        for (smoothing, want) in [(0.0, 10.492_843_539_633_402), (0.2, 10.038_090_933_562_99)] {
            let op: Op = WeightedCrossEntropy {
                smoothing: Real::new(smoothing),
            }
            .into();
            let is = floats(&eval(&op, &inputs, 1)[0])[0];
            assert!((is - want).abs() < 1e-12, "{smoothing}: {is}");
        }
        // Equal weights and no smoothing: the plain loss.
        let mut plain = inputs.clone();
        plain[3] = Tensor::new(vec![1.0_f32; 3], &[3]);
        let op: Op = WeightedCrossEntropy {
            smoothing: Real::new(0.0),
        }
        .into();
        let one = floats(&eval(&op, &plain, 1)[0]);
        let other = floats(&eval(&CrossEntropy.into(), &plain[..3], 1)[0]);
        assert_eq!(one, other);
    }
}
