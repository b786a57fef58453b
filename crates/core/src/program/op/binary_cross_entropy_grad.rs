//! `binary_cross_entropy_grad`: gradient of the loss of texts with any number of classes.

use super::binary_cross_entropy::check;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(logits[S, C], targets f32[S, C], scale f32[1], up[1]) → up · scale / C · (1 / (1 + e⁻ˣ) − t)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BinaryCrossEntropyGrad;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("binary_cross_entropy_grad"));

impl OpRule for BinaryCrossEntropyGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, targets, scale, up] if **up == TensorType::scalar(logits.dtype) => {
                check(logits, targets, scale)?;
                Ok(vec![(*logits).clone()])
            }
            _ => Err("logits, targets, a scale and a gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let n = cx.elements(0);
        list.each(
            "binary_cross_entropy_grad",
            "binary_cross_entropy_grad",
            n,
            args![In(0), In(1), In(2), In(3), Out(0), n, cx.width(0) as u32],
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
            let factor = io.input(3).slice::<T>()[0].wide() * scale / classes;
            let logits = io.input(0).slice::<T>();
            for ((o, x), &t) in io.outputs[0].slice::<T>().iter_mut().zip(logits).zip(targets) {
                let sigmoid = 1.0 / (1.0 + libm::exp(-x.wide()));
                *o = T::of(factor * (sigmoid - f64::from(t)));
            }
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::binary_cross_entropy::sets;
    use super::fixtures::{Fixtures, SHAPES, list, narrow, random};
    let mut all = Fixtures::new();
    all.sample(
        BinaryCrossEntropyGrad,
        [sets(4, 3), vec![random(28, &[1])]].concat(),
    );
    for (rows, d) in SHAPES {
        let own: Vec<_> = sets(rows, d).iter().map(narrow).collect();
        all.case(BinaryCrossEntropyGrad, [own, vec![list(28, 1)]].concat());
    }
    all
}
