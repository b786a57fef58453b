//! The face towards people: the command line, and the real world behind it.

pub mod world;
