//! GPT-2 (Radford et al. 2019).

use serde_json::{Value as Json, json};

use super::super::schema::Schema;
use super::decoder::{self, Class, Fused, LLAMA, Names};
use super::{Architecture, Model};

/// The registry's row.
pub(super) static ARCHITECTURE: Architecture = Architecture {
    schema: &SCHEMA,
    model_types: &["gpt2"],
    parse,
};

static SCHEMA: Schema = Schema {
    name: "gpt2",
    summary: "GPT-2 decoders and those of its kind, from Hugging Face checkpoints",
    doc: "Learned positions, layer norms, one map for query, key and value (`attention.qkv`), and a feed-forward network \
          without a gate. Its files hold the matrices of linear maps transposed; they are turned while they are read, and \
          back where a model is written. `model_type` is `gpt2`.",
    paper: "Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
    keys: &[],
};

static NAMES: Names = Names {
    root: "transformer.",
    table: "transformer.wte",
    layers: "transformer.h",
    final_norm: "transformer.ln_f",
    head: "lm_head",
    attention: "attn",
    qkv: "attn.c_attn",
    output: "attn.c_proj",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    before_attention: "ln_1",
    behind_attention: "ln_2",
    positions: Some("transformer.wpe"),
    transposed: true,
    ..decoder::LLAMA_NAMES
};

const CLASS: Class = Class {
    positions: 1024,
    eps: 1e-5,
    activation: ("activation_function", "gelu_new"),
    tied: true,
    ..LLAMA
};

/// The class' own names, and those of other decoders.
const KEYS: &[(&str, &str)] = &[
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
    ("n_inner", "intermediate_size"),
    ("layer_norm_epsilon", "rms_norm_eps"),
    ("attn_pdrop", "attention_dropout"),
];

/// Sizes where none is written.
const USUAL: &[(&str, u64)] = &[
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("num_attention_heads", 12),
    ("vocab_size", 50_257),
];

fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let mut own = serde_json::Map::new();
    let known = |key: &str| config.get(key).filter(|value| !value.is_null());
    for key in ["vocab_size", "activation_function", "tie_word_embeddings"] {
        own.extend(known(key).map(|value| (key.to_owned(), value.clone())));
    }
    for (key, new) in KEYS {
        // Attributes of the class have both names.
        let shared = matches!(
            *new,
            "hidden_size" | "num_hidden_layers" | "num_attention_heads" | "max_position_embeddings"
        );
        let value = known(key).or_else(|| known(new).filter(|_| shared));
        own.extend(value.map(|value| ((*new).to_owned(), value.clone())));
    }
    for (key, size) in USUAL {
        own.entry(*key).or_insert_with(|| json!(size));
    }
    if !own.contains_key("intermediate_size")
        && let Some(hidden) = own.get("hidden_size").and_then(Json::as_u64)
    {
        let ffn = hidden.saturating_mul(4);
        own.insert("intermediate_size".to_owned(), json!(ffn));
    }
    if !own.contains_key("attention_dropout") {
        own.insert("attention_dropout".to_owned(), json!(0.1));
    }
    let own = Json::Object(own);
    let mut shape = decoder::reader(&own, &CLASS).shape()?;
    let reader = decoder::reader(config, &CLASS);
    shape.names = &NAMES;
    shape.layer_norm = true;
    shape.gated = false;
    shape.fused = Fused::Whole;
    shape.biases.qkv = true;
    shape.biases.output = true;
    shape.biases.ffn = true;
    shape.dropout = reader.rate("resid_pdrop", 0.1)?;
    shape.embedding_dropout = reader.rate("embd_pdrop", 0.1)?;
    if !reader.flag("scale_attn_weights", true)? {
        shape.score_scale = 1.0;
    }
    let by_depth = reader.flag("scale_attn_by_inverse_layer_idx", false)?;
    for (layer, own) in shape.layers.iter_mut().enumerate() {
        own.rope = None;
        if by_depth {
            own.score_scale = 1.0 / (layer as f64 + 1.0);
        }
    }
    decoder::model("gpt2", "GPT2", shape)
}
