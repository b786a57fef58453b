//! `weighted_binary_cross_entropy`: the loss of texts with any number of classes, whose presence weighs more or less.

use super::binary_cross_entropy::check;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::weighted_cross_entropy::check_weights;
use super::{
    At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value,
    WeightedBinaryCrossEntropyGrad,
};

/// `(logits[S, C], targets f32[S, C], scale f32[1], weights f32[C]) → [1]`:
/// `scale / C · Σ (1 − t)·log(1 + eˣ) + w·t·log(1 + e⁻ˣ)`, as torch's `BCEWithLogitsLoss(pos_weight = w)` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedBinaryCrossEntropy;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("weighted_binary_cross_entropy"));

impl OpRule for WeightedBinaryCrossEntropy {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, targets, scale, weights] => {
                check(logits, targets, scale)?;
                check_weights(logits, weights)?;
                Ok(vec![TensorType::scalar(logits.dtype)])
            }
            _ => Err("logits, targets, a scale and weights are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (n, classes) = (cx.elements(0), cx.width(0) as u32);
        list.once(
            "weighted_binary_cross_entropy",
            "weighted_binary_cross_entropy",
            args![In(0), In(1), In(2), In(3), Out(0), n, classes],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (targets, weights) = (io.input(1).slice::<f32>(), io.input(3).slice::<f32>());
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let logits = io.input(0).slice::<T>().iter().zip(targets);
            let each = logits.zip(weights.iter().cycle());
            let sum: f64 = each.map(|((x, &t), &w)| loss(x.wide(), f64::from(t), f64::from(w))).sum();
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale / weights.len() as f64);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| {
            let inputs = [&at.inputs[..4], &[up]].concat();
            b.push1(WeightedBinaryCrossEntropyGrad, &inputs)
        });
        vec![dx, None, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// `(1 − t)·log(1 + eˣ) + w·t·log(1 + e⁻ˣ)`, without an overflow.
fn loss(x: f64, t: f64, w: f64) -> f64 {
    let factor = 1.0 + (w - 1.0) * t;
    (1.0 - t) * x + factor * (libm::log1p(libm::exp(-x.abs())) + (-x).max(0.0))
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::binary_cross_entropy::sets;
    use super::fixtures::{Fixtures, SHAPES, narrow};
    use super::weighted_cross_entropy::weights;
    let mut all = Fixtures::new();
    let op = || WeightedBinaryCrossEntropy;
    all.sample(op(), [sets(4, 3), vec![weights(3)]].concat());
    for (rows, d) in SHAPES {
        let own: Vec<_> = sets(rows, d).iter().map(narrow).collect();
        all.case(op(), [own, vec![weights(d)]].concat());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::loss;

    #[test]
    fn the_presence_of_a_class_weighs_and_its_absence_does_not() {
        let ln2 = 2.0_f64.ln();
        assert!((loss(0.0, 1.0, 3.0) - 3.0 * ln2).abs() < 1e-15);
        assert!((loss(0.0, 0.0, 3.0) - ln2).abs() < 1e-15);
        assert_eq!(loss(1e4, 0.0, 3.0), 1e4);
        assert_eq!(loss(-1e4, 1.0, 3.0), 3e4);
        assert_eq!(loss(1e4, 1.0, 3.0), 0.0);
    }
}
