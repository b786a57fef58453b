//! `gguf_adapter`: a LoRA adapter for llama.cpp.

use super::{Export, Target};
use crate::library::schema::{Schema, Values};

/// The format.
#[derive(Debug)]
pub(super) struct GgufAdapter;

static SCHEMA: Schema = Schema {
    name: "gguf_adapter",
    summary: "a LoRA adapter as a GGUF file for llama.cpp (`--lora`)",
    doc: "The adapter alone, in f32, for the GGUF file of its base model. LoRA only: llama.cpp has no other kind. Ranks and factors may \
          differ between matrices.",
    paper: "",
    keys: &[],
};

impl Export for GgufAdapter {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn target(&self, _: &Values) -> Target {
        Target::GgufAdapter
    }
}
