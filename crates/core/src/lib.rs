//! What `peftc` compiles to, and the ground under all of it: op graph, kernels, differentiation, memory; spans,
//! diagnostics, units, random numbers. Everything above is the crate `peftc`, which re-exports both modules.

pub mod base;
pub mod program;
