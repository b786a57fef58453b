//! `lion`: one step of Lion in place (Chen et al. 2023, arXiv 2302.06675).

use rayon::prelude::*;

use super::super::types::{DType, Real};
use super::launch::{KernelSource, Launches, Operand::In, args, source};
use super::math::{CHUNK, Elementary, simd};
use super::{Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(θ, g, m, lr f32[1], factor f32[1])`, updating θ and m, in the order of the authors' program:
/// `g ← factor · g`, `θ ← (1 − lr · λ) · θ − lr · sign(β₁m + (1 − β₁)g)`, `m ← β₂m + (1 − β₂)g`. The sign of 0 is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lion {
    /// Share of the momentum in what the sign is taken of.
    pub beta1: Real,
    /// Decay of the momentum.
    pub beta2: Real,
    /// Decoupled weight decay λ.
    pub weight_decay: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("lion"));

impl OpRule for Lion {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let one = TensorType::scalar(DType::F32);
        match x {
            [p, g, m, lr, factor]
                if p == g && g == m && p.dtype == DType::F32 && **lr == one && **factor == one =>
            {
                Ok(vec![])
            }
            _ => Err("three f32 tensors of one shape, a rate and a factor are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let n = cx.elements(0);
        let args = args![
            In(0),
            In(1),
            In(2),
            In(3),
            In(4),
            n,
            self.beta1.get(),
            self.beta2.get(),
            self.weight_decay.get()
        ];
        list.each("lion", "lion", n, args);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let g = io.input(1).slice::<f32>();
        let (lr, factor) = (io.input(3).slice::<f32>()[0], io.input(4).slice::<f32>()[0]);
        let keep = 1.0 - f64::from(lr) * self.weight_decay.get();
        let [p, m] = io.updates.as_mut_slice() else {
            unreachable!("two tensors are updated")
        };
        let now = Now {
            keep: keep as f32,
            mixed: [self.beta1.get() as f32, (1.0 - self.beta1.get()) as f32],
            kept: [self.beta2.get() as f32, (1.0 - self.beta2.get()) as f32],
            lr,
            factor,
        };
        let parts = p
            .slice::<f32>()
            .par_chunks_mut(CHUNK)
            .zip(m.slice::<f32>().par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK));
        parts.for_each(|((p, m), g)| update(now, p, m, g));
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 10 * cx.elements(0),
            bytes: 5 * 4 * cx.elements(0),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 2]
    }
}

/// The coefficients of one step.
#[derive(Clone, Copy)]
struct Now<T> {
    /// What stays of a weight.
    keep: T,
    /// Shares of the momentum and of the gradient in what the sign is taken of.
    mixed: [T; 2],
    /// Shares of both in the next momentum.
    kept: [T; 2],
    lr: T,
    factor: T,
}

fn update<T: Elementary>(now: Now<T>, p: &mut [T], m: &mut [T], g: &[T]) {
    simd!(<T> (now: Now<T> = now, p: &'a mut [T] = p, m: &'a mut [T] = m, g: &'a [T] = g) {
        for ((p, m), &g) in p.iter_mut().zip(m).zip(g) {
            let g = g * now.factor;
            let mixed = *m * now.mixed[0] + g * now.mixed[1];
            let up = if mixed > T::zero() { now.lr } else { T::zero() };
            let down = if mixed < T::zero() { now.lr } else { T::zero() };
            *p = *p * now.keep - up + down;
            *m = *m * now.kept[0] + g * now.kept[1];
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, list, narrow, scalar, small};
    let mut all = Fixtures::with_same_bits();
    let op = |beta1, beta2, weight_decay| Lion {
        beta1: Real::new(beta1),
        beta2: Real::new(beta2),
        weight_decay: Real::new(weight_decay),
    };
    let x = || narrow(&small(4));
    all.sample(
        op(0.9, 0.99, 0.1),
        [x(), x(), x(), scalar(0.1), scalar(0.5)],
    );
    let [value, up, first] = [29, 30, 31].map(|seed| list(seed, 513));
    all.case(
        op(0.95, 0.98, 0.0),
        [value, up, first, scalar(1e-3), scalar(0.9)],
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five steps of `lion-pytorch`'s formula in PyTorch, on a weight whose gradient is itself minus a goal.
    #[test]
    fn five_steps_follow_the_formula() {
        let goal = [0.5_f32, -1.25, 0.0, 2.0];
        let (mut p, mut m) = ([0.1_f32, -1.3, 0.0, -0.7], [0.0_f32; 4]);
        let now = Now {
            keep: 1.0 - 0.03 * 0.2,
            mixed: [0.9, 0.1],
            kept: [0.99, 0.01],
            lr: 0.03,
            factor: 1.0,
        };
        for _ in 0..5 {
            let mut g = [0.0_f32; 4];
            for ((g, p), goal) in g.iter_mut().zip(&p).zip(goal) {
                *g = p - goal;
            }
            update(now, &mut p, &mut m, &g);
        }
        let want = LION;
        for (own, want) in p.iter().chain(&m).zip(want) {
            assert!((own - want).abs() < 1e-6, "{p:?} {m:?}");
        }
    }

    const LION: [f32; 8] = [
        0.2452466, -1.2325368, 0.0000000, -0.5310400, -0.0167107, 0.0000790, 0.0000000, -0.1289613,
    ];
}
