//! `rms_norm`: rows, or the heads in them, divided by their root mean square and scaled.

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, part, row_sum, simd};
use super::{
    At, Builder, Cost, Io, Kernel, OpError, OpRule, RmsNormGrad, RmsNormGradWeight, SizedCx,
    TensorType, Value,
};

/// `(x[N, d], γ[w]) → [N, d]`: each run `r` of `w` columns, of which a row has `d / w`, becomes `r / √(mean r² + ε) · γ`
/// (Zhang and Sennrich 2019, arXiv 1910.07467). With `w = d` a run is a row; with `w` a head's width each head is
/// normed by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RmsNorm {
    /// Added to the mean of the squares.
    pub eps: Real,
    /// Whether the factor is `1 + γ` (Gemma).
    pub plus_one: bool,
}

impl RmsNorm {
    /// Columns of a run, if the weight is a vector whose width divides the matrix's.
    pub(super) fn width(x: &TensorType, weight: &TensorType) -> Option<u64> {
        let (_, d) = x.matrix()?;
        let (d, [w]) = (d.as_const()?, weight.shape.as_slice()) else {
            return None;
        };
        let w = w.as_const()?;
        let good = x.dtype.is_compute() && weight.dtype == x.dtype;
        (good && w > 0 && d.is_multiple_of(w)).then_some(w)
    }

    /// What is added to the weight.
    pub(super) fn addend(&self) -> f64 {
        if self.plus_one { 1.0 } else { 0.0 }
    }
}

/// The reciprocal of a run's root mean square.
#[inline(always)]
pub(super) fn reciprocal<T: Elementary>(run: &[T], eps: f64) -> T {
    let mean = row_sum(run, |x| x * x) / T::of(run.len() as f64);
    T::of(1.0 / (mean.wide() + eps).sqrt())
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("rms_norm" with "rms_norm.cuh"));

impl OpRule for RmsNorm {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, weight] if Self::width(a, weight).is_some() => Ok(vec![(*a).clone()]),
            _ => Err("a matrix and a vector whose width divides its own are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let w = cx.elements(1);
        list.rows(
            "rms_norm",
            "rms_norm",
            cx.elements(0) / w.max(1),
            w,
            args![
                In(0),
                In(1),
                Out(0),
                w as u32,
                self.eps.get(),
                self.addend() as f32
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
            return vec![None; 2];
        };
        let (x, weight) = (at.inputs[0], at.inputs[1]);
        let dx = at.needs[0].then(|| b.push1(RmsNormGrad(self.clone()), &[up, x, weight]));
        let width = b.ty(weight).shape.first().and_then(|w| w.as_const());
        let dw = width.filter(|_| at.needs[1]).map(|width| {
            let eps = self.eps;
            b.push1(RmsNormGradWeight { eps, width }, &[up, x])
        });
        vec![dx, dw]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 4 * cx.elements(0),
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

impl RmsNorm {
    fn compute<T: Elementary>(&self, io: &mut Io<'_>) {
        let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
        let weight = io.input(1).slice::<T>();
        let (w, eps, add) = (weight.len(), self.eps.get(), T::of(self.addend()));
        for_chunks_of_rows(io.outputs[0].slice::<T>(), w, |first, runs| {
            if let Some(x) = x {
                runs.copy_from_slice(part(x, first * w, runs.len()));
            }
            simd!(<T> (runs: &'a mut [T] = runs, weight: &'a [T] = weight, eps: f64 = eps, add: T = add) {
                for run in runs.chunks_exact_mut(weight.len().max(1)) {
                    let r = reciprocal(run, eps);
                    for (x, &g) in run.iter_mut().zip(weight) {
                        *x = *x * r * (add + g);
                    }
                }
            });
        });
    }
}

/// Norms of both kinds.
#[cfg(test)]
pub(super) fn kinds() -> [RmsNorm; 2] {
    [false, true].map(|plus_one| RmsNorm {
        eps: Real::new(1e-5),
        plus_one,
    })
}

/// Rows, widths and runs a row at which the launches are tried.
#[cfg(test)]
pub(super) fn shapes() -> Vec<(usize, usize, usize)> {
    let whole = super::fixtures::SHAPES.map(|(rows, d)| (rows, d, d));
    let heads = [(33, 6, 2), (3, 256, 64), (9, 768, 96)];
    whole.into_iter().chain(heads).collect()
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, list, matrix, random};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    for op in kinds() {
        for w in [37, 74] {
            all.sample(op.clone(), [random(10, &[4, 74]), random(11, &[w])]);
        }
        all.large(op.clone(), [matrix(4, 300, 128), list(5, 32)]);
        for (rows, d, w) in shapes() {
            all.case(op.clone(), [matrix(10, rows, d), list(11, w)]);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{eval, floats, random, ty};
    use super::*;

    #[test]
    fn each_run_is_as_its_formula_says() {
        let (x, weight) = (random(1, &[5, 12]), random(2, &[4]));
        for (op, add) in kinds().into_iter().zip([0.0, 1.0]) {
            let made = floats(&eval(&op.into(), &[x.clone(), weight.clone()], 1)[0]);
            let (x, weight) = (floats(&x), floats(&weight));
            for (run, made) in x.chunks(4).zip(made.chunks(4)) {
                let square: f64 = run.iter().map(|x| x * x).sum::<f64>() / 4.0 + 1e-5;
                for ((x, y), g) in run.iter().zip(made).zip(&weight) {
                    let want = x / square.sqrt() * (g + add);
                    assert!((y - want).abs() < 1e-14, "{y} for {want}");
                }
            }
        }
    }

    #[test]
    fn a_width_that_does_not_divide_is_refused() {
        let [op, _] = kinds();
        let x = ty(&random(1, &[5, 12]));
        for (w, good) in [(5, false), (24, false), (12, true), (3, true), (0, false)] {
            let weight = ty(&random(2, &[w]));
            assert_eq!(op.infer(&[&x, &weight]).is_ok(), good, "{w}");
        }
    }
}
