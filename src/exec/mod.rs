//! Running a planned recipe. Each folder is a room; a room sees only those above it in this list, as a test of
//! the layers says.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `observe` | what a run tells, and the signals that end it |
//! | `ranks` | processes that train together: sums over them, what each tells the others |
//! | `backend` | devices: memory, launches; the process' own memory |
//! | `interpreter` | programs run over one stage's tensors |
//! | `checkpoint` | states of a training to go on from, and its log |
//! | `store` | finished stages, locks, cached features |
//! | `load` | where the first values of tensors come from |
//! | `features` | what is frozen, computed once and cached |
//! | `generate` | text behind prompts |
//! | `export` | models and adapters as files |
//! | `stage` | what the kinds of stages do |
//! | `predict` | labels for new text |
//! | `run` | the stages of a plan, one after the other |

pub mod backend;
pub mod checkpoint;
#[cfg(test)]
mod device_tests;
pub mod export;
pub mod features;
pub mod generate;
pub mod interpreter;
pub mod load;
pub mod observe;
pub mod predict;
pub mod ranks;
pub mod run;
pub mod stage;
pub mod store;

pub use backend::alloc::Counting;
