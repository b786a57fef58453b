//! `constant`: one element of a given value, the seed of a backward pass.

use super::super::types::{DType, Real};
use super::{Io, Kernel, OpError, OpRule, TensorType};

/// `→ [1]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Constant {
    /// The value.
    pub value: Real,
    /// `f32` or `f64`.
    pub dtype: DType,
}

impl OpRule for Constant {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.is_empty() && self.dtype.is_compute() {
            Ok(vec![TensorType::scalar(self.dtype)])
        } else {
            Err("no input and a compute type are wanted".into())
        }
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        match self.dtype {
            DType::F64 => io.outputs[0].slice::<f64>().fill(self.value.get()),
            _ => io.outputs[0].slice::<f32>().fill(self.value.get() as f32),
        }
        Ok(())
    }
}
