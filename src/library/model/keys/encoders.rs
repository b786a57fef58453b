//! Keys that classes of encoders alone have.

use super::On::{Bert, DistilBert, These};
use super::Plain::{Null, Text};
use super::Rule::{Idle, Only, Used};
use super::{Row, Rule, SPEED, WRITER};

/// The model types of encoders.
pub(super) const TYPES: &[&str] = &[
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "albert",
    "modernbert",
    "xlm-roberta-xl",
    "mpnet",
    "deberta-v2",
];

/// Those whose classes have BERT's names of keys.
pub(super) const LIKE_BERT: &[&str] = &[
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "electra",
    "albert",
    "xlm-roberta-xl",
    "mpnet",
    "deberta-v2",
];

const MPNET: super::On = These(&["mpnet"]);
const DEBERTA: super::On = These(&["deberta-v2"]);
const MODERN: super::On = These(&["modernbert"]);
const NO_POOLER: Rule = Idle("the pooler is one layer, as wide as the model and without attention");
const UNREAD: Rule = Idle("no class of transformers reads it");

/// The rows.
pub(super) const KEYS: &[Row] = &[
    // Rows of one class come before those of many.
    (
        "type_vocab_size",
        MPNET,
        Idle("the class has no segments, whatever it says"),
    ),
    ("relative_attention_num_buckets", MPNET, Used),
    ("relative_attention", DEBERTA, Used),
    ("position_buckets", DEBERTA, Used),
    ("max_relative_positions", DEBERTA, Used),
    ("pos_att_type", DEBERTA, Used),
    ("share_att_key", DEBERTA, Used),
    ("norm_rel_ebd", DEBERTA, Used),
    ("position_biased_input", DEBERTA, Used),
    ("embedding_size", DEBERTA, Used),
    ("attention_head_size", DEBERTA, Used),
    ("conv_kernel_size", DEBERTA, Used),
    ("conv_act", DEBERTA, Used),
    ("conv_groups", DEBERTA, Used),
    ("pooler_hidden_size", DEBERTA, Used),
    ("pooler_dropout", DEBERTA, Used),
    ("pooler_hidden_act", DEBERTA, Used),
    ("cls_dropout", DEBERTA, Used),
    ("legacy", DEBERTA, Used),
    (
        "padding_idx",
        DEBERTA,
        Idle("`pad_token_id` is what counts"),
    ),
    ("intermediate_size", Bert, Used),
    ("hidden_act", Bert, Used),
    ("hidden_dropout_prob", Bert, Used),
    ("attention_probs_dropout_prob", Bert, Used),
    ("type_vocab_size", Bert, Used),
    ("layer_norm_eps", Bert, Used),
    (
        "classifier_dropout",
        These(&[
            "bert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "electra",
            "modernbert",
            "xlm-roberta-xl",
        ]),
        Used,
    ),
    ("classifier_dropout_prob", These(&["albert"]), Used),
    ("embedding_size", These(&["electra", "albert"]), Used),
    ("num_hidden_groups", These(&["albert"]), Used),
    ("inner_group_num", These(&["albert"]), Used),
    ("down_scale_factor", These(&["albert"]), UNREAD),
    ("gap_size", These(&["albert"]), UNREAD),
    ("net_structure_type", These(&["albert"]), UNREAD),
    ("num_memory_blocks", These(&["albert"]), UNREAD),
    ("layers_to_keep", These(&["albert"]), UNREAD),
    ("summary_type", These(&["electra"]), Used),
    ("summary_use_proj", These(&["electra"]), Used),
    ("summary_activation", These(&["electra"]), Used),
    ("summary_last_dropout", These(&["electra"]), Used),
    ("summary_proj_to_labels", These(&["electra"]), Used),
    ("intermediate_size", MODERN, Used),
    ("hidden_activation", MODERN, Used),
    ("norm_eps", MODERN, Used),
    ("norm_bias", MODERN, Used),
    ("attention_bias", MODERN, Used),
    ("attention_dropout", MODERN, Used),
    ("layer_types", MODERN, Used),
    ("global_attn_every_n_layers", MODERN, Used),
    ("local_attention", MODERN, Used),
    ("sliding_window", MODERN, Used),
    ("rope_parameters", MODERN, Used),
    ("rope_scaling", MODERN, Used),
    ("global_rope_theta", MODERN, Used),
    ("local_rope_theta", MODERN, Used),
    ("embedding_dropout", MODERN, Used),
    ("mlp_bias", MODERN, Used),
    ("mlp_dropout", MODERN, Used),
    ("decoder_bias", MODERN, Used),
    ("classifier_pooling", MODERN, Used),
    ("classifier_bias", MODERN, Used),
    ("classifier_activation", MODERN, Used),
    (
        "initializer_cutoff_factor",
        MODERN,
        Idle("it is for models before training"),
    ),
    ("deterministic_flash_attn", MODERN, SPEED),
    ("reference_compile", MODERN, SPEED),
    ("repad_logits_with_grad", MODERN, SPEED),
    ("sparse_prediction", MODERN, SPEED),
    ("sparse_pred_ignore_index", MODERN, SPEED),
    ("layer_norm_eps", MODERN, Idle("`norm_eps` is what counts")),
    ("default_theta", MODERN, WRITER),
    ("dim", DistilBert, Used),
    ("n_layers", DistilBert, Used),
    ("n_heads", DistilBert, Used),
    ("hidden_dim", DistilBert, Used),
    ("dropout", DistilBert, Used),
    ("attention_dropout", DistilBert, Used),
    ("activation", DistilBert, Used),
    ("seq_classif_dropout", DistilBert, Used),
    (
        "sinusoidal_pos_embds",
        DistilBert,
        Idle("the table lies in the weights either way"),
    ),
    ("qa_dropout", DistilBert, Used),
    (
        "tie_weights_",
        DistilBert,
        Idle("`tie_word_embeddings` is what counts"),
    ),
    (
        "pooler_type",
        Bert,
        Only(
            &[Null, Text("first_token_transform")],
            "only the first token is pooled",
        ),
    ),
    ("directionality", Bert, WRITER),
    ("pooler_fc_size", Bert, NO_POOLER),
    ("pooler_num_attention_heads", Bert, NO_POOLER),
    ("pooler_num_fc_layers", Bert, NO_POOLER),
    ("pooler_size_per_head", Bert, NO_POOLER),
];
