//! `activation`: elementwise non-linear functions.

use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source, stored_in,
};
use super::math::{Elementary, for_chunks, part, simd};
use super::{ActivationGrad, At, Builder, Io, Kernel, OpError, OpRule, SizedCx, TensorType, Value};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationKind {
    /// `x Φ(x)` (Hendrycks and Gimpel 2016, arXiv 1606.08415)
    Gelu,
    /// `½x(1 + tanh(√(2/π)(x + 0.044715x³)))`
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `tanh x`
    Tanh,
    /// `x σ(x)`
    Silu,
}

impl ActivationKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Gelu,
        Self::GeluTanh,
        Self::Relu,
        Self::Tanh,
        Self::Silu,
    ];

    /// Whether the gradient is computed from the output; from the input otherwise.
    #[must_use]
    pub const fn reads_output(self) -> bool {
        matches!(self, Self::Relu | Self::Tanh)
    }

    #[inline(always)]
    pub(super) fn apply<T: Elementary>(self, x: T) -> T {
        match self {
            Self::Gelu => x * x.normal_cdf_pdf().0,
            Self::GeluTanh => T::of(0.5) * x * (T::one() + inner(x).tanh_fast()),
            // Not `max`, which would turn a NaN into 0.
            Self::Relu => {
                if x <= T::zero() {
                    T::zero()
                } else {
                    x
                }
            }
            Self::Tanh => x.tanh_fast(),
            Self::Silu => x / (T::one() + (-x).exp_fast()),
        }
    }

    /// Derivative, from the output for relu and tanh, from the input otherwise.
    #[inline(always)]
    pub(super) fn derivative<T: Elementary>(self, saved: T) -> T {
        match self {
            Self::Gelu => {
                let (cdf, pdf) = saved.normal_cdf_pdf();
                cdf + saved * pdf
            }
            Self::GeluTanh => {
                let t = inner(saved).tanh_fast();
                let slope =
                    T::of(SQRT_2_OVER_PI) * (T::one() + T::of(3.0 * 0.044_715) * saved * saved);
                T::of(0.5) * (T::one() + t) + T::of(0.5) * saved * (T::one() - t * t) * slope
            }
            Self::Relu => {
                if saved > T::zero() {
                    T::one()
                } else {
                    T::zero()
                }
            }
            Self::Tanh => T::one() - saved * saved,
            Self::Silu => {
                let s = T::one() / (T::one() + (-saved).exp_fast());
                s * (T::one() + saved * (T::one() - s))
            }
        }
    }
}

impl ActivationKind {
    /// Derivative from the input, whatever the function.
    #[inline(always)]
    pub(super) fn derivative_at<T: Elementary>(self, x: T) -> T {
        match self {
            Self::Tanh => self.derivative(self.apply(x)),
            Self::Gelu | Self::GeluTanh | Self::Relu | Self::Silu => self.derivative(x),
        }
    }
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

#[inline(always)]
fn inner<T: Elementary>(x: T) -> T {
    T::of(SQRT_2_OVER_PI) * (x + T::of(0.044_715) * x * x * x)
}

/// `x → f(x)`, any shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Activation {
    /// Which function.
    pub kind: ActivationKind,
}

/// In place; one loop a kind, so that each vectorises.
fn apply_to<T: Elementary>(kind: ActivationKind, out: &mut [T]) {
    macro_rules! run {
        ($kind:expr) => {
            simd!(<T> (out: &'a mut [T] = out) {
                for o in out {
                    *o = $kind.apply(*o);
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

pub(super) const SOURCE: Option<KernelSource> = Some(source!("activation" with "activation.cuh"));

impl OpRule for Activation {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [a] if a.dtype.is_compute() => Ok(vec![(*a).clone()]),
            _ => Err("one float is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let stored_in = stored_in(cx, &[0], &[0])?;
        let kernel = match self.kind {
            ActivationKind::Gelu => "gelu",
            ActivationKind::GeluTanh => "gelu_tanh",
            ActivationKind::Relu => "relu",
            ActivationKind::Tanh => "tanh_of",
            ActivationKind::Silu => "silu",
        };
        let mut list = Launches::of(stored_in);
        list.fours(
            "activation",
            kernel,
            cx.elements(0),
            args![In(0), Out(0), cx.elements(0)],
        );
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
        let saved = if self.kind.reads_output() {
            at.outputs[0]
        } else {
            at.inputs[0]
        };
        vec![
            at.up[0]
                .filter(|_| at.needs[0])
                .map(|up| b.push1(ActivationGrad { kind: self.kind }, &[up, saved])),
        ]
    }

    fn is_cheap(&self) -> bool {
        true
    }

    fn differentiable(&self, _: usize) -> bool {
        true
    }

    fn in_place(&self) -> &'static [usize] {
        &[0]
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, small};
    let mut all = Fixtures::with_same_bits();
    all.activations = Some(|_, _| (vec![0], vec![0]));
    for kind in ActivationKind::ALL {
        all.sample(Activation { kind }, [small(4)]);
        all.case(Activation { kind }, [wide()]);
    }
    all
}

/// A range in which every function bends, and what is no number.
#[cfg(test)]
pub(super) fn wide() -> super::Tensor {
    let steps = (0..3001).map(|i| (i as f32 - 1500.0) * 0.01);
    let all: Vec<f32> = steps.chain([f32::NAN, 1e30, -1e30]).collect();
    super::Tensor::new(all, &[3004])
}
