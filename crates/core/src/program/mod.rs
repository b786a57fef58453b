//! The intermediate representation: programs of tensor ops over symbolic sizes, differentiated and
//! measured ahead of time.
//!
//! **Invariant:** nothing here knows recipes, models or methods.

pub mod autodiff;
pub mod builder;
pub mod device;
pub mod distances;
pub mod format;
pub mod graph;
pub mod meetings;
pub mod memory;
pub mod op;
pub mod passes;
pub mod prefix;
pub mod print;
pub mod rates;
mod rounding;
pub mod schedule;
pub mod signal;
pub mod stored;
pub mod together;
pub mod types;
pub mod verify;

pub use builder::{Builder, Numbers};
pub use distances::{Bucketing, Distances};
pub use format::Format;
pub use graph::{
    Axis, Block, Class, Def, Feed, Mark, Node, Phase, Pick, Program, Resident, TargetKind, Value,
};
pub use schedule::Schedule;
pub use signal::{Budget, Signal};
pub use types::{Bindings, DType, Dim, Real, Shape, Sym, TensorType};
pub use verify::{Verified, verify};
