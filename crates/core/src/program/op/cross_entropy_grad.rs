//! `cross_entropy_grad`: gradient of the classification loss.

use super::cross_entropy::{check, log_sum_exp};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks_of_rows};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(logits[S, C], labels u32[S], scale f32[1], up[1]) → up · scale · (softmax − onehot)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropyGrad;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("cross_entropy_grad"));

impl OpRule for CrossEntropyGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, labels, scale, up] if **up == TensorType::scalar(logits.dtype) => {
                check(logits, labels, scale)?;
                Ok(vec![(*logits).clone()])
            }
            _ => Err("logits, labels, a scale and a gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let classes = cx.width(0);
        list.rows(
            "cross_entropy_grad",
            "cross_entropy_grad",
            cx.elements(1),
            classes,
            args![In(0), In(1), In(2), In(3), Out(0), classes as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let (labels, scale) = (
            io.input(1).slice::<u32>(),
            f64::from(io.input(2).slice::<f32>()[0]),
        );
        let classes = io.input(0).dims[1];
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (logits, up) = (io.input(0).slice::<T>(), io.input(3).slice::<T>()[0].wide());
            let out = io.outputs[0].slice::<T>();
            for_chunks_of_rows(out, classes, |first, rows| {
                let logits = logits.chunks_exact(classes).zip(labels).skip(first);
                for (out, (row, &label)) in rows.chunks_exact_mut(classes).zip(logits) {
                    let lse = log_sum_exp(row);
                    for (class, (o, x)) in out.iter_mut().zip(row).enumerate() {
                        let own = if class == label as usize { 1.0 } else { 0.0 };
                        *o = T::of(up * scale * (libm::exp(x.wide() - lse) - own));
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
    let mut all = Fixtures::new();
    all.sample(
        CrossEntropyGrad,
        [classes(), vec![random(24, &[1])]].concat(),
    );
    for (rows, d) in SHAPES {
        all.case(
            CrossEntropyGrad,
            [many_classes(rows, d), vec![list(24, 1)]].concat(),
        );
    }
    all
}
