//! A device for tests: its "device memory" is a table of tensors, and its ops are the processor's.

use super::{Applied, Backend, Block, Blocks, Mark, Ticket};
use crate::files::RunError;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::program::op::launch::{Launch, Launches, Operand};
use crate::program::op::{Io, Kernel, Machine, Op, Tensor};
use crate::program::stored;
use crate::program::{Bindings, TensorType};

const MACHINE: Machine = Machine::cpu(2);

/// A device that is none.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    table: Vec<Option<Tensor>>,
    coming: Vec<Option<Vec<u8>>>,
    /// How many of those have been waited for.
    waited: usize,
    /// Blocks for which there is still memory.
    left: u64,
}

impl Rehearsal {
    pub(super) fn new(left: u64) -> Self {
        Self {
            left,
            ..Self::default()
        }
    }

    fn take(&mut self, block: Block) -> Tensor {
        self.table[block.0].take().expect("a live block")
    }
}

impl Backend for Rehearsal {
    fn free_bytes(&self) -> Result<u64, RunError> {
        Ok(u64::MAX)
    }

    fn alloc(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<Block, RunError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| RunError::Memory {
            what: "no memory is left".to_owned(),
        })?;
        let mut tensor = Tensor::zeros(ty.stored, &ty.dims(sizes));
        // Memory comes in any state.
        if let Some(x) = tensor.slice_mut::<f32>() {
            x.fill(f32::NAN);
        }
        self.table.push(Some(tensor));
        Ok(Block(self.table.len() - 1))
    }

    fn free(&mut self, block: Block) {
        drop(self.take(block));
    }

    fn upload(&mut self, block: Block, tensor: &Tensor) -> Result<(), RunError> {
        let slot = self.table[block.0].as_mut().expect("a live block");
        assert_eq!((slot.dtype(), &slot.dims), (tensor.dtype(), &tensor.dims));
        *slot = tensor.clone();
        Ok(())
    }

    fn download(&mut self, block: Block, tensor: &mut Tensor) -> Result<(), RunError> {
        let slot = self.table[block.0].as_ref().expect("a live block");
        assert_eq!((slot.dtype(), &slot.dims), (tensor.dtype(), &tensor.dims));
        *tensor = slot.clone();
        Ok(())
    }

    fn begin(&mut self, block: Block, bytes: u64) -> Result<Ticket, RunError> {
        let slot = self.table[block.0].as_ref().expect("a live block");
        assert_eq!(bytes_of(slot).len() as u64, bytes);
        self.coming.push(Some(bytes_of(slot).to_vec()));
        Ok(Ticket::At(self.coming.len() - 1))
    }

    fn mark(&mut self) -> Result<Mark, RunError> {
        Ok(Mark(self.coming.len() as u64))
    }

    fn wait(&mut self, mark: Mark) -> Result<(), RunError> {
        self.waited = self.waited.max(mark.0 as usize);
        Ok(())
    }

    fn collect(&mut self, ticket: Ticket, tensor: &mut Tensor) -> Result<(), RunError> {
        let Ticket::At(at) = ticket else {
            panic!("{ticket:?}")
        };
        assert!(at < self.waited, "collected before it was waited for");
        bytes_of_mut(tensor).copy_from_slice(&self.coming[at].take().expect("once"));
        Ok(())
    }

    fn apply(
        &mut self,
        ops: &[Applied<'_>],
        launches: &Launches,
        blocks: &Blocks<'_>,
    ) -> Result<(), RunError> {
        // Every operand of a launch is there.
        for launch in &launches.list {
            let named: Vec<Operand> = match launch {
                Launch::Call(call) => {
                    let buffers = call.args.iter().filter_map(|a| match a {
                        crate::program::op::launch::Arg::At(operand) => Some(*operand),
                        _ => None,
                    });
                    buffers.collect()
                }
                Launch::Product(p) => vec![p.a, p.b, p.c],
                Launch::Copy { from, to } => vec![*from, *to],
                Launch::Upload { to, .. } | Launch::Table { to, .. } => vec![*to],
            };
            for operand in named {
                assert!(match operand {
                    Operand::In(i) => i < blocks.inputs.len(),
                    Operand::Out(i) => i < blocks.outputs.len(),
                    Operand::Scratch(i) => i < blocks.scratch.len(),
                    Operand::Fault => true,
                });
            }
        }
        let (mut inputs, mut outputs) = (blocks.inputs, blocks.outputs);
        for one in ops {
            let (own, rest) = inputs.split_at(one.inputs);
            let (made, later) = outputs.split_at(one.outputs);
            (inputs, outputs) = (rest, later);
            let own = Blocks {
                inputs: own,
                outputs: made,
                ..*blocks
            };
            self.one(one.op, &own);
        }
        assert!(inputs.is_empty() && outputs.is_empty());
        Ok(())
    }
}

impl Rehearsal {
    fn one(&mut self, op: &Op, blocks: &Blocks<'_>) {
        let updates = op.rule().updates();
        let taken = blocks
            .inputs
            .iter()
            .enumerate()
            .position(|(i, b)| !updates.contains(&i) && blocks.outputs.first() == Some(b));
        let mut outputs: Vec<Tensor> = blocks.outputs.iter().map(|&b| self.take(b)).collect();
        let mut updated: Vec<Tensor> = updates
            .iter()
            .map(|&i| self.take(blocks.inputs[i]))
            .collect();
        let kernel = Kernel::new(&MACHINE);
        let io = Io {
            inputs: blocks
                .inputs
                .iter()
                .enumerate()
                .map(|(i, b)| {
                    let free = !updates.contains(&i) && taken != Some(i);
                    free.then(|| self.table[b.0].as_ref().expect("a live block").view())
                })
                .collect(),
            updates: updated.iter_mut().map(Tensor::view_mut).collect(),
            outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
            taken,
        };
        let result = stored::eval(op, &kernel, io);
        for (&i, tensor) in updates.iter().zip(updated) {
            self.table[blocks.inputs[i].0] = Some(tensor);
        }
        for (b, tensor) in blocks.outputs.iter().zip(outputs) {
            self.table[b.0] = Some(tensor);
        }
        if let Err(crate::program::op::OpError::Index { index, rows }) = result {
            let words = vec![1, index as u32, rows as u32];
            self.table[blocks.fault.0] = Some(Tensor::new(words, &[3]));
        }
    }
}
