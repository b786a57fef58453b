//! What ops upload and never changes, as the frequencies of rotary positions.

use super::{Backend as _, Block, Cuda};
use crate::files::RunError;
use crate::program::op::launch::{Launch, Launches, Operand};
use crate::program::{Bindings, DType, TensorType};

/// How many uploads stay on the GPU, and how many words each has at most: 1 MiB in all.
const MOST: usize = 512;
const WORDS: usize = 512;

impl Cuda {
    /// Scratch for some launches. The words of an upload are the op's own and the same each time, so they stay on the GPU and
    /// take the place of the scratch that they are for.
    pub(super) fn with_constants(
        &mut self,
        launches: &Launches,
        scratch: &[Block],
    ) -> Result<Vec<Block>, RunError> {
        let mut own = scratch.to_vec();
        for launch in &launches.list {
            let Launch::Upload { to, words } = launch else {
                continue;
            };
            let Operand::Scratch(at) = *to else { continue };
            let known = self.constants.get(words).copied();
            if known.is_none() && (self.constants.len() >= MOST || words.len() > WORDS) {
                continue;
            }
            let block = match known {
                Some(block) => block,
                None => {
                    let ty = TensorType::fixed(DType::U32, &[words.len() as u64]);
                    let block = self.alloc(&ty, &Bindings::default())?;
                    self.send(block, bytemuck::cast_slice(words))?;
                    self.constants.insert(words.clone(), block);
                    block
                }
            };
            if let Some(place) = own.get_mut(at) {
                *place = block;
            }
        }
        Ok(own)
    }
}
