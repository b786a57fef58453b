//! Linear decay after warm-up.

use super::{END, PEAK, Schedule, WARMUP};
use crate::library::schema::{Key, Schema};

/// `(S − t)/(S − W)`.
#[derive(Debug)]
pub(super) struct Linear;

static KEYS: [Key; 3] = [PEAK.key(), END.key(), WARMUP.key()];
static SCHEMA: Schema = Schema {
    name: "linear",
    summary: "linear decay from peak to end, after an optional warm-up",
    doc: "rate(t) = end + (peak − end) · (S − t)/(S − W) for step t of S, with W warm-up steps.",
    paper: "Report, section 3.2.3",
    keys: &KEYS,
};

impl Schedule for Linear {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn factor(&self, t: u64, total: u64, warmup: u64) -> f64 {
        total.saturating_sub(t) as f64 / total.saturating_sub(warmup).max(1) as f64
    }
}
