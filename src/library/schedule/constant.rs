//! A constant rate after warm-up.

use super::{PEAK, Schedule, WARMUP};
use crate::library::schema::{Key, Schema};

/// The peak throughout.
#[derive(Debug)]
pub(super) struct Constant;

static KEYS: [Key; 2] = [PEAK.key(), WARMUP.key()];
static SCHEMA: Schema = Schema {
    name: "constant",
    summary: "the peak rate throughout, after an optional warm-up",
    doc: "The rate rises linearly from 0 over `warmup` and stays.",
    paper: "",
    keys: &KEYS,
};

impl Schedule for Constant {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn factor(&self, _: u64, _: u64, _: u64) -> f64 {
        1.0
    }
}
