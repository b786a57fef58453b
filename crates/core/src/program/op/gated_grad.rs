//! `gated_grad`: gradients of a gated product by both operands.

use rayon::prelude::*;

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{CHUNK, Elementary, part, simd};
use super::{ActivationKind, Cost, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(up, g, u) → (up ⊙ u ⊙ f′(g), up ⊙ f(g))`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatedGrad {
    /// The function.
    pub kind: ActivationKind,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("gated_grad" with "activation.cuh"));

impl OpRule for GatedGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, g, u] if up == g && g == u && g.dtype.is_compute() => {
                Ok(vec![(*g).clone(), (*g).clone()])
            }
            _ => Err("three floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1, 2], &[0, 1])?);
        let kernel = match self.kind {
            ActivationKind::Gelu => "gated_gelu_grad",
            ActivationKind::GeluTanh => "gated_gelu_tanh_grad",
            ActivationKind::Relu => "gated_relu_grad",
            ActivationKind::Tanh => "gated_tanh_grad",
            ActivationKind::Silu => "gated_silu_grad",
        };
        let n = cx.elements(0);
        list.fours(
            "gated_grad",
            kernel,
            n,
            args![In(0), In(1), In(2), Out(0), Out(1), n],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => compute::<T>(self.kind, io));
        Ok(())
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 3 * cx.elements(0),
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

fn compute<T: Elementary>(kind: ActivationKind, io: &mut Io<'_>) {
    let up = io.taken.is_none().then(|| io.input(0).slice::<T>());
    let (g, u) = (io.input(1).slice::<T>(), io.input(2).slice::<T>());
    let [dg, du] = io.outputs.as_mut_slice() else {
        unreachable!("two outputs: inferred")
    };
    let (dg, du) = (dg.slice::<T>(), du.slice::<T>());
    let one = |start: usize, dg: &mut [T], du: &mut [T]| {
        let n = dg.len();
        if let Some(up) = up {
            dg.copy_from_slice(part(up, start, n));
        }
        back(kind, dg, du, part(g, start, n), part(u, start, n));
    };
    if dg.len() <= 2 * CHUNK {
        one(0, dg, du);
    } else {
        let each = dg.par_chunks_mut(CHUNK).zip(du.par_chunks_mut(CHUNK));
        each.enumerate()
            .for_each(|(i, (dg, du))| one(i * CHUNK, dg, du));
    }
}

/// Both gradients, where `dg` holds the upstream gradient before; one loop a kind, so that each vectorises.
fn back<T: Elementary>(kind: ActivationKind, dg: &mut [T], du: &mut [T], g: &[T], u: &[T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (dg: &'a mut [T] = dg, du: &'a mut [T] = du, g: &'a [T] = g, u: &'a [T] = u) {
                for (((dg, du), &g), &u) in dg.iter_mut().zip(du).zip(g).zip(u) {
                    let up = *dg;
                    *du = up * $kind.apply(g);
                    *dg = up * u * $kind.derivative_at(g);
                }
            })
        };
    }
    match kind {
        ActivationKind::Gelu => run!(ActivationKind::Gelu),
        ActivationKind::GeluTanh => run!(ActivationKind::GeluTanh),
        ActivationKind::Relu => run!(ActivationKind::Relu),
        ActivationKind::Tanh => run!(ActivationKind::Tanh),
        ActivationKind::Silu => run!(ActivationKind::Silu),
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, list, matrix, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1, 2], vec![0, 1]));
    for kind in ActivationKind::ALL {
        let op = GatedGrad { kind };
        all.sample(op.clone(), [small(4), small(17), small(18)]);
        let large = [4, 5, 6].map(|seed| matrix(seed, 300, 128));
        all.large(op.clone(), large);
        let wide = super::activation::wide();
        all.case(op, [list(26, 3004), wide, list(27, 3004)]);
    }
    all
}
