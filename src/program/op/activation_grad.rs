//! `activation_grad`: gradient of an activation.

use super::math::{for_chunks, part, rest, simd};
use super::{ActivationKind, Io, Kernel, OpError, OpRule, TensorType};

/// `(up, saved) → up · f′`, `saved` being the output for relu and tanh and the input otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActivationGrad {
    /// Which function.
    pub kind: ActivationKind,
}

impl OpRule for ActivationGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [up, saved] if up == saved && up.dtype.is_compute() => Ok(vec![(*up).clone()]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let up = (io.taken != Some(0)).then(|| io.input(0).slice::<T>());
            let saved = (io.taken != Some(1)).then(|| io.input(1).slice::<T>());
            let kind = self.kind;
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                macro_rules! run {
                    ($kind:expr) => {
                        match (up, saved) {
                            (None, Some(saved)) => simd(|| out.iter_mut().zip(rest(saved, start)).for_each(|(o, &s)| *o *= $kind.derivative(s))),
                            (Some(up), None) => simd(|| out.iter_mut().zip(rest(up, start)).for_each(|(o, &u)| *o = u * $kind.derivative(*o))),
                            (Some(up), Some(saved)) => {
                                let (up, saved) = (part(up, start, out.len()), part(saved, start, out.len()));
                                simd(|| out.iter_mut().zip(up).zip(saved).for_each(|((o, &u), &s)| *o = u * $kind.derivative(s)));
                            }
                            (None, None) => unreachable!("one buffer is taken at most"),
                        }
                    };
                }
                match kind {
                    ActivationKind::Gelu => run!(ActivationKind::Gelu),
                    ActivationKind::GeluTanh => run!(ActivationKind::GeluTanh),
                    ActivationKind::Relu => run!(ActivationKind::Relu),
                    ActivationKind::Tanh => run!(ActivationKind::Tanh),
                    ActivationKind::Silu => run!(ActivationKind::Silu),
                }
            });
        });
        Ok(())
    }

    fn in_place(&self) -> &'static [usize] {
        &[0, 1]
    }
}
