//! `rms_norm_grad`: gradient of a norm by root mean square by its input.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, part, row_sum_of_two, simd};
use super::rms_norm::reciprocal;
use super::{Cost, Io, Kernel, OpError, OpRule, RmsNorm, SizedCx, TensorType};

/// `(up[N, d], x[N, d], γ[w]) → dx[N, d]`: with `r = 1/√(mean x² + ε)` of a run and `g = up ⊙ γ`,
/// `dx = r · (g − x · r² · mean(g ⊙ x))`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RmsNormGrad(pub RmsNorm);

pub(super) const SOURCE: Option<KernelSource> = Some(source!("rms_norm_grad" with "rms_norm.cuh"));

impl OpRule for RmsNormGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, a, weight] if up == a && RmsNorm::width(a, weight).is_some() => {
                Ok(vec![(*a).clone()])
            }
            _ => Err(
                "a gradient, its input and a vector whose width divides theirs are wanted".into(),
            ),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        let w = cx.elements(2);
        list.rows(
            "rms_norm_grad",
            "rms_norm_grad",
            cx.elements(0) / w.max(1),
            w,
            args![
                In(0),
                In(1),
                In(2),
                Out(0),
                w as u32,
                self.0.eps.get(),
                self.0.addend() as f32
            ],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => compute::<T>(&self.0, io));
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 8 * cx.elements(0),
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

fn compute<T: Elementary>(of: &RmsNorm, io: &mut Io<'_>) {
    let up = io.taken.is_none().then(|| io.input(0).slice::<T>());
    let (x, weight) = (io.input(1).slice::<T>(), io.input(2).slice::<T>());
    let (w, eps, add) = (weight.len(), of.eps.get(), T::of(of.addend()));
    for_chunks_of_rows(io.outputs[0].slice::<T>(), w, |first, runs| {
        if let Some(up) = up {
            runs.copy_from_slice(part(up, first * w, runs.len()));
        }
        let x = part(x, first * w, runs.len());
        simd!(<T> (runs: &'a mut [T] = runs, x: &'a [T] = x, weight: &'a [T] = weight, eps: f64 = eps, add: T = add) {
            let w = weight.len().max(1);
            let n = T::of(w as f64);
            for (run, x) in runs.chunks_exact_mut(w).zip(x.chunks_exact(w)) {
                let r = reciprocal(x, eps);
                for (u, &g) in run.iter_mut().zip(weight) {
                    *u *= add + g;
                }
                let dot = row_sum_of_two(run, x, |g, x| g * x) * r * r / n;
                for (u, &x) in run.iter_mut().zip(x) {
                    *u = r * (*u - x * dot);
                }
            }
        });
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, list, matrix, random, small};
    use super::rms_norm::{kinds, shapes};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    for op in kinds().map(RmsNormGrad) {
        all.sample(op.clone(), [small(4), small(13), random(16, &[5])]);
        let large = [matrix(4, 300, 128), matrix(5, 300, 128), list(6, 64)];
        all.large(op.clone(), large);
        for (rows, d, w) in shapes() {
            let inputs = [matrix(13, rows, d), matrix(10, rows, d), list(11, w)];
            all.case(op.clone(), inputs);
        }
    }
    all
}
