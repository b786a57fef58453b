//! `weighted_binary_cross_entropy_grad`: its gradient.

use super::binary_cross_entropy::check;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::weighted_cross_entropy::check_weights;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(logits[S, C], targets f32[S, C], scale f32[1], weights f32[C], up[1]) → up · scale / C · ((1 + (w − 1)·t) / (1 + e⁻ˣ) − w·t)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedBinaryCrossEntropyGrad;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("weighted_binary_cross_entropy_grad"));

impl OpRule for WeightedBinaryCrossEntropyGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, targets, scale, weights, up] if **up == TensorType::scalar(logits.dtype) => {
                check(logits, targets, scale)?;
                check_weights(logits, weights)?;
                Ok(vec![(*logits).clone()])
            }
            _ => Err("logits, targets, a scale, weights and a gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (n, classes) = (cx.elements(0), cx.width(0) as u32);
        list.each(
            "weighted_binary_cross_entropy_grad",
            "weighted_binary_cross_entropy_grad",
            n,
            args![In(0), In(1), In(2), In(3), In(4), Out(0), n, classes],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (targets, weights) = (io.input(1).slice::<f32>(), io.input(3).slice::<f32>());
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let factor = io.input(4).slice::<T>()[0].wide() * scale / weights.len() as f64;
            let each = io.input(0).slice::<T>().iter().zip(targets).zip(weights.iter().cycle());
            for (o, ((x, &t), &w)) in io.outputs[0].slice::<T>().iter_mut().zip(each) {
                let (t, w) = (f64::from(t), f64::from(w));
                let sigmoid = 1.0 / (1.0 + libm::exp(-x.wide()));
                *o = T::of(factor * ((1.0 + (w - 1.0) * t) * sigmoid - w * t));
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::binary_cross_entropy::sets;
    use super::fixtures::{Fixtures, SHAPES, list, narrow, random};
    use super::weighted_cross_entropy::weights;
    let mut all = Fixtures::new();
    let op = || WeightedBinaryCrossEntropyGrad;
    let ends = |d, up| vec![weights(d), up];
    all.sample(op(), [sets(4, 3), ends(3, random(28, &[1]))].concat());
    for (rows, d) in SHAPES {
        let own: Vec<_> = sets(rows, d).iter().map(narrow).collect();
        all.case(op(), [own, ends(d, list(28, 1))].concat());
    }
    all
}
