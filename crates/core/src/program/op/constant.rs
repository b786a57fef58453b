//! `constant`: one element of a given value, the seed of a backward pass.

use super::super::types::{DType, Real};
use super::launch::{KernelSource, Launches, Operand::Out, args, is_single};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `→ [1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    /// The value.
    pub value: Real,
    /// `f32` or `f64`.
    pub dtype: DType,
}

pub(super) const SOURCE: Option<KernelSource> = None;

impl OpRule for Constant {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.is_empty() && self.dtype.is_compute() {
            Ok(vec![TensorType::scalar(self.dtype)])
        } else {
            Err("no input and a compute type are wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        is_single(cx)?;
        let mut list = Launches::default();
        list.fours(
            "fill",
            "fill",
            1,
            args![Out(0), 1_u64, self.value.get() as f32],
        );
        Some(list)
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        match self.dtype {
            DType::F64 => io.outputs[0].slice::<f64>().fill(self.value.get()),
            _ => io.outputs[0].slice::<f32>().fill(self.value.get() as f32),
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::Fixtures;
    let mut all = Fixtures::with_same_bits();
    let op = |dtype| Constant {
        value: Real::new(2.0),
        dtype,
    };
    all.sample_of(op(DType::F64), op(DType::F32), []);
    all
}
