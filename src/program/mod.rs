//! The intermediate representation: programs of tensor ops over symbolic sizes.

pub mod builder;
pub mod graph;
pub mod op;
pub mod types;

pub use builder::Builder;
pub use graph::{Class, Def, Feed, Node, Phase, Program, Resident, Value};
pub use types::{Bindings, DType, Dim, Real, Shape, Sym, TensorType};
