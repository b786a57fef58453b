//! What `config.json` says of a DeBERTa-v2.

use serde_json::Value as Json;

use super::super::encoder::{self, Config, Sizes};
use super::super::{Facts, Model, Narrowing};
use super::{Convolved, Deberta, Pooler};
use crate::library::counts::to_u32;
use crate::library::net::Convolution;
use crate::program::Distances;
use crate::program::op::ActivationKind;

/// Most distances on one side that have a row of their own.
const MOST_DISTANCES: u64 = 1 << 20;

/// Most tokens that a convolution reads at once.
const MOST_CONVOLVED: u64 = 1 << 10;

/// Reads a config.
///
/// # Errors
/// The key that cannot be followed, and why.
pub(super) fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let config = Config(config);
    let plain = encoder::bert_sizes(&config)?;
    let sizes = Sizes {
        embedding: config.size_or("embedding_size", plain.hidden)?,
        eps: config.eps("layer_norm_eps", 1e-7)?,
        head_dropout: config.rate_or("cls_dropout", plain.hidden_dropout)?,
        ..plain
    }
    .checked()?;
    let fixed = [
        (
            "attention_head_size",
            sizes.hidden / sizes.heads,
            "the attention's output map is as wide as the model",
        ),
        (
            "pooler_hidden_size",
            sizes.hidden,
            "the pooler reads states of the blocks, and the head as many",
        ),
    ];
    for (key, wanted, why) in fixed {
        let found = config.size_or(key, wanted)?;
        if found != wanted {
            return Err(format!(
                "config.json has `{key}` = {found}; {wanted} is wanted: {why}"
            ));
        }
    }
    let segments = whole_or(&config, "type_vocab_size", 0)?;
    let segments = u64::try_from(segments).unwrap_or(0);
    let meets = meets(&config)?;
    let relative = config.flag("relative_attention", false)?;
    let read = relative && meets.contains(&true);
    let distances = if read {
        Some(distances(&config, &sizes)?)
    } else {
        None
    };
    let facts = Facts {
        narrow: Narrowing {
            prunes: true,
            ..sizes.narrowing()
        },
        ..sizes.facts(segments)
    };
    Ok(Box::new(Deberta {
        facts,
        distances,
        meets,
        shares: config.flag("share_att_key", false)?,
        normed: is_normed(&config)?,
        biased: config.flag("position_biased_input", true)?,
        padding: padding(&config, &sizes)?,
        legacy: config.flag("legacy", true)?,
        pooler: Pooler {
            dropout: config.rate_or("pooler_dropout", 0.0)?,
            activation: pooler_activation(&config)?,
        },
        convolved: convolved(&config, &sizes)?,
        sizes,
    }))
}

/// A whole number that may be 0 or below.
fn whole_or(config: &Config<'_>, key: &str, default: i64) -> Result<i64, String> {
    match config.0.get(key) {
        None | Some(Json::Null) => Ok(default),
        Some(n) => n
            .as_i64()
            .filter(|n| n.unsigned_abs() <= 1 << 32)
            .ok_or_else(|| format!("config.json has `{key}` = {n}; a whole number is wanted")),
    }
}

/// The convolution behind the first block, if there is one.
fn convolved(config: &Config<'_>, sizes: &Sizes) -> Result<Option<Convolved>, String> {
    let width = whole_or(config, "conv_kernel_size", 0)?;
    let Some(width) = u64::try_from(width).ok().filter(|&n| n > 0) else {
        return Ok(None);
    };
    if width % 2 == 0 || width > MOST_CONVOLVED {
        return Err(format!(
            "config.json has `conv_kernel_size` = {width}; an odd number of at most {MOST_CONVOLVED} is wanted, whose middle token a row stands for"
        ));
    }
    let groups = config.size_or("conv_groups", 1)?;
    if groups == 0 || !sizes.hidden.is_multiple_of(groups) {
        return Err(format!(
            "config.json has `conv_groups` = {groups}; a number that divides `hidden_size` = {} is wanted",
            sizes.hidden
        ));
    }
    Ok(Some(Convolved {
        of: Convolution {
            rows: sizes.hidden,
            width,
            groups,
        },
        activation: config.activation_or("conv_act", "tanh")?,
    }))
}

/// Whether queries meet distances (`c2p`), and keys (`p2c`).
fn meets(config: &Config<'_>) -> Result<[bool; 2], String> {
    let wrong = |found: &Json| {
        format!(
            "config.json has `pos_att_type` = {found}; built are `c2p` and `p2c`, joined by `|` or in a list"
        )
    };
    let names: Vec<String> = match config.0.get("pos_att_type") {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::String(text)) => {
            let lower = text.to_lowercase();
            lower
                .split('|')
                .map(|name| name.trim().to_owned())
                .collect()
        }
        Some(list @ Json::Array(names)) => {
            let name = |name: &Json| name.as_str().map(str::to_owned);
            names
                .iter()
                .map(name)
                .collect::<Option<_>>()
                .ok_or_else(|| wrong(list))?
        }
        Some(other) => return Err(wrong(other)),
    };
    // The class passes over `p2p`, which older files have.
    let known = ["c2p", "p2c", "p2p", "none", ""];
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(wrong(&Json::String(name.clone())));
    }
    Ok(["c2p", "p2c"].map(|kind| names.iter().any(|name| name == kind)))
}

/// The bucket of each distance.
fn distances(config: &Config<'_>, sizes: &Sizes) -> Result<Distances, String> {
    let written = whole_or(config, "max_relative_positions", -1)?;
    let furthest = match u64::try_from(written) {
        Ok(n) if n > 0 => n,
        _ => sizes.positions,
    };
    let buckets = whole_or(config, "position_buckets", -1)?;
    let side = match u64::try_from(buckets) {
        Ok(n) if n > 0 => n,
        _ => furthest,
    };
    if side > MOST_DISTANCES || furthest > MOST_DISTANCES {
        return Err(format!(
            "config.json asks for {} distances on one side; {MOST_DISTANCES} are the most that are built",
            side.max(furthest)
        ));
    }
    if buckets <= 0 {
        return Ok(Distances::centred(to_u32(side), 0));
    }
    if buckets == 1 {
        return Err(
            "config.json has `position_buckets` = 1; one bucket on a side cannot be halved"
                .to_owned(),
        );
    }
    // The logarithm of 1 stands below the line.
    if furthest - 1 == side / 2 && sizes.positions > furthest {
        return Err(format!(
            "config.json has `position_buckets` = {side}, and distances up to {furthest}: where the half of one is the other but for \
             1, no bucket is defined for distances beyond"
        ));
    }
    Ok(Distances::centred(to_u32(side), to_u32(furthest)))
}

/// Whether a norm stands behind the table of distances.
fn is_normed(config: &Config<'_>) -> Result<bool, String> {
    match config.0.get("norm_rel_ebd") {
        None => Ok(false),
        Some(Json::String(text)) => {
            let lower = text.to_lowercase();
            Ok(lower.split('|').any(|name| name.trim() == "layer_norm"))
        }
        Some(other) => Err(format!(
            "config.json has `norm_rel_ebd` = {other}; `layer_norm` or `none` is wanted"
        )),
    }
}

/// The padding token, if there is one: looking up its row teaches it nothing.
fn padding(config: &Config<'_>, sizes: &Sizes) -> Result<Option<u32>, String> {
    if config.0.get("pad_token_id").is_some_and(Json::is_null) {
        return Ok(None);
    }
    encoder::padding(config, sizes, 0).map(|id| Some(to_u32(id)))
}

fn pooler_activation(config: &Config<'_>) -> Result<ActivationKind, String> {
    config.activation("pooler_hidden_act")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_built_is_refused_by_its_key() {
        let plain = json!({
            "model_type": "deberta-v2", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 8, "max_position_embeddings": 64, "relative_attention": true, "pos_att_type": "p2c|c2p",
        });
        assert!(parse(&plain).is_ok());
        for (key, value) in [
            ("conv_kernel_size", json!(2)),
            ("conv_kernel_size", json!(4097)),
            ("conv_groups", json!(3)),
            ("conv_act", json!("mish")),
            ("pos_att_type", json!(["c2p", "x"])),
            ("pos_att_type", json!(1)),
            ("norm_rel_ebd", json!(null)),
            ("attention_head_size", json!(4)),
            ("pooler_hidden_size", json!(8)),
            ("position_buckets", json!(1)),
            ("position_buckets", json!(126)),
            ("max_relative_positions", json!("far")),
            ("pad_token_id", json!(50)),
            ("pooler_hidden_act", json!("mish")),
        ] {
            let mut config = plain.clone();
            config[key] = value;
            if key == "conv_groups" || key == "conv_act" {
                config["conv_kernel_size"] = json!(3);
            }
            if key == "position_buckets" {
                config["max_relative_positions"] = json!(64);
                config["max_position_embeddings"] = json!(128);
            }
            let said = parse(&config).err().unwrap_or_default();
            assert!(
                said.contains(&format!("`{key}`")) || said.contains("activation"),
                "{key}: {said}"
            );
        }
    }
}
