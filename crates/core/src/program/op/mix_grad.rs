//! `mix_grad`: gradients of a gate between two matrices.

use rayon::prelude::*;

use super::super::types::Real;
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{CHUNK, Elementary, part, row_sum_of_two, simd};
use super::mix::gate;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(up[N, d], x, y, alpha[1]) → (μ up, (1 − μ) up, Σ up ⊙ (x − y) · μ (1 − μ) / temperature)`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MixGrad {
    /// Divisor of the gate's logit.
    pub temperature: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("mix_grad"));

impl OpRule for MixGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, a, b, gate] if up == a && a == b && **gate == TensorType::fixed(a.dtype, &[1]) => {
                Ok(vec![(*a).clone(), (*a).clone(), (*gate).clone()])
            }
            _ => Err("three floats of one type and a gate of one element are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1, 2], &[0, 1])?);
        let (n, temperature) = (cx.elements(0), self.temperature.get());
        let blocks = n.div_ceil(CHUNK as u64);
        let sums = list.scratch(8 * blocks);
        list.rows(
            "mix_grad",
            "mix_grad",
            blocks,
            256,
            args![
                In(0),
                In(1),
                In(2),
                In(3),
                Out(0),
                Out(1),
                sums,
                n,
                temperature
            ],
        );
        list.once(
            "mix_grad",
            "mix_grad_gate",
            args![sums, In(3), Out(2), blocks as u32, temperature],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let [up, x, y] = [0, 1, 2].map(|i| io.input(i).slice::<T>());
            let gate = gate(io.input(3).slice::<T>()[0], self.temperature);
            let (a, b) = (T::of(gate), T::of(1.0 - gate));
            let [dx, dy, dalpha] = io.outputs.as_mut_slice() else { unreachable!("three outputs: inferred") };
            let chunk = |(i, (dx, dy)): (usize, (&mut [T], &mut [T]))| {
                let at = |list| part(list, i * CHUNK, dx.len());
                let (up, x, y) = (at(up), at(x), at(y));
                simd!(<T> (up: &'a [T] = up, x: &'a [T] = x, y: &'a [T] = y, dx: &'a mut [T] = dx, dy: &'a mut [T] = dy, a: T = a, b: T = b) -> T {
                    for ((dy, &x), &y) in dy.iter_mut().zip(x).zip(y) {
                        *dy = x - y;
                    }
                    let sum = row_sum_of_two(up, dy, |up, difference| up * difference);
                    for ((dx, dy), &up) in dx.iter_mut().zip(dy).zip(up) {
                        *dx = a * up;
                        *dy = b * up;
                    }
                    sum
                }).wide()
            };
            // Chunks have a fixed size and their sums are added in order, whatever the threads.
            let sums: Vec<f64> = dx.slice::<T>().par_chunks_mut(CHUNK).zip(dy.slice::<T>().par_chunks_mut(CHUNK)).enumerate().map(chunk).collect();
            let total: f64 = sums.iter().sum();
            dalpha.slice::<T>()[0] = T::of(total * gate * (1.0 - gate) / self.temperature.get());
        });
        Ok(())
    }

    fn workspace(&self, cx: &super::SizedCx, _: &super::Machine) -> u64 {
        cx.elements(0).div_ceil(CHUNK as u64) * 8
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random, small};
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2], vec![0, 1]));
    let op = MixGrad {
        temperature: Real::new(0.7),
    };
    all.sample(
        op.clone(),
        [small(36), small(4), small(34), random(35, &[1])],
    );
    for (rows, d) in SHAPES {
        let [up, a, b] = [17, 10, 13].map(|seed| matrix(seed, rows, d));
        all.case(op.clone(), [up, a, b, list(16, 1)]);
    }
    all
}
