//! Mistral (Jiang et al. 2023, arXiv 2310.06825).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, LLAMA};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["mistral"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "mistral",
    summary: "Mistral decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block whose tokens see a window of those before them (`sliding_window`). `model_type` is `mistral`.",
    paper: "Jiang et al. 2023 (arXiv 2310.06825)",
    keys: &[],
};

const CLASS: Class = Class {
    kv_heads: Some(8),
    positions: 4096 * 32,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = reader.shape()?;
    let window = reader.window("sliding_window", Some(4096))?;
    shape.layers.iter_mut().for_each(|own| own.window = window);
    decoder::model("mistral", "Mistral", shape)
}
