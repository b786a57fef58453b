//! SmolLM3 (Bakouch et al. 2025).

use serde_json::Value as Json;

use super::super::schema::Schema;
use super::decoder::{self, Class, LLAMA};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["smollm3"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "smollm3",
    summary: "SmolLM3 decoders, from Hugging Face checkpoints",
    doc: "LLaMA's block, of which every fourth has no rotary positions (`no_rope_layers`). `model_type` is `smollm3`.",
    paper: "Bakouch et al. 2025, SmolLM3; Yang et al. 2025 (arXiv 2501.18795)",
    keys: &[],
};

const CLASS: Class = Class {
    kv_heads: Some(4),
    positions: 32_768,
    tied: true,
    theta: 2_000_000.0,
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let reader = decoder::reader(config, &CLASS);
    let mut shape = reader.shape()?;
    reader.attention_bias(&mut shape)?;
    shape.biases.ffn = reader.flag("mlp_bias", false)?;
    let layers = shape.layers.len() as u64;
    let every = reader.size("no_rope_layer_interval")?.unwrap_or(4);
    let turned: Vec<bool> = match config.get("no_rope_layers").filter(|v| !v.is_null()) {
        None => (0..layers)
            .map(|i| !(i + 1).is_multiple_of(every))
            .collect(),
        Some(list) => {
            // Despite its name, a 1 stands for rotary positions.
            let own = list.as_array().filter(|list| list.len() as u64 == layers);
            let own =
                own.and_then(|list| list.iter().map(|x| x.as_u64().map(|x| x != 0)).collect());
            own.ok_or_else(|| {
                format!("config.json has {layers} blocks, and `no_rope_layers` is no list of as many numbers")
            })?
        }
    };
    let used = reader.flag("use_sliding_window", false)?;
    let window = reader.window("sliding_window", None)?.filter(|_| used);
    let slides = reader.slides(layers, |i| {
        window.is_some() && turned.get(i as usize) == Some(&false)
    })?;
    for ((own, slides), turned) in shape.layers.iter_mut().zip(slides).zip(turned) {
        own.window = window.filter(|_| slides);
        own.rope = own.rope.take().filter(|_| turned);
    }
    decoder::model("smollm3", "SmolLM3", shape)
}
