//! Qwen3 (Yang et al. 2025, arXiv 2505.09388).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, LLAMA, QkNorm};
use super::{Architecture, Model, qwen2};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["qwen3"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "qwen3",
    summary: "Qwen3 decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block with RMS norms of queries and keys, head by head. `model_type` is `qwen3`.",
    paper: "Yang et al. 2025 (arXiv 2505.09388)",
    keys: &[],
};

const CLASS: Class = Class {
    kv_heads: Some(32),
    head: Some(128),
    positions: 32_768,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = reader.shape()?;
    reader.attention_bias(&mut shape)?;
    shape.qk_norm = QkNorm::Head;
    qwen2::windows(&reader, &mut shape)?;
    decoder::model("qwen3", "Qwen3", shape)
}
