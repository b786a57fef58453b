//! Module names, in the words of the families' checkpoints.

/// The names of a family.
#[derive(Debug)]
pub struct Names {
    /// What files of the bare model leave out.
    pub root: &'static str,
    pub table: &'static str,
    /// The table of learned positions, if there is one.
    pub positions: Option<&'static str>,
    /// Whether files hold the matrices of the blocks' linear maps as `[in, out]`.
    pub transposed: bool,
    /// The path before a block's number.
    pub layers: &'static str,
    pub final_norm: &'static str,
    pub head: &'static str,
    /// Within a block: the modules whose results are added to the residual.
    pub attention: &'static str,
    pub ffn: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub qkv: &'static str,
    pub output: &'static str,
    pub query_norm: &'static str,
    pub key_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub gate_up: &'static str,
    pub down: &'static str,
    /// The norm before the attention.
    pub before_attention: &'static str,
    /// The norm behind the attention, or before the feed-forward network where there is no other.
    pub behind_attention: &'static str,
    pub before_ffn: &'static str,
    pub behind_ffn: &'static str,
}

/// LLaMA's, which most families took over.
pub(in super::super) static LLAMA_NAMES: Names = Names {
    root: "model.",
    table: "model.embed_tokens",
    positions: None,
    transposed: false,
    layers: "model.layers",
    final_norm: "model.norm",
    head: "lm_head",
    attention: "self_attn",
    ffn: "mlp",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    qkv: "self_attn.qkv_proj",
    output: "self_attn.o_proj",
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    gate_up: "mlp.gate_up_proj",
    down: "mlp.down_proj",
    before_attention: "input_layernorm",
    behind_attention: "post_attention_layernorm",
    before_ffn: "pre_feedforward_layernorm",
    behind_ffn: "post_feedforward_layernorm",
};
