//! `unary_grad`: gradient of a function of one operand.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_operands, simd};
use super::unary::each_kind;
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType, UnaryKind};

/// `(up, saved) → up · f′`, `saved` being the output where [`UnaryKind::reads_output`] says so, else the input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnaryGrad {
    /// Which function.
    pub kind: UnaryKind,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("unary_grad"));

impl UnaryGrad {
    /// The kernel, where one is needed: the gradient of a negative is a negative, and that of a sign is nothing.
    const fn kernel(&self) -> Option<&'static str> {
        match self.kind {
            UnaryKind::Neg | UnaryKind::Sign => None,
            UnaryKind::Square => Some("unary_square_grad"),
            UnaryKind::Sqrt => Some("unary_sqrt_grad"),
            UnaryKind::Rsqrt => Some("unary_rsqrt_grad"),
            UnaryKind::Recip => Some("unary_recip_grad"),
            UnaryKind::Exp => Some("unary_exp_grad"),
            UnaryKind::Log => Some("unary_log_grad"),
            UnaryKind::Abs => Some("unary_abs_grad"),
            UnaryKind::Sigmoid => Some("unary_sigmoid_grad"),
            UnaryKind::Cos => Some("unary_cos_grad"),
            UnaryKind::Sin => Some("unary_sin_grad"),
        }
    }
}

impl OpRule for UnaryGrad {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            _ if self.kernel().is_none() => {
                Err(format!("{:?} has no gradient of this form", self.kind))
            }
            [up, saved] if up == saved && up.dtype.is_compute() => Ok(vec![(*up).clone()]),
            _ => Err("two floats of one type are wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0, 1], &[0])?);
        let n = cx.elements(0);
        list.fours(
            "unary_grad",
            self.kernel()?,
            n,
            args![In(0), In(1), Out(0), n],
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

/// `out ← out · f′(saved)`
fn multiply<T: Elementary>(kind: UnaryKind, out: &mut [T], saved: &[T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out, saved: &'a [T] = saved) {
                for (o, &s) in out.iter_mut().zip(saved) {
                    *o *= $kind.derivative(s);
                }
            })
        };
    }
    each_kind!(kind, run);
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, list, matrix, random_positive, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0, 1], vec![0]));
    for kind in UnaryKind::ALL {
        let op = UnaryGrad { kind };
        if op.kernel().is_none() {
            continue;
        }
        all.sample(op.clone(), [small(17), random_positive(18, &[6, 5])]);
        for (rows, d) in SHAPES.into_iter().take(3) {
            all.case(op.clone(), [matrix(19, rows, d), matrix(20, rows, d)]);
        }
        all.case(op, [list(27, 3016), super::unary::reach(kind)]);
    }
    all
}
