//! `mix`: a learned gate between two matrices.

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks, part, simd};
use super::{At, Builder, Io, Kernel, MixGrad, OpError, OpRule, SizedCx, TensorType, Value};

/// `(x[N, d], y[N, d], alpha[1]) → μ x + (1 − μ) y` with `μ = σ(alpha / temperature)` (LST, arXiv
/// 2206.06522, section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mix {
    /// Divisor of the gate's logit: the lower, the sharper.
    pub temperature: Real,
}

/// `σ(alpha / temperature)`
pub(super) fn gate<T: Elementary>(alpha: T, temperature: Real) -> f64 {
    1.0 / (1.0 + libm::exp(-alpha.wide() / temperature.get()))
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("mix"));

impl OpRule for Mix {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a, b, gate]
                if a == b && a.dtype.is_compute() && **gate == TensorType::fixed(a.dtype, &[1]) =>
            {
                Ok(vec![(*a).clone()])
            }
            _ => Err("two floats of one type and a gate of one element are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        let n = cx.elements(0);
        list.fours(
            "mix",
            "mix",
            n,
            args![In(0), In(1), In(2), Out(0), n, self.temperature.get()],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let (x, y) = (io.input(0).slice::<T>(), io.input(1).slice::<T>());
            let gate = gate(io.input(2).slice::<T>()[0], self.temperature);
            let (a, b) = (T::of(gate), T::of(1.0 - gate));
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                let (x, y) = (part(x, start, out.len()), part(y, start, out.len()));
                simd!(<T> (out: &'a mut [T] = out, x: &'a [T] = x, y: &'a [T] = y, a: T = a, b: T = b) {
                    for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
                        *o = a * x + b * y;
                    }
                });
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let Some(up) = at.up[0] else {
            return vec![None; 3];
        };
        let made = b.push(
            MixGrad {
                temperature: self.temperature,
            },
            &[up, at.inputs[0], at.inputs[1], at.inputs[2]],
        );
        made.into_iter()
            .zip(at.needs)
            .map(|(grad, &wanted)| wanted.then_some(grad))
            .collect()
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random, small};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    let op = Mix {
        temperature: Real::new(0.7),
    };
    all.sample(op.clone(), [small(4), small(34), random(35, &[1])]);
    for (rows, d) in SHAPES {
        all.case(
            op.clone(),
            [matrix(10, rows, d), matrix(13, rows, d), list(16, 1)],
        );
    }
    all
}
