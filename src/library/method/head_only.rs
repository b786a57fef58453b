//! Head only (methods F3): the task head on frozen features.

use super::{Method, Schema};

/// Only the task head is trained.
#[derive(Debug)]
pub struct HeadOnly;

static SCHEMA: Schema = Schema {
    name: "head_only",
    summary: "linear probe: only the task head is trained, on frozen features",
    doc: "The backbone runs in evaluation mode and is never differentiated; memory is that of inference plus the \
          head's optimizer state.",
    paper: "Ben Zaken et al. 2022 (arXiv 2106.10199), baseline `frozen`",
    keys: &[],
};

impl Method for HeadOnly {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }
}
