//! Laws and whole-program tests; one binary, so that it links once.

mod syntax_fuzz;
