//! The registry of what a model or an adapter is exported as: one file and one row each.

use std::fmt;

use super::combine::Keep;
use super::method::Product;
use super::net::Site;
use super::schema::{Schema, Values};
use crate::program::{DType, Format};

mod gguf;
mod gguf_adapter;
pub mod mlx;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A folder in Hugging Face's layout, its matrices in this type.
    Folder(DType),
    /// A whole model as a GGUF file, its matrices in this format.
    Gguf(Format),
    /// The adapter alone as a GGUF file.
    GgufAdapter,
    /// The adapter alone as a folder that mlx-lm reads.
    Mlx,
    /// What adapters change as a LoRA in peft's format, as much as this keeps.
    Lora(Keep),
}

impl Target {
    /// Whether adapters are folded into what is written.
    #[must_use]
    pub const fn is_model(self) -> bool {
        matches!(self, Self::Folder(_) | Self::Gguf(_))
    }

    /// How a tensor of a shape is stored. In GGUF, what has no whole blocks is stored in the next format that can hold
    /// it, and so are embeddings and the head, in 8 bits where the matrices are in 4.
    #[must_use]
    pub fn stored(self, name: &str, shape: &[u64]) -> Format {
        let single = Format::default();
        let [_, width] = shape else {
            return single;
        };
        match self {
            Self::Folder(dtype) => dtype.into(),
            Self::GgufAdapter | Self::Mlx | Self::Lora(_) => single,
            Self::Gguf(format) => {
                let named = |name| Format::named(name).unwrap_or_default();
                // A block's number is a part of the path.
                let inside = name.split('.').any(|part| part.parse::<u64>().is_ok());
                let outside = format.blocks().is_some() && !inside;
                let own = if outside { named("q8_0") } else { format };
                let all = [own, named("q8_0"), named("f16")];
                all.into_iter().find(|f| f.fits(*width)).unwrap_or(single)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dtype) => write!(f, "{dtype} weights"),
            Self::Gguf(format) => write!(f, "a GGUF file in {format}"),
            Self::GgufAdapter => f.write_str("a GGUF adapter"),
            Self::Mlx => f.write_str("an adapter for mlx-lm"),
            Self::Lora(Keep::Rank(rank)) => write!(f, "a LoRA of rank {rank}"),
            Self::Lora(Keep::Largest) => f.write_str("a LoRA"),
            Self::Lora(Keep::Energy(share, of)) => {
                let percent = 100.0 * *share as f64 / (*of).max(1) as f64;
                write!(f, "a LoRA with {percent} % of the energy")
            }
        }
    }
}

/// A matrix with a LoRA on it.
#[derive(Debug)]
pub struct Adapted<'a> {
    /// Where.
    pub site: &'a Site,
    /// Its rank and factor.
    pub product: Product,
}

/// A format of exports.
pub trait Export: Sync + Send + std::fmt::Debug {
    /// Name, doc, keys.
    fn schema(&self) -> &'static Schema;

    /// What is written.
    fn target(&self, values: &Values) -> Target;
}

/// Every format.
pub const EXPORTS: &[&dyn Export] = &[&gguf::Gguf, &gguf_adapter::GgufAdapter, &mlx::Mlx];

/// Looks a format up by name.
#[must_use]
pub fn export(name: &str) -> Option<&'static dyn Export> {
    EXPORTS.iter().copied().find(|e| e.schema().name == name)
}
