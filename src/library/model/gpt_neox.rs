//! GPT-NeoX and Pythia (Black et al. 2022, arXiv 2204.06745; Biderman et al. 2023, arXiv 2304.01373).

use serde_json::{Value as Json, json};

use super::super::schema::Schema;
use super::decoder::{self, Class, Fused, LLAMA, Names};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["gpt_neox"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "gpt_neox",
    summary: "GPT-NeoX decoders such as Pythia, from Hugging Face checkpoints",
    doc: "Layer norms, one map for query, key and value of each head (`attention.qkv`), rotary positions on a part of each \
          head, and attention and feed-forward network side by side where `use_parallel_residual` says so. `model_type` is \
          `gpt_neox`.",
    paper: "Black et al. 2022 (arXiv 2204.06745); Biderman et al. 2023 (arXiv 2304.01373)",
    keys: &[],
};

static NAMES: Names = Names {
    root: "gpt_neox.",
    table: "gpt_neox.embed_in",
    layers: "gpt_neox.layers",
    final_norm: "gpt_neox.final_layer_norm",
    head: "embed_out",
    attention: "attention",
    qkv: "attention.query_key_value",
    output: "attention.dense",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    ..decoder::LLAMA_NAMES
};

const CLASS: Class = Class {
    eps: 1e-5,
    activation: ("hidden_act", "gelu"),
    ..LLAMA
};

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    // Old files have the keys of the rotary positions under names of their own.
    let mut own = config.clone();
    // The class knows no such keys; they would mean something to others.
    for key in ["num_key_value_heads", "head_dim", "rms_norm_eps"] {
        own.as_object_mut().and_then(|keys| keys.remove(key));
    }
    for (old, new) in [
        ("rotary_pct", "partial_rotary_factor"),
        ("rotary_emb_base", "rope_theta"),
        ("layer_norm_eps", "rms_norm_eps"),
    ] {
        if own.get(new).is_none()
            && let Some(value) = config.get(old)
        {
            own[new] = value.clone();
        }
    }
    let partial = "partial_rotary_factor";
    let written = own.pointer("/rope_parameters/partial_rotary_factor");
    if own.get(partial).is_none() && written.is_none() {
        own[partial] = json!(0.25);
    }
    let reader = decoder::reader(&own, &CLASS);
    let mut shape = reader.shape()?;
    shape.names = &NAMES;
    shape.layer_norm = true;
    shape.gated = false;
    shape.fused = Fused::Heads;
    shape.parallel = reader.flag("use_parallel_residual", true)?;
    let bias = reader.flag("attention_bias", true)?;
    shape.biases.qkv = bias;
    shape.biases.output = bias;
    shape.biases.ffn = true;
    shape.dropout = reader.rate("hidden_dropout", 0.0)?;
    shape.embedding_dropout = shape.dropout;
    decoder::model("gpt_neox", "GPTNeoX", shape)
}
