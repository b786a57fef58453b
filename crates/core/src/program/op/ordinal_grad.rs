//! `ordinal_grad`: gradient of the loss of ranks.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, is_single, source,
};
use super::math::{Elementary, for_chunks_of_rows};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(scores[S, K − 1], ranks u32[S], scale f32[1], up[1]) → [S, K − 1]`: `up · scale · (σ(score) − above)` of the scores that are asked of
/// a row, 0 of the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrdinalGrad;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("ordinal_grad"));

impl OpRule for OrdinalGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [scores, ranks, scale, up] if **up == TensorType::scalar(scores.dtype) => {
                super::cross_entropy::check(scores, ranks, scale)?;
                Ok(vec![(*scores).clone()])
            }
            _ => Err("scores, ranks, a scale and a gradient are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let tasks = cx.width(0);
        list.rows(
            "ordinal_grad",
            "ordinal_grad",
            cx.elements(1),
            tasks,
            args![In(0), In(1), In(2), In(3), Out(0), tasks as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let ranks = io.input(1).slice::<u32>();
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        let tasks = io.input(0).dims[1];
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (scores, up) = (io.input(0).slice::<T>(), io.input(3).slice::<T>()[0].wide());
            for_chunks_of_rows(io.outputs[0].slice::<T>(), tasks, |first, rows| {
                let own = scores.chunks_exact(tasks).zip(ranks).skip(first);
                for (out, (row, &rank)) in rows.chunks_exact_mut(tasks).zip(own) {
                    for (task, (o, x)) in (0_u32..).zip(out.iter_mut().zip(row)) {
                        let share = 1.0 / (1.0 + libm::exp(-x.wide()));
                        let slope = match task.cmp(&rank) {
                            std::cmp::Ordering::Less => share - 1.0,
                            std::cmp::Ordering::Equal => share,
                            std::cmp::Ordering::Greater => 0.0,
                        };
                        *o = T::of(up * scale * slope);
                    }
                }
            });
        });
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, random};
    use super::ordinal::{few, many};
    let mut all = Fixtures::new();
    all.sample(OrdinalGrad, [few(), vec![random(24, &[1])]].concat());
    for (rows, d) in SHAPES {
        all.case(OrdinalGrad, [many(rows, d), vec![list(24, 1)]].concat());
    }
    all
}
