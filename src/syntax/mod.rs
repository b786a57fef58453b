//! From text to tree, and back to well-formatted text.

pub mod ast;
