//! `peftc`: a compiler for parameter-efficient fine-tuning.
//!
//! ```text
//! text ─syntax▶ ast::File ─resolve▶ Recipe ─plan▶ Plan ─lower▶ Compiled ─exec▶ Report
//! ```

pub mod base;
pub mod exec;
pub mod library;
pub mod program;
pub mod syntax;
