//! `rms_norm_grad_weight`: gradient of a norm by root mean square by its weight.

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, column_sums, column_sums_scratch, part, simd};
use super::rms_norm::reciprocal;
use super::{Cost, Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(up[N, d], x[N, d]) → dγ[w]`: the sum over all runs of `w` columns of `up ⊙ x / √(mean x² + ε)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RmsNormGradWeight {
    /// Added to the mean of the squares.
    pub eps: Real,
    /// Columns of a run.
    pub width: u64,
}

impl RmsNormGradWeight {
    /// How many runs there are.
    const fn runs(&self, elements: u64) -> u64 {
        match elements.checked_div(self.width) {
            Some(runs) => runs,
            None => 0,
        }
    }
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("rms_norm_grad_weight" with "rms_norm.cuh"));

impl OpRule for RmsNormGradWeight {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, a] if up == a => {
                let weight = TensorType::fixed(a.dtype, &[self.width]);
                if super::RmsNorm::width(a, &weight).is_some() {
                    return Ok(vec![weight]);
                }
                Err(format!(
                    "the width of a run, {}, must divide a row's",
                    self.width
                ))
            }
            _ => Err("a gradient and its input are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[])?);
        let (runs, w) = (self.runs(cx.elements(0)), self.width);
        let name = "rms_norm_grad_weight";
        let scales = list.scratch(4 * runs);
        list.rows(
            name,
            "rms_norm_scales",
            runs,
            w,
            args![In(1), scales, w as u32, self.eps.get()],
        );
        let inputs = [In(0), In(1), scales];
        list.column_sums((name, name), (runs, w), &inputs, &[Out(0)]);
        Some(list)
    }

    fn mixes_rows(&self) -> bool {
        true
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => self.compute::<T>(cx, io));
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 5 * cx.elements(0),
            bytes: cx.traffic(),
        }
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        let size = cx.outputs.first().map_or(4, |x| x.computed.size());
        column_sums_scratch(self.runs(cx.elements(0)), self.width, size)
    }
}

impl RmsNormGradWeight {
    fn compute<T: Elementary>(&self, cx: &Kernel<'_>, io: &mut Io<'_>) {
        let (up, x) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
        let (w, eps) = (self.width as usize, self.eps.get());
        let runs = self.runs(x.len() as u64);
        let scratch = column_sums_scratch(runs, self.width, size_of::<T>() as u64);
        cx.scratch(scratch, || {
            column_sums(runs as usize, w, io.outputs[0].slice::<T>(), |range, sums| {
                let (start, n) = (range.start * w, range.len() * w);
                let (up, x) = (part(up, start, n), part(x, start, n));
                simd!(<T> (up: &'a [T] = up, x: &'a [T] = x, sums: &'a mut [T] = sums, eps: f64 = eps) {
                    let w = sums.len().max(1);
                    for (up, x) in up.chunks_exact(w).zip(x.chunks_exact(w)) {
                        let r = reciprocal(x, eps);
                        for ((s, &u), &x) in sums.iter_mut().zip(up).zip(x) {
                            *s += u * (x * r);
                        }
                    }
                });
            });
        });
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, matrix, small};
    use super::rms_norm::shapes;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1], vec![]));
    let op = |width: usize| RmsNormGradWeight {
        eps: Real::new(1e-5),
        width: width as u64,
    };
    all.sample(op(5), [small(4), small(13)]);
    all.large(op(64), [matrix(4, 700, 128), matrix(5, 700, 128)]);
    for (rows, d, w) in shapes() {
        all.case(op(w), [matrix(13, rows, d), matrix(10, rows, d)]);
    }
    all
}
