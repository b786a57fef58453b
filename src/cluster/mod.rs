//! A plan's stages as jobs of engines that clusters have: one file an engine.
//!
//! **Invariant:** nothing here asks a scheduler anything or writes a file. What is submitted is text, and what a
//! scheduler answers comes as text; `cli` hands both on.

pub mod argo;
pub mod jobs;
pub mod journal;
pub mod log;
pub mod queue;
pub mod site;
pub mod slurm;
