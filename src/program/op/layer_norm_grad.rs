//! `layer_norm_grad`: gradient of a layer norm by its input.

use super::math::{Elementary, for_chunks_of_rows, part, row_sum, simd};
use super::{Io, Kernel, OpError, OpRule, TensorType};

/// `(up[N, d], x[N, d], mean[N], rstd[N], γ[d]) → dx[N, d]`: with `x̂ = (x − mean) rstd` and
/// `g = up ⊙ γ`, `dx = rstd · (g − mean(g) − x̂ · mean(g ⊙ x̂))`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LayerNormGrad;

impl OpRule for LayerNormGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, a, mean, rstd, g] if up == a && mean == rstd && a.dtype.is_compute() => match a.matrix() {
                Some((n, d)) if mean.shape == [n] && g.shape == [d] => Ok(vec![(*a).clone()]),
                _ => Err("sizes do not agree".into()),
            },
            _ => Err("gradient, input, two statistics and a scale are wanted".into()),
        }
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
    let (x, mean, rstd, gamma) = (io.input(1).slice::<T>(), io.input(2).slice::<T>(), io.input(3).slice::<T>(), io.input(4).slice::<T>());
    let d = gamma.len();
    for_chunks_of_rows(io.outputs[0].slice::<T>(), d, |first, rows| {
        simd(|| {
            if let Some(up) = up {
                rows.copy_from_slice(part(up, first * d, rows.len()));
            }
            for (i, row) in rows.chunks_exact_mut(d).enumerate() {
                let (x, m, r) = (part(x, (first + i) * d, d), mean[first + i], rstd[first + i]);
                let n = T::of(d as f64);
                row.iter_mut().zip(gamma).for_each(|(u, &g)| *u *= g);
                let sum = row_sum(row, |_, g| g) / n;
                let dot = dot_centred(row, x, m) * r / n;
                for (u, &x) in row.iter_mut().zip(x) {
                    *u = r * (*u - sum - (x - m) * r * dot);
                }
            }
        });
    });
}

/// `Σ g · (x − m)`, lanes combined in order.
#[inline(always)]
fn dot_centred<T: Elementary>(g: &[T], x: &[T], m: T) -> T {
    let mut lanes = [T::zero(); 16];
    let (gs, xs) = (g.chunks_exact(16), x.chunks_exact(16));
    let tail = gs.remainder().iter().zip(xs.remainder());
    for (g, x) in gs.clone().zip(xs.clone()) {
        for ((lane, &g), &x) in lanes.iter_mut().zip(g).zip(x) {
            *lane += g * (x - m);
        }
    }
    let mut sum = T::zero();
    for lane in lanes {
        sum += lane;
    }
    for (&g, &x) in tail {
        sum += g * (x - m);
    }
    sum
}
