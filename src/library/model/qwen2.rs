//! Qwen2 and 2.5 (Yang et al. 2024, arXiv 2407.10671).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, LLAMA, Reader, Shape};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["qwen2"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "qwen2",
    summary: "Qwen2 and Qwen2.5 decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block with biases on queries, keys and values. `model_type` is `qwen2`.",
    paper: "Yang et al. 2024 (arXiv 2407.10671)",
    keys: &[],
};

const CLASS: Class = Class {
    kv_heads: Some(32),
    positions: 32_768,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = reader.shape()?;
    shape.biases.qkv = true;
    windows(&reader, &mut shape)?;
    decoder::model("qwen2", "Qwen2", shape)
}

/// A window in the blocks from `max_window_layers` on, where `use_sliding_window` says so.
pub(super) fn windows(reader: &Reader<'_>, shape: &mut Shape) -> Result<(), String> {
    let window = reader.window("sliding_window", Some(4096))?;
    let used = reader.flag("use_sliding_window", false)?;
    let window = if used { window } else { None };
    let first = reader.number("max_window_layers", 28.0)? as u64;
    let slides = reader.slides(shape.layers.len() as u64, |i| {
        window.is_some() && i >= first
    })?;
    for (own, slides) in shape.layers.iter_mut().zip(slides) {
        own.window = window.filter(|_| slides);
    }
    Ok(())
}
