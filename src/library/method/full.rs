//! Full fine-tuning (methods F1): every parameter of backbone and head is trained.

use super::{Method, Param, Schema, Values};

/// Every parameter is trained.
#[derive(Debug)]
pub struct Full;

static SCHEMA: Schema = Schema {
    name: "full",
    summary: "full fine-tuning: every parameter is trained",
    doc: "The reference every other method is measured against. With AdamW in f32 it needs 16 bytes a parameter \
          (weight, gradient, two moments) and the activations of all blocks.",
    paper: "Devlin et al. 2019 (arXiv 1810.04805); Liu et al. 2019 (arXiv 1907.11692)",
    keys: &[],
};

impl Method for Full {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn trains(&self, _: &Values, _: &Param, _: u64) -> bool {
        true
    }
}
