//! `peftc`: a compiler for parameter-efficient fine-tuning.
//!
//! ```text
//! text ─syntax▶ ast::File ─resolve▶ Recipe ─plan▶ Plan (a job over verified programs a stage) ─exec▶ Report
//! ```
//!
//! # In another program
//!
//! Four functions do what the commands of the same names do, and print nothing: [`check`](check()), [`plan`](plan()), [`run`] and
//! [`predict`]. They take a [`Job`], the recipe with what is asked of it, and give an [`Error`] that says what is wrong where.
//! [`Model`] keeps a model in memory for many questions. `examples/embed.rs` is a whole program.
//!
//! ```no_run
//! let job = peftc::Job::new("recipe.peft").budget(6 << 30);
//! let checked = peftc::check(&job)?;
//! if checked.fits == Some(true) {
//!     let result = peftc::run(&job, &mut peftc::Silent)?;
//!     println!("{}", result["stages"][0]["metrics"]);
//! }
//! # Ok::<(), peftc::Error>(())
//! ```
//!
//! # What stays
//!
//! Versions are semantic (semver). The promise holds for what this page lists under *Re-exports* of `cli::embed` and `exec::observe`, for
//! the commands, the JSON that they print (`docs/cli.md`) and the language that a recipe's first line names. A minor version adds to
//! them; before 1.0 it may also take away, and says so. The modules are public for tests and tools, and change with any version.

#![deny(
    clippy::dbg_macro,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::todo,
    clippy::unimplemented,
    clippy::unwrap_used
)]

pub use cli::embed::{Checked, Error, Job, Message, Model, Need, Row, check, plan, predict, run};
pub use exec::observe::{Event, Observer, Silent};
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
