//! `gated`: an activation of one matrix times another, as the feed-forward layers of language models have it.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_operands, simd};
use super::{
    ActivationKind, At, Builder, Cost, GatedGrad, Io, Kernel, OpError, OpRule, SizedCx, TensorType,
    Value,
};

/// `(g, u) → f(g) ⊙ u` of two tensors of one shape: SwiGLU with silu, GeGLU with gelu (Shazeer 2020, arXiv 2002.05202).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gated {
    /// The function.
    pub kind: ActivationKind,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("gated" with "activation.cuh"));

impl OpRule for Gated {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [g, u] if g == u && g.dtype.is_compute() => Ok(vec![(*g).clone()]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        let kernel = match self.kind {
            ActivationKind::Gelu => "gated_gelu",
            ActivationKind::GeluTanh => "gated_gelu_tanh",
            ActivationKind::Relu => "gated_relu",
            ActivationKind::Tanh => "gated_tanh",
            ActivationKind::Silu => "gated_silu",
        };
        let n = cx.elements(0);
        list.fours("gated", kernel, n, args![In(0), In(1), Out(0), n]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let kind = self.kind;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            for_operands::<T>(io, |out, u| gate(kind, out, u));
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let (Some(up), true) = (at.up[0], at.needs.contains(&true)) else {
            return vec![None; 2];
        };
        let made = b.push(
            GatedGrad { kind: self.kind },
            &[up, at.inputs[0], at.inputs[1]],
        );
        let each = made.into_iter().zip(at.needs);
        each.map(|(grad, &wanted)| wanted.then_some(grad)).collect()
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: cx.elements(0),
            bytes: cx.traffic(),
        }
    }

    fn in_place(&self) -> &'static [usize] {
        &[0, 1]
    }
}

/// `out ← f(out) · u`; one loop a kind, so that each vectorises.
fn gate<T: Elementary>(kind: ActivationKind, out: &mut [T], u: &[T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out, u: &'a [T] = u) {
                for (o, &u) in out.iter_mut().zip(u) {
                    *o = $kind.apply(*o) * u;
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
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    for kind in ActivationKind::ALL {
        let op = Gated { kind };
        all.sample(op.clone(), [small(4), small(17)]);
        all.large(op.clone(), [matrix(4, 300, 128), matrix(5, 300, 128)]);
        all.case(op, [super::activation::wide(), list(27, 3004)]);
    }
    all
}
