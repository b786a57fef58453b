//! The keys of encoders with a decoder, and those that mean something else there than in other models.

use super::On::{Pairs, Single};
use super::Plain::{No, Null};
use super::Rule::{Idle, Only, Used};
use super::{GENERATION, NO_DECODER, Row};

/// Their model types.
pub(super) const TYPES: &[&str] = &["t5", "mt5"];

const NO_CROSS: &str = "attention to another model's states is not built; set it to false";
const NO_TIED_STACKS: &str =
    "encoder and decoder would be one stack, which is not built; set it to false";

/// The table.
pub(super) const KEYS: &[Row] = &[
    ("add_cross_attention", Single, Only(&[Null, No], NO_CROSS)),
    ("is_encoder_decoder", Single, Only(&[Null, No], NO_CROSS)),
    (
        "cross_attention_hidden_size",
        Single,
        Only(&[Null], NO_CROSS),
    ),
    ("tie_encoder_decoder", Single, Idle("there is no decoder")),
    ("decoder_start_token_id", Single, GENERATION),
    (
        "tie_encoder_decoder",
        Pairs,
        Only(&[Null, No], NO_TIED_STACKS),
    ),
    ("decoder_start_token_id", Pairs, Used),
    ("d_model", Pairs, Used),
    ("d_kv", Pairs, Used),
    ("d_ff", Pairs, Used),
    ("num_layers", Pairs, Used),
    ("num_decoder_layers", Pairs, Used),
    ("num_heads", Pairs, Used),
    ("relative_attention_num_buckets", Pairs, Used),
    ("relative_attention_max_distance", Pairs, Used),
    ("dropout_rate", Pairs, Used),
    ("layer_norm_epsilon", Pairs, Used),
    ("feed_forward_proj", Pairs, Used),
    ("scale_decoder_outputs", Pairs, Used),
    (
        "is_encoder_decoder",
        Pairs,
        Idle("the architecture is one, whatever it says"),
    ),
    ("is_decoder", Pairs, Only(&[Null, No], NO_DECODER)),
    ("is_gated_act", Pairs, Idle("`feed_forward_proj` says it")),
    ("dense_act_fn", Pairs, Idle("`feed_forward_proj` says it")),
    (
        "classifier_dropout",
        Pairs,
        Idle("it is of a head that is not built"),
    ),
    (
        "initializer_factor",
        Pairs,
        Idle("it is for models before training"),
    ),
    (
        "n_positions",
        Pairs,
        Idle("positions are distances, which have no bound"),
    ),
    ("head_dim", Pairs, Idle("it is another name of `d_kv`")),
    (
        "add_cross_attention",
        Pairs,
        Idle("the architecture is one, whatever it says"),
    ),
    (
        "cross_attention_hidden_size",
        Pairs,
        Only(&[Null], NO_CROSS),
    ),
];
