//! Phi-3 and Phi-3.5 mini (Abdin et al. 2024, arXiv 2404.14219).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, Fused, LLAMA};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["phi3"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "phi3",
    summary: "Phi-3 decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block with one map for queries, keys and values (`attention.qkv`) and one for gate and up \
          (`ffn.gate_up`). `model_type` is `phi3`. Texts may be as long as the model was trained for at first: the longer \
          LongRoPE factors are not built.",
    paper: "Abdin et al. 2024 (arXiv 2404.14219)",
    keys: &[],
};

const CLASS: Class = Class {
    positions: 4096,
    eps: 1e-5,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    for key in ["resid_pdrop", "embd_pdrop"] {
        if reader.number(key, 0.0)? != 0.0 {
            return Err(format!(
                "config.json has `{key}` above 0; this dropout is not built for decoders: set it to 0"
            ));
        }
    }
    let mut shape = reader.shape()?;
    shape.fused = Fused::Whole;
    let window = reader.window("sliding_window", None)?;
    shape.layers.iter_mut().for_each(|own| own.window = window);
    // Beyond its first length the model turns positions by other factors.
    let first = reader
        .size("original_max_position_embeddings")?
        .unwrap_or(4096);
    let scaled = config
        .get("rope_scaling")
        .or_else(|| config.get("rope_parameters"));
    if scaled.is_some_and(|s| s.get("short_factor").is_some()) {
        shape.positions = shape.positions.min(first);
    }
    decoder::model("phi3", "Phi3", shape)
}
