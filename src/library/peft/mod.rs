//! Adapters of the Python library `peft` as methods read them: what `adapter_config.json` says, and what each tensor is
//! on a model here.
//!
//! **Invariant:** every tensor has its place, or the adapter is refused by that tensor's name; and every tensor that the
//! config promises is there.

use std::fmt;
use std::sync::Arc;

use super::method::Method;
use super::schema::Checked;

mod config;
mod edit;
mod fit;
mod order;
mod reading;

pub use config::{COMMON, Config, Fate, Keys, MERGE_INSTEAD, Patterns, START, Targets};
pub use edit::{Edit, Edited, Ready};
pub use fit::fit;
pub use order::as_declared;
pub use reading::{Place, Reading};

/// A tensor's shape and its elements.
pub type Floats = (Vec<usize>, Vec<f32>);

/// The tensors of an adapter's file, named as modules of the base model: without `base_model.model.`.
pub trait Stored {
    /// All names, sorted.
    fn names(&self) -> Vec<&str>;

    /// A tensor's shape; `None` if there is none of that name.
    fn shape(&self, name: &str) -> Option<&[u64]>;

    /// A tensor's elements.
    ///
    /// # Errors
    /// There is none of that name, or it holds no numbers that f32 has.
    fn numbers(&self, name: &str) -> Result<Floats, String>;
}

/// How the first value of a parameter is made of tensors of the file.
#[derive(Clone)]
pub enum Make {
    /// It is the one tensor, number by number; the shape may be another.
    Same,
    /// It is the one matrix transposed.
    Transposed,
    /// It is computed from the tensors, which may be none.
    By(Arc<Compute>),
}

/// Computes the numbers of a parameter from tensors of the file, in the order named.
pub type Compute = dyn Fn(&[Floats]) -> Result<Vec<f32>, String> + Send + Sync;

impl fmt::Debug for Make {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "Same",
            Self::Transposed => "Transposed",
            Self::By(_) => "By",
        })
    }
}

impl Make {
    /// Computed from the tensors.
    pub fn by(
        compute: impl Fn(&[Floats]) -> Result<Vec<f32>, String> + Send + Sync + 'static,
    ) -> Self {
        Self::By(Arc::new(compute))
    }

    /// The numbers.
    ///
    /// # Errors
    /// What the computation says.
    pub fn numbers(&self, mut from: Vec<Floats>) -> Result<Vec<f32>, String> {
        match self {
            Self::By(compute) => compute(&from),
            Self::Same | Self::Transposed => {
                let (dims, data) = from.pop().ok_or("a value is made of no tensor")?;
                match (self, dims.as_slice()) {
                    (Self::Transposed, &[_, width]) => Ok(columns(&data, width)),
                    _ => Ok(data),
                }
            }
        }
    }
}

/// The numbers of a matrix of this width, column after column.
#[must_use]
pub fn columns(data: &[f32], width: usize) -> Vec<f32> {
    let column = |i: usize| data.iter().skip(i).step_by(width.max(1)).copied();
    (0..width).flat_map(column).collect()
}

/// The first value of a parameter.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The parameter's name.
    pub own: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// The tensors of the file that it is made of.
    pub from: Vec<String>,
    /// How it is made of them.
    pub make: Make,
}

/// Sites with one method and the same values.
#[derive(Clone, Debug)]
pub struct Group {
    /// The method.
    pub method: &'static dyn Method,
    /// Its values but for the placement, which is the modules.
    pub values: Vec<(&'static str, Checked)>,
    /// Paths of the sites in the model.
    pub modules: Vec<String>,
}

/// LoRA on a linear map of the head. The head is trained whole, so the product goes into its matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadUpdate {
    /// Path of the map in the model.
    pub module: String,
    /// Name of A among the adapter's tensors.
    pub a: String,
    /// Name of B among the adapter's tensors.
    pub b: String,
    /// Factor of the product.
    pub scale: f64,
}

/// An adapter whose tensors all have a place in a model.
#[derive(Clone, Debug, Default)]
pub struct Fitted {
    /// The methods and where they are.
    pub groups: Vec<Group>,
    /// LoRA on the head's linear maps.
    pub head: Vec<HeadUpdate>,
    /// Modules of the model, without the sequence head's, that were trained whole.
    pub whole: Vec<String>,
    /// The parameters that the file holds values of.
    pub tensors: Vec<Taken>,
    /// What else it changes of the model's own parameters: that can be applied, and not trained on.
    pub edits: Vec<Edited>,
    /// Tensors of the file, each with the number that adds nothing: where all of them hold it alone, and nothing is saved
    /// whole, the adapter changes nothing.
    pub idle: Vec<(String, f32)>,
    /// Whether it changes something whatever these hold.
    pub acts: bool,
}

/// Why an adapter does not fit a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong, with the tensor or module.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Misfit {
    /// What is wrong, and what to do.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }

    /// What is wrong with a key of the config.
    pub fn of_config(message: impl Into<String>) -> Self {
        Self::new(message, "correct it in adapter_config.json")
    }

    /// What is not built yet, and the way around it.
    pub fn not_built(message: impl fmt::Display) -> Self {
        Self::new(format!("{message} is not built yet"), MERGE_INSTEAD)
    }

    /// A file that was cut down or damaged.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(
            message,
            "the file is damaged or was cut down: write it again with peft's `save_pretrained`",
        )
    }
}
