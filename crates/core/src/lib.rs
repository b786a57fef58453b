//! What `peftc` compiles to, and the ground under all of it: op graph, kernels, differentiation, memory; decompositions of
//! matrices; spans, diagnostics, units, random numbers. Everything above is the crate `peftc`, which re-exports the modules.

#![deny(
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::todo,
    clippy::unimplemented,
    clippy::unwrap_used
)]

pub mod base;
pub mod linalg;
pub mod program;
