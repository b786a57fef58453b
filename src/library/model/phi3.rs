//! Phi-3 and Phi-3.5 mini (Abdin et al. 2024, arXiv 2404.14219).

use serde_json::{Value as Json, json};

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
          (`ffn.gate_up`). `model_type` is `phi3`. Texts longer than the model was trained for at first \
          have LongRoPE's long factors.",
    paper: "Abdin et al. 2024 (arXiv 2404.14219)",
    keys: &[],
};

const CLASS: Class = Class {
    positions: 4096,
    eps: 1e-5,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = &of_class(config);
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
    // While text is generated, keys that were turned by the short factors do not stay.
    shape.rereads = true;
    decoder::model("phi3", "Phi3", shape)
}

/// The config as its class reads it: LongRoPE has several names in old files, and the first length beside the rotary
/// parameters counts, not the one among them.
fn of_class(config: &Json) -> Json {
    let key = "original_max_position_embeddings";
    let first = config.get(key).filter(|v| !v.is_null()).cloned();
    let first = first.unwrap_or_else(|| json!(4096));
    let mut own = config.clone();
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(Json::Object(map)) = own.get_mut(name) else {
            continue;
        };
        map.insert(key.to_owned(), first.clone());
        if map.contains_key("short_factor") {
            for kind in ["rope_type", "type"] {
                if map.get(kind).is_some_and(|kind| kind == "yarn") {
                    map.insert(kind.to_owned(), json!("longrope"));
                }
            }
        }
    }
    own
}
