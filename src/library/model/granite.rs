//! Granite 3 (Granite Team 2024).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, LLAMA};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["granite"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "granite",
    summary: "Granite decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block with factors on embeddings, scores, residuals and logits. `model_type` is `granite`.",
    paper: "Granite Team 2024, Granite 3.0 language models; Yang et al. 2022 (arXiv 2203.03466)",
    keys: &[],
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &LLAMA);
    let mut shape = reader.shape()?;
    reader.attention_bias(&mut shape)?;
    shape.biases.ffn = reader.flag("mlp_bias", false)?;
    shape.embedding_scale = reader.number("embedding_multiplier", 1.0)?;
    shape.residual_scale = reader.number("residual_multiplier", 1.0)?;
    shape.score_scale = reader.number("attention_multiplier", 1.0)?;
    let scaling = reader.number("logits_scaling", 1.0)?;
    if scaling == 0.0 {
        return Err("config.json has `logits_scaling` = 0, by which logits are divided".to_owned());
    }
    shape.logit_scale = 1.0 / scaling;
    decoder::model("granite", "Granite", shape)
}
