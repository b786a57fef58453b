//! `indices`: a fixed list of rows, such as the label words' in the vocabulary.

use super::super::types::DType;
use super::launch::{KernelSource, Launch, Launches, Operand::Out};
use super::{Io, Kernel, OpError, OpRule, SizedCx, TensorType};

/// `→ u32[n]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Indices {
    /// The list.
    pub list: Vec<u32>,
}

pub(super) const SOURCE: Option<KernelSource> = None;

impl OpRule for Indices {
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        if x.is_empty() {
            Ok(vec![TensorType::fixed(
                DType::U32,
                &[self.list.len() as u64],
            )])
        } else {
            Err("no input is wanted".into())
        }
    }

    fn launches(&self, cx: &SizedCx) -> Option<Launches> {
        let _ = cx;
        let upload = Launch::Upload {
            to: Out(0),
            words: self.list.clone(),
        };
        Some(Launches {
            list: vec![upload],
            ..Launches::default()
        })
    }

    fn eval(&self, _: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError> {
        io.outputs[0].slice::<u32>().copy_from_slice(&self.list);
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn fixtures() -> super::fixtures::Fixtures {
    use super::fixtures::Fixtures;
    let mut all = Fixtures::with_same_bits();
    all.sample(
        Indices {
            list: vec![4, 0, 4],
        },
        [],
    );
    all
}
