//! Gemma 3, its text models (Gemma Team 2025, arXiv 2503.19786).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, QkNorm};
use super::{Architecture, Model, gemma, gemma2};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["gemma3_text"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "gemma3",
    summary: "Gemma 3 decoders for text, from Hugging Face checkpoints",
    doc: "Gemma 2's block with norms of queries and keys instead of soft caps; five of six blocks look through a window, \
          with rotary positions of their own. `model_type` is `gemma3_text`; models that see pictures are not built.",
    paper: "Gemma Team 2025 (arXiv 2503.19786)",
    keys: &[],
};

const CLASS: Class = Class {
    kv_heads: Some(4),
    positions: 131_072,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    theta: 1_000_000.0,
    ..gemma::CLASS
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = gemma::common(&reader)?;
    gemma2::both_norms(&reader, &mut shape, [None, None])?;
    shape.qk_norm = QkNorm::Head;
    let window = reader.window("sliding_window", Some(4096))?;
    let every = reader.size("sliding_window_pattern")?.unwrap_or(6);
    let slides = reader.slides(shape.layers.len() as u64, |i| {
        !(i + 1).is_multiple_of(every)
    })?;
    let mut global = reader.rotary(Some("full_attention"))?;
    let mut local = reader.rotary(Some("sliding_attention"))?;
    if !nested(config) {
        // Old files scale the blocks without a window only, and name the other theta beside.
        local.clear();
        if let Some(theta) = config.get("rope_local_base_freq") {
            local.insert("rope_theta".to_owned(), theta.clone());
        }
    } else if global.get("rope_theta").is_none_or(Json::is_null) {
        global.insert("rope_theta".to_owned(), CLASS.theta.into());
    }
    let global = reader.rope(&global, &shape, CLASS.theta)?;
    let local = reader.rope(&local, &shape, 10_000.0)?;
    for (own, slides) in shape.layers.iter_mut().zip(slides) {
        own.window = window.filter(|_| slides);
        own.rope = Some(if slides {
            local.clone()
        } else {
            global.clone()
        });
    }
    decoder::model("gemma3", "Gemma3", shape)
}

/// Whether the rotary parameters stand by type of layer.
fn nested(config: &Json) -> bool {
    let own = config.get("rope_parameters").and_then(Json::as_object);
    own.is_some_and(|map| map.values().any(Json::is_object))
}
