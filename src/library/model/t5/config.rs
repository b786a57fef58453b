//! What the config of a T5 says.

use serde_json::Value as Json;

use super::super::encoder::{Config, within_bounds};
use super::super::{Facts, LongTexts, Model, Narrowing, Positions};
use super::T5;
use crate::library::counts::to_u32;
use crate::program::op::ActivationKind;

/// Most tokens of a text: distances have no bound, memory has.
const MOST_LENGTH: u64 = 1 << 15;

pub(super) fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let many = config.get("model_type").and_then(Json::as_str) == Some("mt5");
    let reader = Config(config);
    let bounded = |key: &str, default: u64, most: u64| match reader.size_or(key, default)? {
        n if n <= most => Ok(n),
        n => Err(format!(
            "config.json has `{key}` = {n}; at most {most} are built"
        )),
    };
    let (hidden, head, ffn) = (
        reader.size("d_model")?,
        reader.size("d_kv")?,
        reader.size("d_ff")?,
    );
    let heads = bounded("num_heads", if many { 6 } else { 8 }, 1 << 16)?;
    let encoder = reader.size("num_layers")?;
    let decoder = reader.size_or("num_decoder_layers", encoder)?;
    let layers = encoder.saturating_add(decoder);
    let width = heads.saturating_mul(head);
    let vocab = reader.vocabulary()?;
    within_bounds(layers, (hidden, width), ffn, 2 * vocab)?;
    let buckets = to_u32(bounded("relative_attention_num_buckets", 32, 1 << 16)?);
    let furthest = to_u32(bounded("relative_attention_max_distance", 128, 1 << 20)?);
    if buckets < 4 || furthest <= buckets / 2 {
        return Err(format!(
            "config.json has {buckets} buckets of distances up to {furthest}; at least 4 are wanted, and distances beyond half of them"
        ));
    }
    let (gated, activation) = activation(config, many)?;
    let dropout = reader.rate_or("dropout_rate", 0.1)?;
    let eps = reader.number_or("layer_norm_epsilon", 1e-6)?;
    if eps < 0.0 {
        return Err(format!(
            "config.json has `layer_norm_epsilon` = {eps}; a number of at least 0 is wanted"
        ));
    }
    let tied = reader.tied()?;
    let scales = !many && scales(config, tied)?;
    let start = start(config, vocab)?;
    Ok(Box::new(T5 {
        facts: Facts {
            layers,
            blocks: layers,
            hidden,
            embedding: hidden,
            heads,
            vocab,
            max_length: MOST_LENGTH,
            positions: Positions::default(),
            long: LongTexts::default(),
            segments: 0,
            dropout,
            attention_dropout: dropout,
            eps,
            causal: false,
            narrow: Narrowing {
                unit: head,
                prunes: false,
            },
        },
        class: if many { "MT5" } else { "T5" },
        encoder,
        head,
        ffn,
        activation,
        gated,
        buckets,
        furthest,
        tied,
        scale: if scales {
            1.0 / (hidden as f64).sqrt()
        } else {
            1.0
        },
        start,
    }))
}

/// Whether T5's head reads states divided by the root of the width: where it is the table of embeddings, or as newer files
/// say.
fn scales(config: &Json, tied: bool) -> Result<bool, String> {
    match config.get("scale_decoder_outputs") {
        None | Some(Json::Null) => Ok(tied),
        Some(Json::Bool(scales)) => Ok(*scales),
        Some(other) => Err(format!(
            "config.json has `scale_decoder_outputs` = {other}; true or false is wanted"
        )),
    }
}

/// The token that targets begin with.
fn start(config: &Json, vocab: u64) -> Result<u32, String> {
    let there = |key: &&str| config.get(*key).is_some_and(|id| !id.is_null());
    let keys = ["decoder_start_token_id", "pad_token_id"];
    let Some(key) = keys.into_iter().find(there) else {
        return Ok(0);
    };
    match config.get(key).and_then(Json::as_u64) {
        Some(id) if id < vocab => Ok(to_u32(id)),
        _ => Err(format!(
            "config.json has a `{key}` that is no token of the vocabulary, which targets begin with"
        )),
    }
}

/// Whether the feed-forward network is gated, and its activation.
fn activation(config: &Json, many: bool) -> Result<(bool, ActivationKind), String> {
    let usual = if many { "gated-gelu" } else { "relu" };
    let name = match config.get("feed_forward_proj") {
        None => usual,
        Some(Json::String(name)) => name,
        Some(other) => {
            return Err(format!(
                "config.json has `feed_forward_proj` = {other}; the name of an activation is wanted"
            ));
        }
    };
    // The older files mean the approximation by this name.
    let (gated, own) = match name.strip_prefix("gated-") {
        Some("gelu") => (true, "gelu_new"),
        Some(own) => (true, own),
        None => (false, name),
    };
    let named = serde_json::json!({ "feed_forward_proj": own });
    Ok((gated, Config(&named).activation("feed_forward_proj")?))
}
