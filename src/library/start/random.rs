//! `random`: fresh numbers.

use super::super::schema::Schema;
use super::Start;

/// The registry's row.
pub(super) static START: Start = Start {
    schema: &Schema {
        name: "random",
        summary: "side blocks begin with random matrices",
        doc: "Matrices are drawn from N(0, 0.02²), biases are 0, norms are 1.",
        paper: "",
        keys: &[],
    },
    importance: |_| None,
};
