//! `cross_entropy`: the classification loss.

use rayon::prelude::*;

use super::super::types::DType;
use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{
    At, Builder, CrossEntropyGrad, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value,
};

/// Width from which each row is worth a task of its own.
const WIDE: usize = 1024;

/// `(logits[S, C], labels u32[S], scale f32[1]) → [1]`: `scale · Σ −log softmax(logits)[label]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropy;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("cross_entropy"));

impl OpRule for CrossEntropy {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [logits, labels, scale] => {
                check(logits, labels, scale)?;
                Ok(vec![TensorType::scalar(logits.dtype)])
            }
            _ => Err("logits, labels and a scale are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (rows, classes) = (cx.elements(1), cx.width(0));
        let losses = list.scratch(8 * rows);
        list.rows(
            "cross_entropy",
            "cross_entropy",
            rows,
            classes,
            args![In(0), In(1), losses, Fault, classes as u32],
        );
        list.once(
            "cross_entropy",
            "scaled_sum",
            args![losses, In(2), Out(0), rows as u32],
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
            let loss = |(row, &label): (&[T], &u32)| match row.get(label as usize) {
                Some(own) => Ok(log_sum_exp(row) - own.wide()),
                None => Err(OpError::Index { index: u64::from(label), rows: classes as u64 }),
            };
            let logits = io.input(0).slice::<T>();
            let mut sum = 0.0;
            if classes < WIDE {
                for pair in logits.chunks_exact(classes).zip(labels) {
                    sum += loss(pair)?;
                }
            } else {
                // Rows as wide as a vocabulary are shared out; they are summed in their order all the same.
                let rows: Vec<_> = logits.par_chunks_exact(classes).zip(labels.par_iter()).map(loss).collect();
                for row in rows {
                    sum += row?;
                }
            }
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| {
            b.push1(
                CrossEntropyGrad,
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
    logits: &TensorType,
    labels: &TensorType,
    scale: &TensorType,
) -> Result<(), String> {
    match logits.matrix() {
        Some((s, _))
            if logits.dtype.is_compute()
                && labels.dtype == DType::U32
                && labels.shape == [s]
                && *scale == TensorType::scalar(DType::F32) =>
        {
            Ok(())
        }
        _ => Err("a float matrix, a u32 label for each row and an f32 scale are wanted".into()),
    }
}

/// `log Σ eˣ` in f64.
pub(super) fn log_sum_exp<T: Elementary>(row: &[T]) -> f64 {
    let max = row
        .iter()
        .map(|x| x.wide())
        .fold(f64::NEG_INFINITY, f64::max);
    max + row
        .iter()
        .map(|x| libm::exp(x.wide() - max))
        .sum::<f64>()
        .ln()
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, matrix, scalar};
    let mut all = Fixtures::new();
    all.sample(CrossEntropy, classes());
    for (rows, d) in SHAPES {
        all.case(CrossEntropy, many_classes(rows, d));
    }
    all.fault(CrossEntropy, [matrix(1, 2, 3), ids(&[0, 3]), scalar(1.0)]);
    all
}

/// Scores, labels and the factor of a few rows.
#[cfg(test)]
pub(super) fn classes() -> Vec<super::Tensor> {
    use super::fixtures::{ids, random, scalar};
    vec![random(23, &[4, 3]), ids(&[2, 0, 1, 1]), scalar(0.25)]
}

/// The same of any size, in f32.
#[cfg(test)]
pub(super) fn many_classes(rows: usize, d: usize) -> Vec<super::Tensor> {
    use super::fixtures::{ids, matrix, scalar};
    let labels: Vec<u32> = (0..rows as u32).map(|i| i * 7 % d as u32).collect();
    vec![matrix(10, rows, d), ids(&labels), scalar(0.125)]
}
