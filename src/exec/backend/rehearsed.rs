//! A device for tests: the processor's ops over memory that the host does not see. What a GPU asks for is asked for here:
//! memory comes in any state, downloads are pending until they are waited for, and launches name their operands.

use std::fmt;

use super::{Applied, Backend, Block, Blocks, Cpu, Download, Mark, Open, Ticket, fault_type};
use crate::files::RunError;
use crate::files::tensorfile::{bytes_of, bytes_of_mut};
use crate::program::op::launch::{Arg, Launch, Launches, Operand};
use crate::program::op::{Machine, OpError, Tensor};
use crate::program::{Bindings, DType, TensorType};

/// Opens the device, with memory for so many blocks in all.
#[derive(Clone, Copy, Debug)]
pub struct Rehearsal {
    /// How many.
    pub blocks: u64,
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rehearsed")
    }
}

impl Open for Rehearsal {
    fn open(&self, machine: Machine) -> Result<Box<dyn Backend>, RunError> {
        let mut memory = Cpu::new(machine);
        let fault = memory.insert(Tensor::zeros(DType::U32, &[3]));
        Ok(Box::new(Rehearsed {
            memory,
            fault,
            pending: Vec::new(),
            waited: 0,
            left: self.blocks,
        }))
    }
}

/// A device that is none.
#[derive(Debug)]
struct Rehearsed {
    memory: Cpu,
    fault: Block,
    pending: Vec<Option<Vec<u8>>>,
    /// How many of those have been waited for.
    waited: usize,
    /// Blocks for which there is still memory.
    left: u64,
}

impl Rehearsed {
    fn at(&mut self, block: Block) -> &mut Tensor {
        self.memory.host_mut(block).expect("a live block")
    }
}

impl Backend for Rehearsed {
    fn free_bytes(&self) -> Result<Option<u64>, RunError> {
        Ok(Some(u64::MAX))
    }

    fn alloc(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<Block, RunError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| RunError::Memory {
            what: "no memory is left".to_owned(),
        })?;
        let block = self.memory.alloc(ty, sizes)?;
        // Memory comes in any state.
        if let Some(x) = self.at(block).slice_mut::<f32>() {
            x.fill(f32::NAN);
        }
        assert_eq!(block.bytes, ty.bytes(sizes));
        Ok(block)
    }

    fn free(&mut self, block: Block) {
        self.memory.take(block).expect("a live block");
    }

    fn upload(&mut self, block: Block, tensor: &Tensor) -> Result<(), RunError> {
        let slot = self.at(block);
        assert_eq!((slot.format(), &slot.dims), (tensor.format(), &tensor.dims));
        *slot = tensor.clone();
        Ok(())
    }

    fn download(&mut self, block: Block, tensor: &mut Tensor) -> Result<(), RunError> {
        let slot = self.at(block);
        assert_eq!((slot.format(), &slot.dims), (tensor.format(), &tensor.dims));
        *tensor = slot.clone();
        Ok(())
    }

    fn begin_download(
        &mut self,
        block: Block,
        ty: &TensorType,
        sizes: &Bindings,
    ) -> Result<Download, RunError> {
        let bytes = bytes_of(self.at(block)).to_vec();
        assert_eq!(bytes.len() as u64, ty.bytes(sizes));
        self.pending.push(Some(bytes));
        Ok(Download::Pending(Ticket(self.pending.len() - 1)))
    }

    fn end(&mut self) -> Result<Option<(Download, Mark)>, RunError> {
        let words = self.begin_download(self.fault, &fault_type(), &Bindings::default())?;
        Ok(Some((words, Mark(self.pending.len() as u64))))
    }

    fn wait(&mut self, mark: Mark) -> Result<(), RunError> {
        self.waited = self.waited.max(mark.0 as usize);
        Ok(())
    }

    fn collect(&mut self, Ticket(at): Ticket, tensor: &mut Tensor) -> Result<(), RunError> {
        assert!(at < self.waited, "collected before it was waited for");
        bytes_of_mut(tensor).copy_from_slice(&self.pending[at].take().expect("once"));
        Ok(())
    }

    fn apply(
        &mut self,
        ops: &[Applied<'_>],
        launches: &Launches,
        blocks: &Blocks<'_>,
    ) -> Result<u64, RunError> {
        // Every operand of a launch is there.
        for launch in &launches.list {
            let named: Vec<Operand> = match launch {
                Launch::Call(call) => {
                    let buffers = call.args.iter().filter_map(|a| match a {
                        Arg::At(operand) => Some(*operand),
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
            if let Some(taken) = one.takes {
                assert_eq!(inputs[taken], outputs[0]);
            }
            (inputs, outputs) = (&inputs[one.inputs..], &outputs[one.outputs..]);
        }
        assert!(inputs.is_empty() && outputs.is_empty());
        // A launch meets its fault and goes on.
        match self.memory.apply(ops, launches, blocks) {
            Err(RunError::Op {
                source: OpError::Index { index, rows },
                ..
            }) => {
                let words = vec![1, index as u32, rows as u32];
                *self.at(self.fault) = Tensor::new(words, &[3]);
                Ok(0)
            }
            // Scratch is what the launches ask for.
            done => done.map(|_| 0),
        }
    }
}
