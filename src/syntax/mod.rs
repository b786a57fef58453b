//! From text to tree, and back to well-formatted text.

pub mod ast;
mod blame;
pub mod error;
mod format;
mod literal;
mod parser;
mod scan;

pub use format::format;
pub use literal::quote;
pub use parser::{parse, parse_value};
