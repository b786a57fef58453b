//! Devices beside the processor: which are asked for, and what the executor wants of one.

use std::fmt;
use std::str::FromStr;

use crate::files::RunError;
use crate::program::op::launch::Launches;
use crate::program::op::{Op, Tensor};
use crate::program::{Bindings, TensorType};

pub mod alloc;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod rehearsed;

/// Where programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(u32),
    /// The device's interpreter over the processor's ops.
    #[cfg(test)]
    Rehearsed,
    /// The same with memory for so many blocks in all.
    #[cfg(test)]
    Scarce(u64),
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
            #[cfg(test)]
            Self::Rehearsed | Self::Scarce(_) => f.write_str("rehearsed"),
        }
    }
}

impl Device {
    /// Whether this build can run programs there.
    ///
    /// # Errors
    /// What to do about it if not.
    pub fn is_built(self) -> Result<(), String> {
        if !matches!(self, Self::Cuda(_)) || cfg!(feature = "cuda") {
            return Ok(());
        }
        Err("this peftc was built without CUDA and runs on the processor only; build one with \
             `cargo build --release --features cuda` (docs/cuda.md), or use `--device cpu`; `check` and `plan` plan \
             for GPUs in every build"
            .to_owned())
    }

    /// Opens it; `None` for the processor, which needs no opening.
    ///
    /// # Errors
    /// No driver, no such GPU, one that is too old, or a build without CUDA: one sentence with the remedy.
    pub fn open(self) -> Result<Option<Box<dyn Backend>>, RunError> {
        self.is_built().map_err(RunError::Device)?;
        match self {
            Self::Cpu => Ok(None),
            #[cfg(test)]
            Self::Rehearsed => Ok(Some(Box::new(rehearsed::Rehearsal::new(u64::MAX)))),
            #[cfg(test)]
            Self::Scarce(blocks) => Ok(Some(Box::new(rehearsed::Rehearsal::new(blocks)))),
            #[cfg(feature = "cuda")]
            Self::Cuda(n) => Ok(Some(Box::new(self::cuda::Cuda::open(n)?))),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Ok(None),
        }
    }
}

/// A block of device memory, by its backend's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub usize);

/// An op of an application, with the numbers of its operands.
#[derive(Clone, Copy, Debug)]
pub struct Applied<'a> {
    /// It.
    pub op: &'a Op,
    /// How many inputs it has.
    pub inputs: usize,
    /// How many outputs.
    pub outputs: usize,
}

/// The blocks of one application. An input whose buffer output 0 took over is output 0's block.
#[derive(Debug)]
pub struct Blocks<'a> {
    /// Inputs.
    pub inputs: &'a [Block],
    /// Outputs.
    pub outputs: &'a [Block],
    /// Scratch.
    pub scratch: &'a [Block],
    /// Three words, see [`crate::program::op::launch::Operand::Fault`].
    pub fault: Block,
}

/// A block's bytes on their way home.
#[derive(Debug)]
pub enum Ticket {
    /// They are here already.
    Here(Vec<u8>),
    /// They will be at this place of the backend's own memory.
    At(usize),
}

/// A moment in what a device was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

/// What the executor wants of a device. Everything happens in the order asked for; only
/// [`Backend::download`] and [`Backend::wait`] need wait.
pub trait Backend: fmt::Debug + Send {
    /// Bytes free on the device, what the backend holds itself included.
    ///
    /// # Errors
    /// What the driver says.
    fn free_bytes(&self) -> Result<u64, RunError>;

    /// Memory for a tensor, in any state.
    ///
    /// # Errors
    /// There is not so much left.
    fn alloc(&mut self, ty: &TensorType, sizes: &Bindings) -> Result<Block, RunError>;

    /// Gives memory back.
    fn free(&mut self, block: Block);

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

    /// Begins to bring the first bytes of a block home, where they are once a later [`Mark`] was waited for. The
    /// block may be freed at once.
    ///
    /// # Errors
    /// What the driver says.
    fn begin(&mut self, block: Block, bytes: u64) -> Result<Ticket, RunError>;

    /// Marks this moment: what was asked for up to here.
    ///
    /// # Errors
    /// What the driver says.
    fn mark(&mut self) -> Result<Mark, RunError>;

    /// Waits until all that was asked for before a mark is done. Marks before it are of no use from then on.
    ///
    /// # Errors
    /// What the driver says of it.
    fn wait(&mut self, mark: Mark) -> Result<(), RunError>;

    /// Puts what has come home into a tensor of that size.
    ///
    /// # Errors
    /// A bug of ours.
    fn collect(&mut self, ticket: Ticket, tensor: &mut Tensor) -> Result<(), RunError>;

    /// Applies ops by their launches; of several, inputs and outputs follow each other.
    ///
    /// # Errors
    /// What the driver says.
    fn apply(
        &mut self,
        ops: &[Applied<'_>],
        launches: &Launches,
        blocks: &Blocks<'_>,
    ) -> Result<(), RunError>;
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
