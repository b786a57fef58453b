//! What the config of a BART, or of one of its kin, says.

use serde_json::Value as Json;

use crate::library::counts::to_u32;

use super::super::super::generate::Rules;
use super::super::encoder::{Config, within_bounds};
use super::super::{Behind, Facts, LongTexts, Model, Narrowing, Positions};
use super::kinds::{KINDS, Kind, Places};
use super::{Bart, Sizes};

/// The model type whose stacks may have tables of their own, and the key that says so.
const MARIAN: &str = "marian";
const SHARES: &str = "share_encoder_decoder_embeddings";

/// Most positions of a text.
const MOST_PLACES: u64 = 1 << 24;

pub(super) fn parse(config: &Json) -> Result<Box<dyn Model>, String> {
    let model_type = config.get("model_type").and_then(Json::as_str);
    let kind = KINDS
        .iter()
        .find(|kind| Some(kind.model_type) == model_type);
    let kind = kind.ok_or_else(|| "config.json has another `model_type`".to_owned())?;
    let reader = Config(config);
    let hidden = size(&reader, "d_model", "hidden_size")?;
    let (encoder, decoder) = (stack(&reader, "encoder")?, stack(&reader, "decoder")?);
    let rows = rows(&reader, kind)?;
    let places = reader.size("max_position_embeddings")?;
    if places > MOST_PLACES {
        return Err(format!(
            "config.json has `max_position_embeddings` = {places}; at most {MOST_PLACES} are built"
        ));
    }
    let padding = padding(config, kind, rows)?;
    let layers = encoder.blocks.saturating_add(decoder.blocks);
    let tables = 2 * (rows[0] + rows[1] + places);
    let ffn = encoder.ffn.max(decoder.ffn);
    within_bounds(layers, (hidden, hidden), ffn, tables)?;
    checked(kind, hidden, [encoder, decoder])?;
    drops_no_layers(config, kind)?;
    let tied = reader.tied()?;
    let shares = kind.model_type != MARIAN || reader.flag(SHARES, true)?;
    let missing = &kind.missing;
    let positions = positions(kind, padding)?;
    Ok(Box::new(Bart {
        facts: Facts {
            layers,
            blocks: layers,
            hidden,
            embedding: hidden,
            heads: encoder.heads,
            vocab: rows[0].max(rows[1]),
            max_length: places,
            positions,
            long: LongTexts::default(),
            segments: 0,
            dropout: reader.rate_or("dropout", 0.1)?,
            attention_dropout: reader.rate_or("attention_dropout", missing.attention_dropout)?,
            eps: 1e-5,
            causal: false,
            narrow: Narrowing {
                unit: hidden / encoder.heads,
                prunes: false,
            },
        },
        kind,
        encoder,
        decoder,
        activation: reader.activation_or("activation_function", missing.activation)?,
        inner_dropout: reader.rate_or("activation_dropout", 0.0)?,
        scale: match reader.flag("scale_embedding", missing.scales)? {
            true => (hidden as f64).sqrt(),
            false => 1.0,
        },
        rows,
        places: places + u64::from(positions.first),
        shared: tied && shares,
        tied,
        padding,
        behind: behind(config, kind, rows[1])?,
        rules: rules(config, kind)?,
    }))
}

/// A size that has two names.
fn size(reader: &Config<'_>, key: &str, other: &str) -> Result<u64, String> {
    let there = reader.0.get(key).is_some_and(|value| !value.is_null());
    let named = if there {
        key
    } else {
        reader.name(&[other, key])
    };
    let own = reader.size(named)?;
    match reader.0.get(other).filter(|value| !value.is_null()) {
        Some(value) if value.as_u64() != Some(own) => Err(format!(
            "config.json has `{key}` = {own} and `{other}` = {value}, which are two names of one size; remove one"
        )),
        _ => Ok(own),
    }
}

/// The sizes of a stack.
fn stack(reader: &Config<'_>, name: &str) -> Result<Sizes, String> {
    let own = |part: &str| format!("{name}_{part}");
    // The others are names of the encoder's.
    let named = |part: &str, other: &str| match name {
        "encoder" => size(reader, &own(part), other),
        _ => reader.size(&own(part)),
    };
    Ok(Sizes {
        blocks: named("layers", "num_hidden_layers")?,
        heads: named("attention_heads", "num_attention_heads")?,
        ffn: reader.size(&own("ffn_dim"))?,
    })
}

/// The tokens of sources, and those of targets.
fn rows(reader: &Config<'_>, kind: &Kind) -> Result<[u64; 2], String> {
    let sources = reader.vocabulary()?;
    if kind.model_type != MARIAN {
        return Ok([sources; 2]);
    }
    let other = serde_json::json!({ "vocab_size": reader.size_or("decoder_vocab_size", sources)? });
    let targets = Config(&other).vocabulary();
    let targets = targets.map_err(|why| why.replace("`vocab_size`", "`decoder_vocab_size`"))?;
    let shares = reader.flag(SHARES, true)?;
    if shares && targets != sources {
        return Err(format!(
            "config.json has `decoder_vocab_size` = {targets} beside `vocab_size` = {sources}, and \
             `{SHARES}` says that encoder and decoder have one table"
        ));
    }
    Ok([sources, targets])
}

/// Refuses widths that no heads divide, or that have no waves.
fn checked(kind: &Kind, hidden: u64, stacks: [Sizes; 2]) -> Result<(), String> {
    for Sizes { heads, .. } in stacks {
        if !hidden.is_multiple_of(heads) || u32::try_from(heads).is_err() {
            return Err(format!(
                "config.json: a width of {hidden} cannot be split into {heads} heads"
            ));
        }
    }
    if matches!(kind.places, Places::BehindPadding) && hidden < 4 {
        return Err(format!(
            "config.json has `d_model` = {hidden}; positions of a `{}` have at least 4 columns",
            kind.model_type
        ));
    }
    Ok(())
}

/// Refuses blocks that are left out at random while training.
fn drops_no_layers(config: &Json, kind: &Kind) -> Result<(), String> {
    let keys = ["encoder_layerdrop", "decoder_layerdrop"];
    let absent = |key: &&str| config.get(*key).is_none();
    match keys.into_iter().find(absent) {
        Some(key) if kind.missing.layerdrop => Err(format!(
            "config.json has no `{key}`, which is 0.05 in a `{}` then: blocks that are left out at random in training are not \
             built; write 0 there",
            kind.model_type
        )),
        _ => Ok(()),
    }
}

/// A token that a key names, or what counts where it is missing; `null` is none.
fn token(config: &Json, key: &str, missing: Option<u64>) -> Result<Option<u64>, String> {
    match config.get(key) {
        None => Ok(missing),
        Some(Json::Null) => Ok(None),
        Some(id) => id.as_u64().map(Some).ok_or_else(|| {
            format!("config.json has `{key}` = {id}; the number of a token is wanted")
        }),
    }
}

/// The token of whose rows lookups learn nothing.
fn padding(config: &Json, kind: &Kind, rows: [u64; 2]) -> Result<Option<u32>, String> {
    let id = token(config, "pad_token_id", Some(kind.missing.padding))?;
    match id {
        Some(id) if id >= rows[0].min(rows[1]) => Err(format!(
            "config.json has `pad_token_id` = {id}, which is no token of the vocabulary"
        )),
        id => Ok(id.map(to_u32)),
    }
}

/// How places are counted.
fn positions(kind: &Kind, padding: Option<u32>) -> Result<Positions, String> {
    let from = |first| Positions {
        first,
        ..Positions::default()
    };
    match kind.places {
        Places::Learned { offset } => Ok(from(offset)),
        Places::Waves => Ok(from(0)),
        Places::BehindPadding => match padding {
            Some(id) => Ok(Positions {
                skips: Some(id),
                ..from(id + 1)
            }),
            None => Err(
                "config.json has no `pad_token_id`, which positions are counted from".to_owned(),
            ),
        },
    }
}

/// What a target that is learned stands behind.
fn behind(config: &Json, kind: &Kind, rows: u64) -> Result<Behind, String> {
    if kind.wraps {
        return Ok(Behind::ItsLast);
    }
    let key = "decoder_start_token_id";
    match token(config, key, kind.missing.start)? {
        Some(id) if id < rows => Ok(Behind::Token(to_u32(id))),
        Some(id) => Err(format!(
            "config.json has `{key}` = {id}, which is no token of the vocabulary, and targets begin with it"
        )),
        None => Err(format!(
            "config.json has no `{key}`, which targets begin with"
        )),
    }
}

/// What the config says of the tokens that are made.
fn rules(config: &Json, kind: &Kind) -> Result<Rules, String> {
    let begin = token(config, "bos_token_id", kind.missing.begin)?;
    let start = token(config, "decoder_start_token_id", kind.missing.start)?;
    let last = match config.get("forced_eos_token_id") {
        None => kind.missing.forced_end.map(to_u32),
        Some(_) => None,
    };
    Ok(Rules {
        start: u32::try_from(start.or(begin).unwrap_or(0)).unwrap_or(u32::MAX),
        last: last.into_iter().collect(),
        ..Rules::default()
    })
}
