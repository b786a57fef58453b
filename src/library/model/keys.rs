//! Every key that the config classes of transformers have, and older versions of them had: used, refused
//! where it asks for what is not built, or without effect on a result, with the reason. A key that is not
//! here is reported.

use serde_json::{Map, Value as Json};

mod encoders;

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// It is followed.
    Used,
    /// Only these values, or its absence, are as if it were not written: others are refused with the reason.
    Only(&'static [Plain], &'static str),
    /// It changes no result, for the reason.
    Idle(
        #[cfg_attr(not(test), expect(dead_code, reason = "for those who read the table"))]
        &'static str,
    ),
}

/// A value that a key may have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plain {
    Null,
    No,
    Text(&'static str),
    /// 0, whole or not.
    Zero,
    /// `{}` or `[]`.
    Empty,
}

impl Plain {
    fn is(self, value: &Json) -> bool {
        match (self, value) {
            (Self::Null, Json::Null) | (Self::No, Json::Bool(false)) => true,
            (Self::Text(wanted), Json::String(found)) => wanted == found,
            (Self::Zero, number) => number.as_f64() == Some(0.0),
            (Self::Empty, Json::Array(list)) => list.is_empty(),
            (Self::Empty, Json::Object(map)) => map.is_empty(),
            _ => false,
        }
    }
}

/// Which config classes have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    All,
    /// BERT's and those like it.
    Bert,
    DistilBert,
    /// Those of encoders.
    Encoders,
    /// Those of decoders.
    Decoders,
    /// Those of encoders and of decoders.
    Single,
    /// Those of encoders with a decoder that reads them.
    Pairs,
    /// Those of these model types.
    These(&'static [&'static str]),
    /// Those of all others.
    Others(&'static [&'static str]),
}

mod pairs;

/// A key, the classes that have it, and what becomes of it.
type Row = (&'static str, On, Rule);

use On::{All, Bert, Decoders, DistilBert, Encoders, Others, Pairs, Single, These};
use Plain::{Empty, No, Null, Text};
use Rule::{Idle, Only, Used};

/// Classes whose positions may be rows of distances.
const RELATIVE: &[&str] = &["bert", "roberta", "xlm-roberta", "camembert", "electra"];

const GENERATION: Rule = Idle("it acts where text is generated");
const OUTPUTS: Rule = Idle("it chooses what a Python call gives back");
const WRITER: Rule = Idle("it says where the file comes from");
const SUMMARY: Rule = Idle("it is of a head with two tasks, which is not built");
const SPEED: Rule = Idle("it chooses how the same is computed");
const NO_DECODER: &str = "each token would see those before it only, which is not built; set it to false if the model is an encoder";

/// Decoders whose activation stands in `hidden_act`.
const LIKE_LLAMA: &[&str] = &[
    "llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "smollm3", "olmo2", "granite",
    "gpt_neox",
];

/// The table.
pub(super) const KEYS: &[Row] = &[
    ("model_type", All, Used),
    ("vocab_size", All, Used),
    ("hidden_size", All, Used),
    ("num_hidden_layers", All, Used),
    ("num_attention_heads", All, Used),
    ("max_position_embeddings", All, Used),
    ("tie_word_embeddings", All, Used),
    ("tokenizer_class", All, Used),
    ("id2label", All, Used),
    ("num_labels", All, Used),
    ("problem_type", All, Used),
    ("ordinal_labels", All, Used),
    ("pad_token_id", All, Used),
    ("is_decoder", Encoders, Only(&[Null, No], NO_DECODER)),
    (
        "is_decoder",
        Decoders,
        Idle("the architecture is one, whatever it says"),
    ),
    ("intermediate_size", Decoders, Used),
    ("num_key_value_heads", Decoders, Used),
    ("head_dim", Decoders, Used),
    ("rms_norm_eps", Decoders, Used),
    ("attention_dropout", Decoders, Used),
    ("rope_theta", Decoders, Used),
    ("rope_scaling", Decoders, Used),
    ("rope_parameters", Decoders, Used),
    ("partial_rotary_factor", Decoders, Used),
    ("original_max_position_embeddings", Decoders, Used),
    ("hidden_act", These(LIKE_LLAMA), Used),
    (
        "hidden_activation",
        These(&["gemma"]),
        Idle("`hidden_act` is what counts"),
    ),
    ("hidden_activation", These(&["gemma2", "gemma3_text"]), Used),
    (
        "hidden_act",
        These(&["gemma2", "gemma3_text"]),
        Idle("`hidden_activation` is what counts"),
    ),
    (
        "attention_bias",
        These(&[
            "llama",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3_text",
            "smollm3",
            "olmo2",
            "granite",
            "gpt_neox",
        ]),
        Used,
    ),
    ("n_embd", These(&["gpt2"]), Used),
    ("n_layer", These(&["gpt2"]), Used),
    ("n_head", These(&["gpt2"]), Used),
    ("n_positions", These(&["gpt2"]), Used),
    ("n_inner", These(&["gpt2"]), Used),
    ("activation_function", These(&["gpt2"]), Used),
    ("layer_norm_epsilon", These(&["gpt2"]), Used),
    ("attn_pdrop", These(&["gpt2"]), Used),
    ("resid_pdrop", These(&["gpt2"]), Used),
    ("embd_pdrop", These(&["gpt2"]), Used),
    ("scale_attn_weights", These(&["gpt2"]), Used),
    ("scale_attn_by_inverse_layer_idx", These(&["gpt2"]), Used),
    ("reorder_and_upcast_attn", These(&["gpt2"]), SPEED),
    (
        "n_ctx",
        These(&["gpt2"]),
        Idle("`n_positions` is what counts"),
    ),
    ("summary_type", These(&["gpt2"]), SUMMARY),
    ("summary_use_proj", These(&["gpt2"]), SUMMARY),
    ("summary_activation", These(&["gpt2"]), SUMMARY),
    ("summary_proj_to_labels", These(&["gpt2"]), SUMMARY),
    ("summary_first_dropout", These(&["gpt2"]), SUMMARY),
    ("layer_norm_eps", These(&["gpt_neox"]), Used),
    ("hidden_dropout", These(&["gpt_neox"]), Used),
    ("use_parallel_residual", These(&["gpt_neox"]), Used),
    ("rotary_pct", These(&["gpt_neox"]), Used),
    ("rotary_emb_base", These(&["gpt_neox"]), Used),
    (
        "classifier_dropout",
        These(&["gpt_neox"]),
        Idle("the head on whole sequences has no dropout"),
    ),
    ("mlp_bias", These(&["llama", "smollm3", "granite"]), Used),
    (
        "sliding_window",
        These(&[
            "mistral",
            "qwen2",
            "qwen3",
            "gemma2",
            "gemma3_text",
            "phi3",
            "smollm3",
        ]),
        Used,
    ),
    (
        "use_sliding_window",
        These(&["qwen2", "qwen3", "smollm3"]),
        Used,
    ),
    ("max_window_layers", These(&["qwen2", "qwen3"]), Used),
    (
        "max_window_layers",
        These(&["smollm3"]),
        Idle("`layer_types` says the same"),
    ),
    (
        "layer_types",
        These(&["qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3"]),
        Used,
    ),
    (
        "query_pre_attn_scalar",
        These(&["gemma2", "gemma3_text"]),
        Used,
    ),
    (
        "attn_logit_softcapping",
        These(&["gemma2", "gemma3_text"]),
        Used,
    ),
    (
        "final_logit_softcapping",
        These(&["gemma2", "gemma3_text"]),
        Used,
    ),
    (
        "use_bidirectional_attention",
        These(&["gemma", "gemma2", "gemma3_text"]),
        Used,
    ),
    ("rope_local_base_freq", These(&["gemma3_text"]), Used),
    ("sliding_window_pattern", These(&["gemma3_text"]), Used),
    (
        "_sliding_window_pattern",
        These(&["gemma3_text"]),
        Idle("`layer_types` says the same"),
    ),
    ("no_rope_layers", These(&["smollm3"]), Used),
    ("no_rope_layer_interval", These(&["smollm3"]), Used),
    ("resid_pdrop", These(&["phi3"]), Used),
    ("embd_pdrop", These(&["phi3"]), Used),
    ("embedding_multiplier", These(&["granite"]), Used),
    ("residual_multiplier", These(&["granite"]), Used),
    ("attention_multiplier", These(&["granite"]), Used),
    ("logits_scaling", These(&["granite"]), Used),
    (
        "pretraining_tp",
        Decoders,
        Idle("it chooses how the same is computed"),
    ),
    ("cache_implementation", Decoders, GENERATION),
    ("default_theta", Decoders, WRITER),
    ("position_embedding_type", These(RELATIVE), Used),
    (
        "position_embedding_type",
        Others(RELATIVE),
        Only(
            &[Null, Text("absolute")],
            "only absolute position embeddings are built",
        ),
    ),
    (
        "pruned_heads",
        All,
        Only(
            &[Null, Empty],
            "blocks with fewer heads than others are not built; take the model as it was before",
        ),
    ),
    (
        "quantization_config",
        All,
        Only(
            &[Null],
            "quantised weights cannot be read; take the model as it was before, or a `revision` that is not quantised",
        ),
    ),
    (
        "auto_map",
        All,
        Only(
            &[Null, Empty],
            "the model is a program of the repository's own, which is not run; if the weights are those of the plain \
             architecture, remove the key",
        ),
    ),
    (
        "adapters",
        All,
        Only(
            &[Null, Empty],
            "adapters inside a model's files cannot be read; fold them in first",
        ),
    ),
    ("label2id", All, Idle("`id2label` says the same")),
    ("_num_labels", All, Idle("`id2label` says the same")),
    (
        "initializer_range",
        All,
        Idle("fresh tensors are drawn by the recipe's seed, with a deviation of their own"),
    ),
    ("init_std", All, Idle("it is for models before training")),
    (
        "dtype",
        All,
        Idle("weights are read in the type that the file has, and held as the recipe says"),
    ),
    (
        "torch_dtype",
        All,
        Idle("weights are read in the type that the file has, and held as the recipe says"),
    ),
    (
        "bos_token_id",
        All,
        Idle("the tokenizer says what stands around a text"),
    ),
    (
        "eos_token_id",
        All,
        Idle("the tokenizer says what stands around a text"),
    ),
    (
        "cls_token_id",
        All,
        Idle("the tokenizer says what stands around a text"),
    ),
    (
        "sep_token_id",
        All,
        Idle("the tokenizer says what stands around a text"),
    ),
    (
        "mask_token_id",
        All,
        Idle("the tokenizer says which token it is"),
    ),
    (
        "unk_token_id",
        All,
        Idle("the tokenizer says which token it is"),
    ),
    ("use_cache", All, SPEED),
    ("chunk_size_feed_forward", All, SPEED),
    ("gradient_checkpointing", All, SPEED),
    ("attn_implementation", All, SPEED),
    ("_attn_implementation", All, SPEED),
    ("_attn_implementation_internal", All, SPEED),
    ("_attn_implementation_autoset", All, SPEED),
    ("experts_implementation", All, SPEED),
    ("_experts_implementation", All, SPEED),
    ("torchscript", All, SPEED),
    ("use_bfloat16", All, SPEED),
    ("tf_legacy_loss", All, SPEED),
    ("xla_device", All, SPEED),
    ("output_attentions", All, OUTPUTS),
    ("output_hidden_states", All, OUTPUTS),
    ("output_past", All, OUTPUTS),
    ("return_dict", All, OUTPUTS),
    ("use_return_dict", All, OUTPUTS),
    ("architectures", All, WRITER),
    ("_name_or_path", All, WRITER),
    ("name_or_path", All, WRITER),
    ("transformers_version", All, WRITER),
    ("_commit_hash", All, WRITER),
    ("finetuning_task", All, WRITER),
    ("language", All, WRITER),
    ("prefix", All, GENERATION),
    ("task_specific_params", All, GENERATION),
    ("max_length", All, GENERATION),
    ("min_length", All, GENERATION),
    ("do_sample", All, GENERATION),
    ("early_stopping", All, GENERATION),
    ("num_beams", All, GENERATION),
    ("num_beam_groups", All, GENERATION),
    ("diversity_penalty", All, GENERATION),
    ("temperature", All, GENERATION),
    ("top_k", All, GENERATION),
    ("top_p", All, GENERATION),
    ("typical_p", All, GENERATION),
    ("repetition_penalty", All, GENERATION),
    ("length_penalty", All, GENERATION),
    ("no_repeat_ngram_size", All, GENERATION),
    ("encoder_no_repeat_ngram_size", All, GENERATION),
    ("bad_words_ids", All, GENERATION),
    ("num_return_sequences", All, GENERATION),
    ("output_scores", All, GENERATION),
    ("return_dict_in_generate", All, GENERATION),
    ("forced_bos_token_id", All, GENERATION),
    ("forced_eos_token_id", All, GENERATION),
    ("remove_invalid_values", All, GENERATION),
    ("exponential_decay_length_penalty", All, GENERATION),
    ("suppress_tokens", All, GENERATION),
    ("begin_suppress_tokens", All, GENERATION),
];

/// All rows.
fn rows() -> impl Iterator<Item = &'static Row> {
    KEYS.iter().chain(encoders::KEYS).chain(pairs::KEYS)
}

/// The rule of a key in the `config.json` of a model type.
fn rule(model_type: &str, key: &str) -> Option<Rule> {
    let on = |on: On| match on {
        All => true,
        Bert => encoders::LIKE_BERT.contains(&model_type),
        DistilBert => model_type == "distilbert",
        Encoders => encoders::TYPES.contains(&model_type),
        Decoders => !encoders::TYPES.contains(&model_type) && !pairs::TYPES.contains(&model_type),
        Single => !pairs::TYPES.contains(&model_type),
        Pairs => pairs::TYPES.contains(&model_type),
        These(types) => types.contains(&model_type),
        Others(types) => !types.contains(&model_type),
    };
    let row = rows().find(|(known, o, _)| *known == key && on(*o));
    row.map(|(_, _, rule)| *rule)
}

/// Refuses what would be another model.
///
/// # Errors
/// The first key that asks for what is not built.
pub(super) fn check(model_type: &str, config: &Map<String, Json>) -> Result<(), String> {
    for (key, value) in config {
        if let Some(Only(plain, why)) = rule(model_type, key)
            && !plain.iter().any(|p| p.is(value))
        {
            return Err(format!("config.json has `{key}` = {value}: {why}"));
        }
    }
    Ok(())
}

/// Keys that are not known.
pub(super) fn unknown(model_type: &str, config: &Map<String, Json>) -> Vec<String> {
    let keys = config.keys().filter(|key| rule(model_type, key).is_none());
    keys.cloned().collect()
}

#[cfg(test)]
mod tests;
