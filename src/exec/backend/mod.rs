//! Where programs run: the processor and devices beside it, which the interpreter sees through one trait.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::files::RunError;
use crate::program::op::launch::{Launches, Missing, without_launches};
use crate::program::op::{Machine, Op, OpError, Tensor};
use crate::program::schedule::Step;
use crate::program::together::launches;
use crate::program::{Bindings, DType, Program, TensorType, Verified};

pub mod alloc;
mod cpu;
mod cuda;
#[cfg(test)]
pub mod rehearsed;

pub use cpu::Cpu;
pub use cuda::{library_folders, library_in};

/// Where programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", n)) if n.bytes().all(|b| b.is_ascii_digit()) => {
                let n = n.parse().ok();
                n.map(Self::Cuda)
                    .ok_or_else(|| format!("`{text}` names no device"))
            }
            _ => Err(format!(
                "there is no device `{text}`; devices are `cpu`, `cuda`, `cuda:N`"
            )),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl Device {
    /// Whether programs can run there: for a GPU, whether its libraries and the GPU itself are found.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub fn is_ready(self) -> Result<(), String> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(n) => cuda::Cuda::is_ready(n).map_err(|why| why.to_string()),
        }
    }
}

/// What opens a backend: a device, by its name.
pub trait Open: fmt::Debug + fmt::Display + Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    /// No driver, no such GPU, or one that is too old: one sentence with the remedy.
    fn open(&self, machine: Machine) -> Result<Box<dyn Backend>, RunError>;
}

impl Open for Device {
    fn open(&self, machine: Machine) -> Result<Box<dyn Backend>, RunError> {
        match self {
            Self::Cuda(n) => Ok(Box::new(cuda::Cuda::open(*n)?)),
            Self::Cpu => Ok(Box::new(Cpu::new(machine))),
        }
    }
}

/// A block of a backend's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub index: usize,
    /// Its bytes.
    pub bytes: u64,
}

/// An op of an application, with the numbers of its operands.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// It.
    pub op: &'a Op,
    /// How many inputs it has.
    pub inputs: usize,
    /// How many outputs.
    pub outputs: usize,
    /// The input whose block output 0 takes over.
    pub takes: Option<usize>,
    /// Where in the model it is.
    pub site: &'a str,
}

/// The blocks of one application. An input whose buffer output 0 took over is output 0's block.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// Inputs.
    pub inputs: &'a [Block],
    /// Outputs.
    pub outputs: &'a [Block],
    /// Scratch.
    pub scratch: &'a [Block],
}

/// A place of a backend's own memory that a pending download fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub usize);

/// A block's contents on their way to the host.
#[derive(Debug)]
pub enum Download {
    /// They are here.
    Done(Tensor),
    /// They can be collected once a later [`Mark`] was waited for.
    Pending(Ticket),
}

/// A moment in what a device was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

/// What the interpreter wants of the processor or a device. Everything happens in the order asked for; only
/// [`Backend::download`] and [`Backend::wait`] need wait.
pub trait Backend: fmt::Debug + Send {
    /// Whether its blocks are the host's own memory: tensors move there and back without a copy.
    fn is_host(&self) -> bool {
        false
    }

    /// Whether what was asked for goes on by itself, so that more can be asked for meanwhile.
    fn runs_ahead(&self) -> bool {
        true
    }

    /// Whether it applies the schedule's groups of nodes together, and not one node after another.
    fn fuses(&self) -> bool {
        true
    }

    /// Refuses a program with ops that it has no kernels for. Plans are refused for it before (`plan/kernels.rs`);
    /// this is for what has no plan.
    ///
    /// # Errors
    /// Names the ops.
    fn accepts(&self, program: &Program) -> Result<(), RunError> {
        let missing = without_launches(program);
        if missing.is_empty() {
            Ok(())
        } else {
            Err(refused(&missing))
        }
    }

    /// Prepares for a program that is accepted and will run, while its weights are loaded.
    fn expects(&self, _: &Verified) {}

    /// What is launched for a group of nodes.
    ///
    /// # Errors
    /// There is no kernel for one.
    fn launches(
        &self,
        program: &Program,
        steps: &[Step],
        group: Range<usize>,
        sizes: &Bindings,
    ) -> Result<Launches, RunError> {
        let found = launches(program, steps, group, sizes);
        found.ok_or_else(|| refused(&without_launches(program)))
    }

    /// Bytes free on the device, what the backend has for itself included; `None` on the processor.
    ///
    /// # Errors
    /// What the driver says.
    fn free_bytes(&self) -> Result<Option<u64>, RunError>;

    /// Memory for a tensor, in any state.
    ///
    /// # Errors
    /// There is not so much left.
    fn alloc(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<Block, RunError>;

    /// Gives memory back.
    fn free(&mut self, block: Block);

    /// Makes a block of a tensor without a copy; gives the tensor back where memory is not the host's.
    fn adopt(&mut self, tensor: Tensor) -> Result<Block, Tensor> {
        Err(tensor)
    }

    /// Makes a tensor of a block without a copy, and frees the block; `None` where memory is not the host's.
    fn take(&mut self, _: Block) -> Option<Tensor> {
        None
    }

    /// A block as the host sees it; `None` where memory is not the host's.
    fn host(&self, _: Block) -> Option<&Tensor> {
        None
    }

    /// The same, writable.
    fn host_mut(&mut self, _: Block) -> Option<&mut Tensor> {
        None
    }

    /// Copies a tensor to a block of its size.
    ///
    /// # Errors
    /// What the driver says.
    fn upload(&mut self, block: Block, tensor: &Tensor) -> Result<(), RunError>;

    /// Copies a block into a tensor of its size, after all that was asked for before.
    ///
    /// # Errors
    /// What the driver says, of this or of what was asked for before.
    fn download(&mut self, block: Block, tensor: &mut Tensor) -> Result<(), RunError>;

    /// Begins to download a tensor. The block may be freed at once.
    ///
    /// # Errors
    /// What the driver says.
    fn begin_download(
        &mut self,
        block: Block,
        ty: &TensorType,
        sizes: &Bindings,
    ) -> Result<Download, RunError>;

    /// Begins to download a tensor and frees its block.
    ///
    /// # Errors
    /// What the driver says.
    fn download_and_free(
        &mut self,
        block: Block,
        ty: &TensorType,
        sizes: &Bindings,
    ) -> Result<Download, RunError> {
        let download = self.begin_download(block, ty, sizes);
        self.free(block);
        download
    }

    /// Marks this moment, up to which things were asked for, and begins to download whether a kernel has met a fault;
    /// `None` where all is done.
    ///
    /// # Errors
    /// What the driver says.
    fn end(&mut self) -> Result<Option<(Download, Mark)>, RunError>;

    /// Waits until all that was asked for before a mark is done. Marks before it are of no use from then on.
    ///
    /// # Errors
    /// What the driver says of it.
    fn wait(&mut self, mark: Mark) -> Result<(), RunError>;

    /// Puts what was downloaded into a tensor of that size.
    ///
    /// # Errors
    /// A bug of ours.
    fn collect(&mut self, ticket: Ticket, tensor: &mut Tensor) -> Result<(), RunError>;

    /// The fault that a kernel has met, if one has, from its downloaded words.
    ///
    /// # Errors
    /// A bug of ours.
    fn fault(&mut self, from: Download) -> Result<Option<OpError>, RunError> {
        let words = match from {
            Download::Done(words) => words,
            Download::Pending(ticket) => {
                let mut words = Tensor::zeros(DType::U32, &[3]);
                self.collect(ticket, &mut words)?;
                words
            }
        };
        Ok(match words.slice::<u32>() {
            Some(&[1, index, rows]) => Some(OpError::Index {
                index: index.into(),
                rows: rows.into(),
            }),
            _ => None,
        })
    }

    /// Applies ops; of several, inputs and outputs follow each other. Gives the most bytes of scratch beside that in
    /// the blocks.
    ///
    /// # Errors
    /// What a kernel met where it is done at once, or what the driver says.
    fn apply(
        &mut self,
        ops: &[Applied<'_>],
        launches: &Launches,
        blocks: &Blocks<'_>,
    ) -> Result<u64, RunError>;
}

/// The type of the three words of a fault, see [`crate::program::op::launch::Operand::Fault`].
fn fault_type() -> TensorType {
    TensorType::fixed(DType::U32, &[3])
}

/// Why a program is not run on a GPU.
fn refused(missing: &[Missing]) -> RunError {
    let list: Vec<String> = missing
        .iter()
        .map(|m| format!("`{}`: {}", m.op, m.why))
        .collect();
    RunError::Device(format!(
        "there is no kernel on a GPU for what this model needs ({}); use `--device cpu`",
        list.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (text, device) in [
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for text in [
            "",
            "gpu",
            "cuda:",
            "cuda:x",
            "cuda:+1",
            "cuda:99999999999",
            "cpu:0",
        ] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }
}
