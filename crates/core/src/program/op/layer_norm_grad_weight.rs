//! `layer_norm_grad_weight`: gradient of a layer norm by its scale and shift.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    source, stored_in,
};
use super::math::{Elementary, column_sums, column_sums_scratch, part, simd};
use super::{Io, Kernel, Machine, OpError, OpRule, SizedCx, TensorType};

/// `(up[N, d], x[N, d], mean[N], rstd[N]) → (dγ[d], dβ[d])`: `dγ = Σ up ⊙ x̂`, `dβ = Σ up`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerNormGradWeight;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("layer_norm_grad_weight"));

impl OpRule for LayerNormGradWeight {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, a, mean, rstd] if up == a && mean == rstd && a.dtype.is_compute() => {
                match a.matrix() {
                    Some((n, d)) if mean.shape == [n] => {
                        let ty = TensorType::new(a.dtype, [d]);
                        Ok(vec![ty.clone(), ty])
                    }
                    _ => Err("sizes do not agree".into()),
                }
            }
            _ => Err("gradient, input and two statistics are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[])?);
        let name = "layer_norm_grad_weight";
        list.column_sums(
            (name, name),
            (cx.rows(0), cx.width(0)),
            &[In(0), In(1), In(2), In(3)],
            &[Out(0), Out(1)],
        );
        Some(list)
    }

    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => compute::<T>(cx, io));
        Ok(())
    }

    fn workspace(&self, cx: &SizedCx, _: &Machine) -> u64 {
        super::sum_rows::sums_workspace(cx)
    }
}

fn compute<T: Elementary>(cx: &Kernel<'_>, io: &mut Io<'_>) {
    let (up, x, mean, rstd) = (
        io.input(0).slice::<T>(),
        io.input(1).slice::<T>(),
        io.input(2).slice::<T>(),
        io.input(3).slice::<T>(),
    );
    let (n, d) = (io.input(0).dims[0], io.input(0).dims[1]);
    let scratch = column_sums_scratch(n as u64, d as u64, size_of::<T>() as u64);
    let [dg, db] = io.outputs.as_mut_slice() else {
        unreachable!("two outputs: inferred")
    };
    cx.scratch(scratch, || {
        column_sums(n, d, dg.slice::<T>(), |rows, sums| {
            let (up, x) = (part(up, rows.start * d, rows.len() * d), part(x, rows.start * d, rows.len() * d));
            let (mean, rstd) = (&mean[rows.clone()], &rstd[rows]);
            simd!(<T> (up: &'a [T] = up, x: &'a [T] = x, mean: &'a [T] = mean, rstd: &'a [T] = rstd, sums: &'a mut [T] = sums) {
                let d = sums.len().max(1);
                for (((up, x), &m), &r) in up.chunks_exact(d).zip(x.chunks_exact(d)).zip(mean).zip(rstd) {
                    for ((s, &u), &x) in sums.iter_mut().zip(up).zip(x) {
                        *s += u * ((x - m) * r);
                    }
                }
            });
        });
    });
    cx.scratch(scratch, || {
        column_sums(n, d, db.slice::<T>(), |rows, sums| {
            super::sum_rows::add_rows(part(up, rows.start * d, rows.len() * d), sums)
        });
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![]));
    let inputs = [small(4), small(13), random(14, &[6]), random(15, &[6])];
    all.sample(LayerNormGradWeight, inputs);
    for (rows, d) in SHAPES {
        let [x, mean, rstd] = super::layer_norm::kept(rows, d);
        all.case(LayerNormGradWeight, [matrix(13, rows, d), x, mean, rstd]);
    }
    all
}
