//! `activation_grad`: gradient of an activation.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_operands, simd};
use super::{ActivationKind, Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(up, saved) → up · f′`, `saved` being the output for relu and tanh and the input otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActivationGrad {
    /// Which function.
    pub kind: ActivationKind,
}

pub(super) const SOURCE: Option<KernelSource> =
    Some(source!("activation_grad" with "activation.cuh"));

impl OpRule for ActivationGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, saved] if up == saved && up.dtype.is_compute() => Ok(vec![(*up).clone()]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0, 1], &[0])?;
        let kernel = match self.kind {
            ActivationKind::Gelu => "gelu_grad",
            ActivationKind::GeluTanh => "gelu_tanh_grad",
            ActivationKind::Relu => "relu_grad",
            ActivationKind::Tanh => "tanh_grad",
            ActivationKind::Silu => "silu_grad",
        };
        let mut list = Launches::of(stored_in);
        list.fours(
            "activation_grad",
            kernel,
            cx.elements(0),
            args![In(0), In(1), Out(0), cx.elements(0)],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let kind = self.kind;
        super::kernel::float!(io.outputs[0].dtype(), T => {
            for_operands::<T>(io, |out, saved| multiply(kind, out, saved));
        });
        Ok(())
    }

    fn in_place(&self) -> &'static [usize] {
        &[0, 1]
    }
}

/// `out ← out · f′(saved)`; one loop a kind, so that each vectorises.
fn multiply<T: Elementary>(kind: ActivationKind, out: &mut [T], saved: &[T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out, saved: &'a [T] = saved) {
                for (o, &s) in out.iter_mut().zip(saved) {
                    *o *= $kind.derivative(s);
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
    use super::fixtures::{Fixtures, list, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    for kind in ActivationKind::ALL {
        all.sample(ActivationGrad { kind }, [small(4), small(17)]);
        all.case(
            ActivationGrad { kind },
            [list(27, 3004), super::activation::wide()],
        );
    }
    all
}
