//! Gemma (Gemma Team 2024, arXiv 2403.08295).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, LLAMA, Reader, Shape};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["gemma"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "gemma",
    summary: "Gemma decoders of the first version, from Hugging Face checkpoints",
    doc: "LLaMA's block with a GELU gate, norms that multiply by one more than their weight, and embeddings times the \
          square root of their width. `model_type` is `gemma`.",
    paper: "Gemma Team 2024 (arXiv 2403.08295)",
    keys: &[],
};

/// What the classes of all versions have in common.
pub(super) const CLASS: Class = Class {
    kv_heads: Some(16),
    head: Some(256),
    positions: 8192,
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    tied: true,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    // The official files have `hidden_act` = gelu and mean its approximation, as transformers reads them.
    let mut config = config.clone();
    if let Some(act) = config.get_mut("hidden_act").filter(|act| **act == "gelu") {
        *act = CLASS.activation.1.into();
    }
    let reader = decoder::reader(&config, &CLASS);
    let shape = common(&reader)?;
    decoder::model("gemma", "Gemma", shape)
}

/// What all versions have in common.
pub(super) fn common(reader: &Reader<'_>) -> Result<Shape, String> {
    let mut shape = reader.shape()?;
    reader.attention_bias(&mut shape)?;
    shape.plus_one = true;
    shape.embedding_scale = (shape.hidden as f64).sqrt();
    shape.scales_rows = true;
    if reader.flag("use_bidirectional_attention", false)? {
        return Err(
            "config.json has `use_bidirectional_attention`: tokens would see those behind them, which is not built for decoders"
                .to_owned(),
        );
    }
    Ok(shape)
}
