//! Cosine decay after warm-up.

use super::{END, PEAK, Schedule, WARMUP};
use crate::library::schema::{Key, Schema};

/// `½(1 + cos(π (t − W)/(S − W)))`.
#[derive(Debug)]
pub(super) struct Cosine;

static KEYS: [Key; 3] = [PEAK.key(), END.key(), WARMUP.key()];
static SCHEMA: Schema = Schema {
    name: "cosine",
    summary: "half a cosine from peak to end, after an optional warm-up",
    doc: "rate(t) = end + (peak − end) · ½(1 + cos(π (t − W)/(S − W))) for step t of S, with W warm-up steps.",
    paper: "Loshchilov and Hutter 2017 (arXiv 1608.03983)",
    keys: &KEYS,
};

impl Schedule for Cosine {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn factor(&self, t: u64, total: u64, warmup: u64) -> f64 {
        let done = t.saturating_sub(warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        0.5 * (1.0 + libm::cos(std::f64::consts::PI * done))
    }
}
