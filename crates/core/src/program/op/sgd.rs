//! `sgd`: one step of stochastic gradient descent in place.

use rayon::prelude::*;

use super::super::types::{DType, Real};
use super::launch::{KernelSource, Launches, Operand::In, args, source};
use super::math::{CHUNK, Elementary, for_chunks, part, simd};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(θ, g[, b], lr f32[1], factor f32[1])`, updating θ and the momentum `b` if there is any:
/// `g ← factor · g + λθ`, `b ← μb + g`, `θ ← θ − lr · b` (or `g + μb` with Nesterov's momentum).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sgd {
    /// μ; above 0 there is a buffer.
    pub momentum: Real,
    /// λ
    pub weight_decay: Real,
    /// Look ahead along the momentum.
    pub nesterov: bool,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("sgd"));

impl OpRule for Sgd {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let one = TensorType::scalar(DType::F32);
        let good = match x {
            [p, g, lr, factor] => {
                self.momentum.get() == 0.0
                    && p == g
                    && p.dtype == DType::F32
                    && **lr == one
                    && **factor == one
            }
            [p, g, b, lr, factor] => {
                self.momentum.get() > 0.0
                    && p == g
                    && g == b
                    && p.dtype == DType::F32
                    && **lr == one
                    && **factor == one
            }
            _ => false,
        };
        if good {
            Ok(vec![])
        } else {
            Err("f32 tensors of one shape, a rate and a factor are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        let (n, decay, momentum) = (
            cx.elements(0),
            self.weight_decay.get() as f32,
            self.momentum.get() as f32,
        );
        if momentum > 0.0 {
            let args = args![
                In(0),
                In(1),
                In(2),
                In(3),
                In(4),
                n,
                decay,
                momentum,
                u32::from(self.nesterov)
            ];
            list.each("sgd", "sgd_momentum", n, args);
        } else {
            list.each("sgd", "sgd", n, args![In(0), In(1), In(2), In(3), n, decay]);
        }
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let momentum = self.momentum.get() as f32;
        let last = io.arity();
        let g = io.input(1).slice::<f32>();
        let (lr, factor) = (
            io.input(last - 2).slice::<f32>()[0],
            io.input(last - 1).slice::<f32>()[0],
        );
        let decay = self.weight_decay.get() as f32;
        let rates = [lr, factor, decay, momentum];
        match io.updates.as_mut_slice() {
            [p] => for_chunks(p.slice::<f32>(), |start, p| {
                descend(rates, p, part(g, start, p.len()))
            }),
            [p, b] => {
                let parts = p
                    .slice::<f32>()
                    .par_chunks_mut(CHUNK)
                    .zip(b.slice::<f32>().par_chunks_mut(CHUNK))
                    .zip(g.par_chunks(CHUNK));
                parts.for_each(|((p, b), g)| roll(rates, self.nesterov, p, b, g));
            }
            _ => unreachable!("one or two tensors are updated"),
        }
        Ok(())
    }

    fn updates(&self) -> &'static [usize] {
        if self.momentum.get() > 0.0 {
            &[0, 2]
        } else {
            &[0]
        }
    }
}

fn descend<T: Elementary>(rates: [T; 4], p: &mut [T], g: &[T]) {
    simd!(<T> (rates: [T; 4] = rates, p: &'a mut [T] = p, g: &'a [T] = g) {
        let [lr, factor, decay, _] = rates;
        for (p, &g) in p.iter_mut().zip(g) {
            *p -= lr * (g * factor + decay * *p);
        }
    });
}

fn roll<T: Elementary>(rates: [T; 4], nesterov: bool, p: &mut [T], b: &mut [T], g: &[T]) {
    simd!(<T> (rates: [T; 4] = rates, nesterov: bool = nesterov, p: &'a mut [T] = p, b: &'a mut [T] = b, g: &'a [T] = g) {
        let [lr, factor, decay, momentum] = rates;
        for ((p, b), &g) in p.iter_mut().zip(b).zip(g) {
            let g = g * factor + decay * *p;
            *b = momentum * *b + g;
            *p -= lr * if nesterov { g + momentum * *b } else { *b };
        }
    });
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, narrow, scalar, small};
    let mut all = Fixtures::with_same_bits();
    let op = |momentum, nesterov| Sgd {
        momentum: Real::new(momentum),
        weight_decay: Real::new(0.1),
        nesterov,
    };
    let x = || narrow(&small(4));
    all.sample(op(0.0, false), [x(), x(), scalar(0.1), scalar(1.0)]);
    all.sample(op(0.9, true), [x(), x(), x(), scalar(0.1), scalar(1.0)]);
    all
}
