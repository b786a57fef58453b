//! `peftc`: a compiler for parameter-efficient fine-tuning.
//!
//! ```text
//! text ─syntax▶ ast::File ─resolve▶ Recipe ─plan▶ Plan (a job over verified programs a stage) ─exec▶ Report
//! ```

#![deny(
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::todo,
    clippy::unimplemented,
    clippy::unwrap_used
)]

pub use peftc_core::{base, codes, linalg, program};

pub mod cli;
pub mod cluster;
pub mod driver;
pub mod editor;
pub mod exec;
pub mod files;
pub mod library;
pub mod plan;
pub mod report;
pub mod resolve;
pub mod syntax;
