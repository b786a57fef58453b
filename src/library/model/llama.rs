//! LLaMA (Touvron et al. 2023, arXiv 2302.13971; Llama 3, arXiv 2407.21783).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, LLAMA};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["llama"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "llama",
    summary: "LLaMA and what is built like it, from Hugging Face checkpoints",
    doc: "Decoders with RMS norms before each sub-layer, rotary positions, grouped queries and a gated feed-forward \
          network. `model_type` is `llama`: Llama 2 and 3, SmolLM2, TinyLlama and others.",
    paper: "Touvron et al. 2023 (arXiv 2302.13971)",
    keys: &[],
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &LLAMA);
    let mut shape = reader.shape()?;
    reader.attention_bias(&mut shape)?;
    shape.biases.ffn = reader.flag("mlp_bias", false)?;
    decoder::model("llama", "Llama", shape)
}
