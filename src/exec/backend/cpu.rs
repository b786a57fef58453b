//! The processor: blocks are tensors, ops run by their own kernels and are done at once.

use std::ops::Range;

use super::{Applied, Backend, Block, Blocks, Download, Mark, Ticket};
use crate::files::RunError;
use crate::program::op::launch::Launches;
use crate::program::op::{Io, Kernel, Machine, Tensor};
use crate::program::schedule::Step;
use crate::program::stored;
use crate::program::{Bindings, Program, TensorType};

/// The processor's memory.
#[derive(Debug)]
pub struct Cpu {
    machine: Machine,
    blocks: Vec<Option<Tensor>>,
    /// Numbers of blocks that were freed.
    free: Vec<usize>,
}

/// What must not be: a block that is used after it was freed.
fn gone() -> RunError {
    RunError::bug("a block is used after it was freed")
}

impl Cpu {
    /// With the machine's figures.
    #[must_use]
    pub const fn new(machine: Machine) -> Self {
        Self {
            machine,
            blocks: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Makes a block of a tensor.
    pub(super) fn insert(&mut self, tensor: Tensor) -> Block {
        let bytes = tensor.bytes();
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.blocks.push(None);
                self.blocks.len() - 1
            }
        };
        self.put(Block { index, bytes }, tensor);
        Block { index, bytes }
    }

    /// Takes a tensor out for the time of a kernel, so that nothing aliases it.
    fn lift(&mut self, block: Block) -> Result<Tensor, RunError> {
        let slot = self.blocks.get_mut(block.index);
        slot.and_then(Option::take).ok_or_else(gone)
    }

    fn put(&mut self, block: Block, tensor: Tensor) {
        if let Some(slot) = self.blocks.get_mut(block.index) {
            *slot = Some(tensor);
        }
    }

    /// Applies one op; gives its scratch.
    pub(super) fn one(
        &mut self,
        one: &Applied<'_>,
        inputs: &[Block],
        outputs: &[Block],
    ) -> Result<u64, RunError> {
        let updates = one.op.rule().updates();
        let mut made = Vec::with_capacity(outputs.len());
        for &block in outputs {
            made.push(self.lift(block)?);
        }
        let mut updated = Vec::with_capacity(updates.len());
        for block in updates.iter().filter_map(|&i| inputs.get(i)) {
            updated.push(self.lift(*block)?);
        }
        let view = |(i, block): (usize, &Block)| {
            if updates.contains(&i) || one.takes == Some(i) {
                return Ok(None);
            }
            self.host(*block).map(|t| Some(t.view())).ok_or_else(gone)
        };
        let io = Io {
            inputs: inputs
                .iter()
                .enumerate()
                .map(view)
                .collect::<Result<_, _>>()?,
            updates: updated.iter_mut().map(Tensor::view_mut).collect(),
            outputs: made.iter_mut().map(Tensor::view_mut).collect(),
            taken: one.takes,
        };
        let kernel = Kernel::new(&self.machine);
        let result = stored::eval(one.op, &kernel, io);
        let scratch = kernel.take_peak();
        for (block, tensor) in updates.iter().filter_map(|&i| inputs.get(i)).zip(updated) {
            self.put(*block, tensor);
        }
        for (block, tensor) in outputs.iter().zip(made) {
            self.put(*block, tensor);
        }
        match result {
            Ok(()) => Ok(scratch),
            Err(source) => Err(RunError::Op {
                op: one.op.name(),
                site: one.site.to_owned(),
                source,
            }),
        }
    }
}

impl Backend for Cpu {
    fn is_host(&self) -> bool {
        true
    }

    fn runs_ahead(&self) -> bool {
        false
    }

    fn fuses(&self) -> bool {
        false
    }

    fn accepts(&self, _: &Program) -> Result<(), RunError> {
        Ok(())
    }

    fn launches(
        &self,
        _: &Program,
        _: &[Step],
        _: Range<usize>,
        _: &Bindings,
    ) -> Result<Launches, RunError> {
        Ok(Launches::default())
    }

    fn free_bytes(&self) -> Result<Option<u64>, RunError> {
        Ok(None)
    }

    fn alloc(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<Block, RunError> {
        Ok(self.insert(Tensor::zeros(ty.stored, &ty.dims(sizes))))
    }

    fn free(&mut self, block: Block) {
        drop(self.take(block));
    }

    fn adopt(&mut self, tensor: Tensor) -> Result<Block, Tensor> {
        Ok(self.insert(tensor))
    }

    fn take(&mut self, block: Block) -> Option<Tensor> {
        let tensor = self.blocks.get_mut(block.index)?.take()?;
        self.free.push(block.index);
        Some(tensor)
    }

    fn host(&self, block: Block) -> Option<&Tensor> {
        self.blocks.get(block.index)?.as_ref()
    }

    fn host_mut(&mut self, block: Block) -> Option<&mut Tensor> {
        self.blocks.get_mut(block.index)?.as_mut()
    }

    fn upload(&mut self, block: Block, tensor: &Tensor) -> Result<(), RunError> {
        *self.host_mut(block).ok_or_else(gone)? = tensor.clone();
        Ok(())
    }

    fn download(&mut self, block: Block, tensor: &mut Tensor) -> Result<(), RunError> {
        *tensor = self.host(block).ok_or_else(gone)?.clone();
        Ok(())
    }

    fn begin_download(
        &mut self,
        block: Block,
        _: &TensorType,
        _: &Bindings,
    ) -> Result<Download, RunError> {
        let tensor = self.host(block).ok_or_else(gone)?;
        Ok(Download::Done(tensor.clone()))
    }

    fn download_and_free(
        &mut self,
        block: Block,
        _: &TensorType,
        _: &Bindings,
    ) -> Result<Download, RunError> {
        self.take(block).map(Download::Done).ok_or_else(gone)
    }

    fn end(&mut self) -> Result<Option<(Download, Mark)>, RunError> {
        Ok(None)
    }

    fn wait(&mut self, _: Mark) -> Result<(), RunError> {
        Ok(())
    }

    fn collect(&mut self, _: Ticket, _: &mut Tensor) -> Result<(), RunError> {
        Err(RunError::bug("the processor has no pending downloads"))
    }

    fn apply(
        &mut self,
        ops: &[Applied<'_>],
        _: &Launches,
        blocks: &Blocks<'_>,
    ) -> Result<u64, RunError> {
        let (mut inputs, mut outputs) = (blocks.inputs, blocks.outputs);
        let mut most = 0;
        for one in ops {
            let (own, rest) = inputs.split_at_checked(one.inputs).ok_or_else(gone)?;
            let (made, later) = outputs.split_at_checked(one.outputs).ok_or_else(gone)?;
            (inputs, outputs) = (rest, later);
            most = most.max(self.one(one, own, made)?);
        }
        Ok(most)
    }
}
