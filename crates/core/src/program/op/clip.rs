//! `clip`: the factor that keeps the global gradient norm below a bound.

use super::super::types::{DType, Real};
use super::launch::{
    KernelSource, Launches,
    Operand::{In, Out},
    args, source,
};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `(norm f32[1]) → min(1, max / (norm + 10⁻⁶)): f32[1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClipFactor {
    /// The bound.
    pub max: Real,
}

pub(super) const SOURCE: Option<KernelSource> = Some(source!("clip"));

impl OpRule for ClipFactor {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        match x {
            [norm] if **norm == TensorType::scalar(DType::F32) => Ok(vec![(*norm).clone()]),
            _ => Err("an f32 norm is wanted".into()),
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let mut list = Launches::default();
        list.rows(
            "clip",
            "clip",
            cx.elements(0),
            1,
            args![In(0), Out(0), self.max.get() as f32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        let norm = io.input(0).slice::<f32>()[0];
        let factor = self.max.get() as f32 / (norm + 1e-6);
        // Not `min`, which would turn a NaN into 1.
        io.outputs[0].slice::<f32>()[0] = if factor > 1.0 { 1.0 } else { factor };
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::{Fixtures, scalar};
    let mut all = Fixtures::with_same_bits();
    all.sample(
        ClipFactor {
            max: Real::new(1.0),
        },
        [scalar(3.0)],
    );
    all
}
