//! `unary`: elementwise functions of one operand that are no activations of a network.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks, part, simd};
use super::{At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, UnaryGrad, Value};

/// Which function. Those of networks are [`super::ActivationKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryKind {
    /// `−x`
    Neg,
    /// `x²`
    Square,
    /// `√x`
    Sqrt,
    /// `1/√x`
    Rsqrt,
    /// `1/x`
    Recip,
    /// `eˣ`
    Exp,
    /// `ln x`
    Log,
    /// `|x|`
    Abs,
    /// −1, 0 or 1. It has no gradient.
    Sign,
    /// `1/(1 + e⁻ˣ)`
    Sigmoid,
    /// `cos x`, exact to rounding up to a million turns
    Cos,
    /// `sin x`, exact to rounding up to a million turns
    Sin,
}

impl UnaryKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Neg,
        Self::Square,
        Self::Sqrt,
        Self::Rsqrt,
        Self::Recip,
        Self::Exp,
        Self::Log,
        Self::Abs,
        Self::Sign,
        Self::Sigmoid,
        Self::Cos,
        Self::Sin,
    ];

    /// Whether the gradient is computed from the output; from the input otherwise.
    #[must_use]
    pub const fn reads_output(self) -> bool {
        matches!(
            self,
            Self::Sqrt | Self::Rsqrt | Self::Recip | Self::Exp | Self::Sigmoid
        )
    }

    #[inline(always)]
    fn apply<T: Elementary>(self, x: T) -> T {
        match self {
            Self::Neg => -x,
            Self::Square => x * x,
            Self::Sqrt => x.sqrt(),
            Self::Rsqrt => T::one() / x.sqrt(),
            Self::Recip => T::one() / x,
            // Of half the argument, so that what overflows is infinite and what underflows is 0.
            Self::Exp => {
                let half = (x * T::of(0.5)).exp_fast();
                half * half
            }
            Self::Log => x.log_fast(),
            Self::Abs => x.abs(),
            Self::Sign => {
                if x > T::zero() {
                    T::one()
                } else if x < T::zero() {
                    -T::one()
                } else {
                    x
                }
            }
            Self::Sigmoid => T::one() / (T::one() + (-x).exp_fast()),
            Self::Cos => x.sin_cos_fast().1,
            Self::Sin => x.sin_cos_fast().0,
        }
    }

    /// Derivative, from what [`Self::reads_output`] says.
    #[inline(always)]
    pub(super) fn derivative<T: Elementary>(self, saved: T) -> T {
        match self {
            Self::Neg => -T::one(),
            Self::Square => saved + saved,
            Self::Sqrt => T::of(0.5) / saved,
            Self::Rsqrt => T::of(-0.5) * saved * saved * saved,
            Self::Recip => -(saved * saved),
            Self::Exp => saved,
            Self::Log => T::one() / saved,
            Self::Abs => Self::Sign.apply(saved),
            Self::Sign => T::zero(),
            Self::Sigmoid => saved * (T::one() - saved),
            Self::Cos => -saved.sin_cos_fast().0,
            Self::Sin => saved.sin_cos_fast().1,
        }
    }

    const fn kernel(self) -> &'static str {
        match self {
            Self::Neg => "unary_neg",
            Self::Square => "unary_square",
            Self::Sqrt => "unary_sqrt",
            Self::Rsqrt => "unary_rsqrt",
            Self::Recip => "unary_recip",
            Self::Exp => "unary_exp",
            Self::Log => "unary_log",
            Self::Abs => "unary_abs",
            Self::Sign => "unary_sign",
            Self::Sigmoid => "unary_sigmoid",
            Self::Cos => "unary_cos",
            Self::Sin => "unary_sin",
        }
    }
}

/// Runs a loop for one kind, so that each vectorises.
macro_rules! each_kind {
    ($kind:expr, $run:ident) => {
        match $kind {
            UnaryKind::Neg => $run!(UnaryKind::Neg),
            UnaryKind::Square => $run!(UnaryKind::Square),
            UnaryKind::Sqrt => $run!(UnaryKind::Sqrt),
            UnaryKind::Rsqrt => $run!(UnaryKind::Rsqrt),
            UnaryKind::Recip => $run!(UnaryKind::Recip),
            UnaryKind::Exp => $run!(UnaryKind::Exp),
            UnaryKind::Log => $run!(UnaryKind::Log),
            UnaryKind::Abs => $run!(UnaryKind::Abs),
            UnaryKind::Sign => $run!(UnaryKind::Sign),
            UnaryKind::Sigmoid => $run!(UnaryKind::Sigmoid),
            UnaryKind::Cos => $run!(UnaryKind::Cos),
            UnaryKind::Sin => $run!(UnaryKind::Sin),
        }
    };
}
pub(super) use each_kind;

/// `x → f(x)`, any shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unary {
    /// Which function.
    pub kind: UnaryKind,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("unary"));

/// In place.
fn apply_to<T: Elementary>(kind: UnaryKind, out: &mut [T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out) {
                for o in out {
                    *o = $kind.apply(*o);
                }
            })
        };
    }
    each_kind!(kind, run);
}

impl OpRule for Unary {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => Ok(vec![(*a).clone()]),
            _ => Err("one float is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::of(stored_in(cx, &[0], &[0])?);
        let n = cx.elements(0);
        list.fours("unary", self.kind.kernel(), n, args![In(0), Out(0), n]);
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        super::kernel::float!(io.outputs[0].dtype(), T => {
            let x = io.taken.is_none().then(|| io.input(0).slice::<T>());
            let kind = self.kind;
            for_chunks(io.outputs[0].slice::<T>(), |start, out| {
                if let Some(x) = x {
                    out.copy_from_slice(part(x, start, out.len()));
                }
                apply_to(kind, out);
            });
        });
        Ok(())
    }

    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let kind = self.kind;
        let Some(up) = at.up[0].filter(|_| at.needs[0]) else {
            return vec![None];
        };
        let grad = match kind {
            // Reads nothing of the forward pass.
            UnaryKind::Neg => b.push1(self.clone(), &[up]),
            _ if kind.reads_output() => b.push1(UnaryGrad { kind }, &[up, at.outputs[0]]),
            _ => b.push1(UnaryGrad { kind }, &[up, at.inputs[0]]),
        };
        vec![Some(grad)]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        self.kind != UnaryKind::Sign
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, SHAPES, matrix, random_positive, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    for kind in UnaryKind::ALL {
        let op = Unary { kind };
        let x = match kind {
            UnaryKind::Sqrt | UnaryKind::Rsqrt | UnaryKind::Recip | UnaryKind::Log => {
                random_positive(4, &[6, 5])
            }
            _ => small(4),
        };
        all.sample(op.clone(), [x]);
        all.large(op.clone(), [random_positive(5, &[30_000])]);
        for (rows, d) in SHAPES.into_iter().take(3) {
            all.case(op.clone(), [matrix(6, rows, d)]);
        }
        all.case(op, [reach(kind)]);
    }
    all
}

/// Where a function is tried: everywhere, or where its period is still exact.
#[cfg(test)]
pub(super) fn reach(kind: UnaryKind) -> super::Tensor {
    let mut all = wide();
    if matches!(kind, UnaryKind::Cos | UnaryKind::Sin) {
        let list = all.slice_mut::<f32>().expect("f32");
        list.iter_mut()
            .filter(|x| x.abs() > 1e6)
            .for_each(|x| *x = 0.5);
    }
    all
}

/// A range in which every function bends, the ends of f32, and what is no number.
#[cfg(test)]
pub(super) fn wide() -> super::Tensor {
    let special = [
        0.0,
        -0.0,
        1.0,
        1e-45,
        -1e-45,
        1e-39,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        88.5,
        -88.5,
        104.0,
        -104.0,
    ];
    let steps = (0..3000).map(|i| (i as f32 - 1500.0) * 0.07);
    let all: Vec<f32> = special.into_iter().chain(steps).collect();
    super::Tensor::new(all, &[3016])
}

#[cfg(test)]
mod tests {
    use super::super::Tensor;
    use super::super::fixtures::eval;
    use super::*;

    #[test]
    fn what_is_no_number_and_what_is_infinite_is_kept() {
        use std::f32::consts::E;
        let (inf, nan, none) = (f32::INFINITY, f32::NAN, 0.0);
        let expected = [
            (
                UnaryKind::Exp,
                vec![
                    (inf, inf),
                    (-inf, none),
                    (104.0, inf),
                    (-200.0, none),
                    (1.0, E),
                ],
            ),
            (
                UnaryKind::Log,
                vec![
                    (inf, inf),
                    (none, -inf),
                    (-0.0, -inf),
                    (-1.0, nan),
                    (E, 1.0),
                ],
            ),
            (UnaryKind::Sqrt, vec![(inf, inf), (-1.0, nan), (none, none)]),
            (
                UnaryKind::Recip,
                vec![(inf, none), (none, inf), (-0.0, -inf)],
            ),
            (
                UnaryKind::Sign,
                vec![(inf, 1.0), (-inf, -1.0), (none, none), (1e-45, 1.0)],
            ),
            (UnaryKind::Sigmoid, vec![(inf, 1.0), (none, 0.5)]),
        ];
        for (kind, mut pairs) in expected {
            pairs.push((nan, nan));
            let x: Vec<f32> = pairs.iter().map(|(x, _)| *x).collect();
            let x = Tensor::new(x, &[pairs.len()]);
            let made = eval(&Unary { kind }.into(), &[x], 1);
            let made = made[0].slice::<f32>().expect("f32");
            for ((x, wanted), &own) in pairs.iter().zip(made) {
                let same = own == *wanted || (own.is_nan() && wanted.is_nan());
                assert!(
                    same || (own - wanted).abs() <= 1e-6 * wanted.abs(),
                    "{kind:?} of {x}: {own}, not {wanted}"
                );
            }
        }
    }
}
