//! `layer_norm`: rows to zero mean and unit variance, then scaled and shifted.

use rayon::prelude::*;

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{CHUNK, Elementary, row_sum, simd};
use super::{
    At, Builder, Io, Kernel, LayerNormGrad, LayerNormGradWeight, OpError, OpRule, SizedCx,
    TensorType, Value,
};

/// `(x[N, d], γ[d], β[d]) → (y[N, d], mean[N], rstd[N])`, `y = (x − mean) · rstd · γ + β` with
/// `rstd = 1/√(var + ε)` (Ba et al. 2016, arXiv 1607.06450).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("layer_norm"));

impl OpRule for LayerNorm {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, g, b] if a.dtype.is_compute() && g == b && g.dtype == a.dtype => match a.matrix() {
                Some((n, d)) if g.shape == [d] => {
                    let stat = TensorType::new(a.dtype, [n]);
                    Ok(vec![(*a).clone(), stat.clone(), stat])
                }
                _ => Err("a matrix and two vectors of its width are wanted".into()),
            },
            _ => Err("three floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let (rows, d) = (cx.rows(0), cx.width(0));
        list.rows(
            "layer_norm",
            "layer_norm",
            rows,
            d,
            args![
                In(0),
                In(1),
                In(2),
                Out(0),
                Out(1),
                Out(2),
                d as u32,
                self.eps.get()
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(io));
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None; 3];
        };
        let (x, gamma, mean, rstd) = (at.inputs[0], at.inputs[1], at.outputs[1], at.outputs[2]);
        let dx = at.needs[0].then(|| b.push1(LayerNormGrad, &[up, x, mean, rstd, gamma]));
        let (dg, db) = match (at.needs[1], at.needs[2]) {
            (false, false) => (None, None),
            (false, true) => (None, Some(b.push1(super::SumRows, &[up]))),
            (true, wanted) => {
                let both = b.push(LayerNormGradWeight, &[up, x, mean, rstd]);
                (Some(both[0]), wanted.then_some(both[1]))
            }
        };
        vec![dx, dg, db]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

impl LayerNorm {
    fn compute<T: Elementary>(&self, io: &mut Io<'_>) {
        let (x, g, b) = (
            io.input(0).slice::<T>(),
            io.input(1).slice::<T>(),
            io.input(2).slice::<T>(),
        );
        let (d, eps) = (g.len(), self.eps.get());
        let [y, mean, rstd] = io.outputs.as_mut_slice() else {
            unreachable!("three outputs: inferred")
        };
        let (y, mean, rstd) = (y.slice::<T>(), mean.slice::<T>(), rstd.slice::<T>());
        let rows = (CHUNK / d.max(1)).max(1);
        let work = |(((y, mean), rstd), x): (((&mut [T], &mut [T]), &mut [T]), &[T])| {
            normalise(eps, (y, mean, rstd), x, (g, b))
        };
        if y.len() <= 2 * CHUNK {
            work((((y, mean), rstd), x));
        } else {
            let parts = y
                .par_chunks_mut(rows * d)
                .zip(mean.par_chunks_mut(rows))
                .zip(rstd.par_chunks_mut(rows))
                .zip(x.par_chunks(rows * d));
            parts.for_each(work);
        }
    }
}

fn normalise<T: Elementary>(
    eps: f64,
    (y, mean, rstd): (&mut [T], &mut [T], &mut [T]),
    x: &[T],
    (g, b): (&[T], &[T]),
) {
    simd!(<T> (eps: f64 = eps, y: &'a mut [T] = y, mean: &'a mut [T] = mean, rstd: &'a mut [T] = rstd, x: &'a [T] = x, g: &'a [T] = g, b: &'a [T] = b) {
        let d = g.len().max(1);
        let n = T::of(d as f64);
        for (((y, x), mean), rstd) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(mean).zip(rstd) {
            let m = row_sum(x, |x| x) / n;
            let var = row_sum(x, |x| (x - m) * (x - m)) / n;
            let r = T::of(1.0 / (var.wide() + eps).sqrt());
            (*mean, *rstd) = (m, r);
            for (((y, &x), &g), &b) in y.iter_mut().zip(x).zip(g).zip(b) {
                *y = (x - m) * r * g + b;
            }
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    let op = LayerNorm {
        eps: Real::new(1e-5),
    };
    all.sample(
        op.clone(),
        [random(10, &[6, 37]), random(11, &[37]), random(12, &[37])],
    );
    all.large(
        op.clone(),
        [matrix(4, 300, 128), list(5, 128), list(6, 128)],
    );
    for (rows, d) in SHAPES {
        all.case(op.clone(), operands(rows, d));
    }
    all
}

/// Rows, weight and bias in f32.
#[cfg(test)]
fn operands(rows: usize, d: usize) -> Vec<super::Tensor> {
    use super::fixtures::{list, matrix};
    vec![matrix(10, rows, d), list(11, d), list(12, d)]
}

/// What a gradient reads of such a norm: the rows, their means and the reciprocals of their deviations.
#[cfg(test)]
pub(super) fn kept(rows: usize, d: usize) -> [super::Tensor; 3] {
    let op = LayerNorm {
        eps: Real::new(1e-5),
    };
    let inputs = operands(rows, d);
    let made = super::fixtures::eval(&op.into(), &inputs, 1);
    [inputs[0].clone(), made[1].clone(), made[2].clone()]
}
