//! The keys of encoders with a decoder, and those that mean something else there than in other models.

use super::On::{Pairs, Single, These};
use super::Plain::{No, Null, Zero};
use super::Rule::{Idle, Only, Used};
use super::{GENERATION, NO_DECODER, On, Row, Rule, WRITER};

/// Their model types.
pub(super) const TYPES: &[&str] = &[
    "t5",
    "mt5",
    "bart",
    "mbart",
    "marian",
    "pegasus",
    "plbart",
    "blenderbot-small",
    "m2m_100",
];

const T5: On = These(&["t5", "mt5"]);
const BART: On = These(&[
    "bart",
    "mbart",
    "marian",
    "pegasus",
    "plbart",
    "blenderbot-small",
    "m2m_100",
]);

const BY_TYPE: Rule = Idle("the model's type says it");
const NO_LAYERDROP: &str =
    "blocks that are left out at random in training are not built; set it to 0";

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
    ("d_kv", T5, Used),
    ("d_ff", T5, Used),
    ("num_layers", T5, Used),
    ("num_decoder_layers", T5, Used),
    ("num_heads", T5, Used),
    ("relative_attention_num_buckets", T5, Used),
    ("relative_attention_max_distance", T5, Used),
    ("dropout_rate", T5, Used),
    ("layer_norm_epsilon", T5, Used),
    ("feed_forward_proj", T5, Used),
    ("scale_decoder_outputs", T5, Used),
    (
        "is_encoder_decoder",
        Pairs,
        Idle("the architecture is one, whatever it says"),
    ),
    ("is_decoder", Pairs, Only(&[Null, No], NO_DECODER)),
    ("is_gated_act", T5, Idle("`feed_forward_proj` says it")),
    ("dense_act_fn", T5, Idle("`feed_forward_proj` says it")),
    (
        "classifier_dropout",
        Pairs,
        Idle("it is of a head that is not built"),
    ),
    (
        "initializer_factor",
        T5,
        Idle("it is for models before training"),
    ),
    (
        "n_positions",
        T5,
        Idle("positions are distances, which have no bound"),
    ),
    ("head_dim", T5, Idle("it is another name of `d_kv`")),
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
    ("encoder_layers", BART, Used),
    ("encoder_ffn_dim", BART, Used),
    ("encoder_attention_heads", BART, Used),
    ("decoder_layers", BART, Used),
    ("decoder_ffn_dim", BART, Used),
    ("decoder_attention_heads", BART, Used),
    ("activation_function", BART, Used),
    ("dropout", BART, Used),
    ("attention_dropout", BART, Used),
    ("activation_dropout", BART, Used),
    ("scale_embedding", BART, Used),
    ("decoder_vocab_size", These(&["marian"]), Used),
    ("share_encoder_decoder_embeddings", These(&["marian"]), Used),
    ("encoder_layerdrop", BART, Only(&[Null, Zero], NO_LAYERDROP)),
    ("decoder_layerdrop", BART, Only(&[Null, Zero], NO_LAYERDROP)),
    ("normalize_before", BART, BY_TYPE),
    ("normalize_embedding", BART, BY_TYPE),
    ("add_final_layer_norm", BART, BY_TYPE),
    ("add_bias_logits", BART, BY_TYPE),
    ("static_position_embeddings", BART, BY_TYPE),
    ("extra_pos_embeddings", BART, BY_TYPE),
    (
        "classif_dropout",
        BART,
        Idle("it is of a head that is not built"),
    ),
    (
        "force_bos_token_to_be_generated",
        BART,
        Idle("`forced_bos_token_id` is what counts"),
    ),
    ("save_step", BART, WRITER),
];
