//! Gemma 2 (Gemma Team 2024, arXiv 2408.00118).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, Norms, Reader, Shape};
use super::{Architecture, Model, gemma};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["gemma2"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "gemma2",
    summary: "Gemma 2 decoders, from Hugging Face checkpoints",
    doc: "Gemma's block with norms before and behind each sub-layer, a window in every other block, and soft caps on \
          scores and logits. `model_type` is `gemma2`.",
    paper: "Gemma Team 2024 (arXiv 2408.00118)",
    keys: &[],
};

const CLASS: Class = Class {
    kv_heads: Some(4),
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    ..gemma::CLASS
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = gemma::common(&reader)?;
    both_norms(&reader, &mut shape, [Some(50.0), Some(30.0)])?;
    let window = reader.window("sliding_window", Some(4096))?;
    let slides = reader.slides(shape.layers.len() as u64, |i| i % 2 == 0)?;
    for (own, slides) in shape.layers.iter_mut().zip(slides) {
        own.window = window.filter(|_| slides);
    }
    decoder::model("gemma2", "Gemma2", shape)
}

/// What Gemma 2 and 3 have in common; the caps of scores and logits are those where none is written.
pub(super) fn both_norms(
    reader: &Reader<'_>,
    shape: &mut Shape,
    [scores, logits]: [Option<f64>; 2],
) -> Result<(), String> {
    shape.norms = Norms::Both;
    let scalar = reader.bound("query_pre_attn_scalar", Some(256.0))?;
    shape.score_scale = 1.0 / scalar.unwrap_or(256.0).sqrt();
    shape.score_cap = reader.bound("attn_logit_softcapping", scores)?;
    shape.logit_cap = reader.bound("final_logit_softcapping", logits)?;
    Ok(())
}
