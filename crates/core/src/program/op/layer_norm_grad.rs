//! `layer_norm_grad`: gradient of a layer norm by its input.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks_of_rows, part, row_sum, row_sum_of_two, simd};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(up[N, d], x[N, d], mean[N], rstd[N], γ[d]) → dx[N, d]`: with `x̂ = (x − mean) rstd` and
/// `g = up ⊙ γ`, `dx = rstd · (g − mean(g) − x̂ · mean(g ⊙ x̂))`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerNormGrad;

pub(super) const SOURCE: Option<KernelSource> = Some(source!("layer_norm_grad"));

impl OpRule for LayerNormGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, a, mean, rstd, g] if up == a && mean == rstd && a.dtype.is_compute() => {
                match a.matrix() {
                    Some((n, d)) if mean.shape == [n] && g.shape == [d] => Ok(vec![(*a).clone()]),
                    _ => Err("sizes do not agree".into()),
                }
            }
            _ => Err("gradient, input, two statistics and a scale are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        let (rows, d) = (cx.rows(0), cx.width(0));
        list.rows(
            "layer_norm_grad",
            "layer_norm_grad",
            rows,
            d,
            args![In(0), In(1), In(2), In(3), In(4), Out(0), d as u32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => compute::<T>(io));
        Ok(())
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

fn compute<T: Elementary>(io: &mut Io<'_>) {
    let up = io.taken.is_none().then(|| io.input(0).slice::<T>());
    let (x, mean, rstd, gamma) = (
        io.input(1).slice::<T>(),
        io.input(2).slice::<T>(),
        io.input(3).slice::<T>(),
        io.input(4).slice::<T>(),
    );
    let d = gamma.len();
    for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, rows| {
        if let Some(up) = up {
            rows.copy_from_slice(part(up, first * d, rows.len()));
        }
        let (x, mean, rstd) = (
            part(x, first * d, rows.len()),
            &mean[first..],
            &rstd[first..],
        );
        simd!(<T> (rows: &'a mut [T] = rows, x: &'a [T] = x, mean: &'a [T] = mean, rstd: &'a [T] = rstd, gamma: &'a [T] = gamma) {
            let d = gamma.len();
            let n = T::of(d as f64);
            for (((row, x), &m), &r) in rows.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(mean).zip(rstd) {
                for (u, &g) in row.iter_mut().zip(gamma) {
                    *u *= g;
                }
                let sum = row_sum(row, |g| g) / n;
                let dot = row_sum_of_two(row, x, |g, x| g * (x - m)) * r / n;
                for (u, &x) in row.iter_mut().zip(x) {
                    *u = r * (*u - sum - (x - m) * r * dot);
                }
            }
        });
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random, small};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    let stats = [random(14, &[6]), random(15, &[6])];
    let [mean, rstd] = stats;
    all.sample(
        LayerNormGrad,
        [small(4), small(13), mean, rstd, random(16, &[5])],
    );
    for (rows, d) in SHAPES {
        let [x, mean, rstd] = super::layer_norm::kept(rows, d);
        all.case(
            LayerNormGrad,
            [matrix(13, rows, d), x, mean, rstd, list(11, d)],
        );
    }
    all
}
