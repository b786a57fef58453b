//! `ordinal`: the loss of ranks, each of which is asked for where the one below is reached.

use super::launch::{
    KernelSource, Launches,
    Operand::{Fault, In, Out},
    args, is_single, source,
};
use super::math::Elementary;
use super::{At, Builder, Io, Kernel, OpError, OpRule, OrdinalGrad, SizedCx, TensorType, Value};

/// `(scores[S, K − 1], ranks u32[S], scale f32[1]) → [1]`: `scale · Σ −log P`, where score `k` of a row is the log-odds that its rank is
/// above `k` if it is at least `k`, and `P` is the probability of what is known of a row of rank `y`: above each `k < y`, and not above
/// `y`, of those that there are (Shi et al. 2021, arXiv 2111.08851, equation 6, without its mean).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ordinal;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("ordinal"));

impl OpRule for Ordinal {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [scores, ranks, scale] => {
                super::cross_entropy::check(scores, ranks, scale)?;
                Ok(vec![TensorType::scalar(scores.dtype)])
            }
            _ => Err("scores, ranks and a scale are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        let (rows, tasks) = (cx.elements(1) as u32, cx.width(0) as u32);
        let args = args![In(0), In(1), In(2), Out(0), Fault, rows, tasks];
        list.once("ordinal", "ordinal", args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let ranks = io.input(1).slice::<u32>();
        let scale = f64::from(io.input(2).slice::<f32>()[0]);
        let tasks = io.input(0).dims[1];
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let mut sum = 0.0;
            for (row, &rank) in io.input(0).slice::<T>().chunks_exact(tasks).zip(ranks) {
                let index = u64::from(rank);
                if index > tasks as u64 {
                    return Err(OpError::Index { index, rows: tasks as u64 + 1 });
                }
                for (task, score) in (0..=rank).zip(row) {
                    let x = score.wide();
                    sum += softplus(if task < rank { -x } else { x });
                }
            }
            io.outputs[0].slice::<T>()[0] = T::of(sum * scale);
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let dx = at.up[0].filter(|_| at.needs[0]).map(|up| {
            let operands = [at.inputs[0], at.inputs[1], at.inputs[2], up];
            b.push1(OrdinalGrad, &operands)
        });
        vec![dx, None, None]
    }

    fn differentiable(&self, input: usize) -> bool {
        input == 0
    }
}

/// `log(1 + eˣ)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, ids, matrix, scalar};
    let mut all = Fixtures::new();
    all.sample(Ordinal, few());
    for (rows, d) in SHAPES {
        all.case(Ordinal, many(rows, d));
    }
    all.fault(Ordinal, [matrix(1, 2, 3), ids(&[3, 4]), scalar(1.0)]);
    all
}

/// Scores, ranks and the factor of a few rows.
#[cfg(test)]
pub(super) fn few() -> Vec<super::Tensor> {
    use super::fixtures::{ids, random, scalar};
    vec![random(23, &[5, 3]), ids(&[2, 0, 1, 3, 1]), scalar(0.25)]
}

/// The same of any size, in f32.
#[cfg(test)]
pub(super) fn many(rows: usize, d: usize) -> Vec<super::Tensor> {
    use super::fixtures::{ids, matrix, scalar};
    let ranks: Vec<u32> = (0..rows as u32).map(|i| i * 7 % (d as u32 + 1)).collect();
    vec![matrix(10, rows, d), ids(&ranks), scalar(0.125)]
}
