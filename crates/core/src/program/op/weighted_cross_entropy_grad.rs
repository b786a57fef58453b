//! `weighted_cross_entropy_grad`: gradient of the classification loss with weights and smoothed labels.

use super::super::types::Real;
use super::cross_entropy::{check, log_sum_exp};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks_of_rows};
use super::weighted_cross_entropy::check_weights;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(logits[S, C], labels u32[S], scale f32[1], weights f32[C], up[1]) → up · scale · (softmax · Σ t − t)`, where
/// `t = weights · ((1 − ε) · onehot + ε / C)` is what the log probabilities are multiplied with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedCrossEntropyGrad {
    /// The share of a label that is spread over all classes.
    pub smoothing: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("weighted_cross_entropy_grad"));

impl OpRule for WeightedCrossEntropyGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, labels, scale, weights, up] if **up == TensorType::scalar(logits.dtype) => {
                check(logits, labels, scale)?;
                check_weights(logits, weights)?;
                Ok(vec![(*logits).clone()])
            }
            _ => Err("logits, labels, a scale, weights and a gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let classes = cx.width(0);
        list.rows(
            "weighted_cross_entropy_grad",
            "weighted_cross_entropy_grad",
            cx.elements(1),
            classes,
            args![
                In(0),
                In(1),
                In(2),
                In(3),
                In(4),
                Out(0),
                classes as u32,
                self.smoothing.get()
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (labels, weights) = (io.input(1).slice::<u32>(), io.input(3).slice::<f32>());
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        let classes = io.input(0).dims[1];
        let spread = self.smoothing.get() / classes as f64;
        let all: f64 = weights.iter().map(|&w| f64::from(w)).sum::<f64>() * spread;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (logits, up) = (io.input(0).slice::<T>(), io.input(4).slice::<T>()[0].wide());
            let out = io.outputs[0].slice::<T>();
            for_chunks_of_rows(out, classes, |first, rows| {
                let logits = logits.chunks_exact(classes).zip(labels).skip(first);
                for (out, (row, &label)) in rows.chunks_exact_mut(classes).zip(logits) {
                    let lse = log_sum_exp(row);
                    let weight = weights.get(label as usize).copied().unwrap_or(0.0);
                    let own = (1.0 - self.smoothing.get()) * f64::from(weight);
                    for (class, ((o, x), &w)) in out.iter_mut().zip(row).zip(weights).enumerate() {
                        let target = if class == label as usize { own } else { 0.0 } + spread * f64::from(w);
                        *o = T::of(up * scale * ((own + all) * libm::exp(x.wide() - lse) - target));
                    }
                }
            });
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::cross_entropy::{classes, many_classes};
    use super::fixtures::{Fixtures, SHAPES, list, random};
    use super::weighted_cross_entropy::weights;
    let mut all = Fixtures::new();
    let smoothing = Real::new(0.1);
    let op = || WeightedCrossEntropyGrad { smoothing };
    let ends = |d, up| vec![weights(d), up];
    all.sample(op(), [classes(), ends(3, random(24, &[1]))].concat());
    for (rows, d) in SHAPES {
        let own = [many_classes(rows, d), ends(d, list(24, 1))].concat();
        all.case(op(), own);
    }
    all
}
