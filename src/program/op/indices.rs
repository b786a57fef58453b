//! `indices`: a fixed list of rows, such as the label words' in the vocabulary.

use super::super::types::DType;
use super::{Io, Kernel, OpError, OpRule, TensorType};

/// `→ u32[n]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Indices {
    /// The list.
    pub list: Vec<u32>,
}

impl OpRule for Indices {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.is_empty() { Ok(vec![TensorType::fixed(DType::U32, &[self.list.len() as u64])]) } else { Err("no input is wanted".into()) }
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        io.outputs[0].slice::<u32>().copy_from_slice(&self.list);
        Ok(())
    }
}
