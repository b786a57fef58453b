//! The `config.json` that a GGUF file's metadata stand for.
//!
//! What it says in keys that are not known here goes in under its own name, so that planning warns of it.

use std::collections::BTreeSet;
use std::fs::File;

use serde_json::{Map, Value as Json, json};

use super::header::{Header, Value};
use super::names::Family;
use crate::files::in_memory;
use crate::files::weights::Kind;
use crate::library::data::positioned::read_at;
use crate::program::DType;

/// Keys of an architecture that say nothing of what the model computes, or that are looked at below.
const KNOWN: &[&str] = &[
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "use_parallel_residual",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "rope.scale_linear",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "expert_count",
    "expert_used_count",
];

/// Reads one file's metadata.
struct Reader<'a> {
    header: &'a Header,
    family: &'static Family,
    /// Its tensors' numbers are read from here: of the rotary factors alone.
    file: &'a File,
}

impl Reader<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name)
    }

    /// A count, of which a list has the same for every block.
    fn size(&self, key: &str) -> Result<Option<u64>, String> {
        let key = self.key(key);
        let Some(Value::List(list)) = self.header.metadata.get(&key) else {
            return self.header.size(&key);
        };
        match list.as_slice() {
            [first, rest @ ..] if rest.iter().all(|x| x == first) => match first {
                Value::Int(n) => u64::try_from(*n)
                    .map(Some)
                    .map_err(|_| format!("its `{key}` is {n}")),
                _ => Err(format!("its `{key}` is no list of counts")),
            },
            _ => Err(format!(
                "its `{key}` differs from block to block, which is not built"
            )),
        }
    }

    fn wanted(&self, key: &str) -> Result<u64, String> {
        let missing = || {
            format!(
                "it has no `{}`, which its model needs; convert it again",
                self.key(key)
            )
        };
        self.size(key)?.ok_or_else(missing)
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        self.header.number(&self.key(key))
    }

    /// The numbers of a small tensor in f32.
    fn factors(&self, name: &str) -> Result<Option<Vec<f64>>, String> {
        let Some(tensor) = self.header.tensor(name) else {
            return Ok(None);
        };
        let length = tensor.end - tensor.start;
        if tensor.kind != Kind::Stored(DType::F32.into()) || length > 1 << 16 {
            return Err(format!("its `{name}` is no list of numbers in f32"));
        }
        let mut bytes = vec![0; in_memory(length)];
        read_at(self.file, &mut bytes, tensor.start).map_err(|e| e.to_string())?;
        let all = bytes.as_chunks::<4>().0.iter();
        Ok(Some(
            all.map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        ))
    }

    /// Whether there is a tensor in the first block.
    fn has(&self, name: &str) -> bool {
        self.header.tensor(&format!("blk.0.{name}")).is_some()
    }

    /// The rotary positions.
    fn rotary(&self, map: &mut Map<String, Json>, head: u64) -> Result<(), String> {
        map.insert(
            "rope_theta".into(),
            json!(self.number("rope.freq_base")?.unwrap_or(10_000.0)),
        );
        let turned = self.size("rope.dimension_count")?.unwrap_or(head);
        if turned > head {
            return Err(format!(
                "it turns {turned} columns of heads that have {head}"
            ));
        }
        if turned != head {
            map.insert(
                "partial_rotary_factor".into(),
                json!(turned as f64 / head as f64),
            );
        }
        let kind = self
            .header
            .text(&self.key("rope.scaling.type"))?
            .unwrap_or("none");
        // An older spelling of linear scaling.
        let linear = self.number("rope.scale_linear")?.filter(|x| *x != 1.0);
        let factor = self
            .number("rope.scaling.factor")?
            .filter(|x| *x > 0.0)
            .or(linear);
        let context = self.wanted("context_length")?;
        let first = self.size("rope.scaling.original_context_length")?;
        let attention = self.number("rope.scaling.attn_factor")?;
        let long = self.factors("rope_factors_long.weight")?;
        let short = self.factors("rope_factors_short.weight")?;
        let scaling = if let (Some(long), Some(short)) = (long, short) {
            let first = first
                .ok_or("it has LongRoPE factors, and no `rope.scaling.original_context_length`")?;
            map.insert("original_max_position_embeddings".into(), json!(first));
            let mut own = json!({ "type": "longrope", "long_factor": long, "short_factor": short });
            if let (Some(attention), Some(own)) = (attention, own.as_object_mut()) {
                own.insert("attention_factor".into(), json!(attention));
            }
            own
        } else if let Some(factors) = self.factors("rope_freqs.weight")? {
            // Llama 3's scaling, worked out: frequencies divided by these.
            json!({ "rope_type": "longrope", "long_factor": factors, "short_factor": factors, "factor": 1.0, "attention_factor": 1.0,
                    "original_max_position_embeddings": context })
        } else {
            match (kind, factor) {
                ("none", None) | ("linear", None) => return Ok(()),
                ("none" | "linear", Some(factor)) => {
                    json!({ "rope_type": "linear", "factor": factor })
                }
                ("yarn", Some(factor)) => {
                    let mut own = json!({ "rope_type": "yarn", "factor": factor,
                                          "original_max_position_embeddings": first.unwrap_or(context) });
                    if let (Some(x), Some(own)) =
                        (attention.filter(|x| *x != 1.0), own.as_object_mut())
                    {
                        own.insert(
                            "attention_factor".into(),
                            json!(x * (0.1 * factor.ln() + 1.0)),
                        );
                    }
                    own
                }
                (other, _) => {
                    return Err(format!(
                        "its rotary positions are scaled as `{other}`, which cannot be read from what it holds"
                    ));
                }
            }
        };
        map.insert("rope_scaling".into(), scaling);
        Ok(())
    }

    /// What Gemma's models have beside.
    fn gemma(&self, map: &mut Map<String, Json>, head: u64) -> Result<(), String> {
        if self.family.name == "gemma" {
            return Ok(());
        }
        // llama.cpp has this by the model's size: only the two of 27 billion divide by something else.
        let (layers, hidden) = (
            self.wanted("block_count")?,
            self.wanted("embedding_length")?,
        );
        let heads = self.wanted("attention.head_count")?.max(1);
        let large = if self.family.name == "gemma2" { 46 } else { 62 };
        let scalar = if layers == large {
            hidden / heads
        } else {
            head
        };
        map.insert("query_pre_attn_scalar".into(), json!(scalar));
        if self.family.name == "gemma2" {
            for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
                if let Some(x) = self.number(key)? {
                    map.insert(key.into(), json!(x));
                }
            }
        } else {
            let local = self.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
            map.insert("rope_local_base_freq".into(), json!(local));
            if let Some(every) = self.size("attention.sliding_window_pattern")? {
                map.insert("sliding_window_pattern".into(), json!(every));
            }
        }
        Ok(())
    }

    /// What GPT-NeoX' models have under other names.
    fn gpt_neox(&self, map: &mut Map<String, Json>, head: u64) -> Result<(), String> {
        usual_heads(map)?;
        renamed(map, &[("rms_norm_eps", "layer_norm_eps")]);
        // Without the key the class takes a quarter.
        let turned = self.size("rope.dimension_count")?.unwrap_or(head);
        let share = turned as f64 / head as f64;
        map.insert("partial_rotary_factor".into(), json!(share));
        let beside = self.key("use_parallel_residual");
        let beside = self.header.flag(&beside)?.unwrap_or(true);
        map.insert("use_parallel_residual".into(), json!(beside));
        let bias = self.has("attn_qkv.bias");
        map.insert("attention_bias".into(), json!(bias));
        // The one that llama.cpp computes, whichever it was trained with.
        map.insert("hidden_act".into(), json!("gelu_new"));
        Ok(())
    }

    /// The width of a head, alike for keys and values.
    fn head_width(&self, hidden: u64, heads: u64) -> Result<u64, String> {
        let head = match self.size("attention.key_length")? {
            Some(head) => head,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(format!(
                    "it has {heads} heads, in which a width of {hidden} cannot be split"
                ));
            }
        };
        if self
            .size("attention.value_length")?
            .is_some_and(|n| n != head)
        {
            return Err("its keys and values differ in width, which is not built".to_owned());
        }
        Ok(head)
    }

    /// The sizes and tokens that all families have, and the width of a head.
    fn sizes(&self) -> Result<(Map<String, Json>, u64), String> {
        let (hidden, heads) = (
            self.wanted("embedding_length")?,
            self.wanted("attention.head_count")?,
        );
        let head = self.head_width(hidden, heads)?;
        let rows = self
            .header
            .tensor("token_embd.weight")
            .and_then(|t| t.shape.first().copied());
        let rows = rows.ok_or("it has no tensor `token_embd.weight`: it is no whole model")?;
        let key = match self.family.layer_norm {
            true => "attention.layer_norm_epsilon",
            false => "attention.layer_norm_rms_epsilon",
        };
        let eps = self.number(key)?;
        let eps = eps.ok_or_else(|| format!("it has no epsilon of its norms (`{key}`)"))?;
        let mut map = Map::new();
        let id = |key: &str| self.header.size(&format!("tokenizer.ggml.{key}_token_id"));
        for (key, value) in [
            ("architectures", json!([self.family.lm_class()])),
            ("model_type", json!(self.family.model_type)),
            ("hidden_size", json!(hidden)),
            (
                "intermediate_size",
                json!(self.wanted("feed_forward_length")?),
            ),
            ("num_hidden_layers", json!(self.wanted("block_count")?)),
            ("num_attention_heads", json!(heads)),
            (
                "num_key_value_heads",
                json!(self.size("attention.head_count_kv")?.unwrap_or(heads)),
            ),
            ("head_dim", json!(head)),
            (
                "max_position_embeddings",
                json!(self.wanted("context_length")?),
            ),
            ("rms_norm_eps", json!(shortest(eps))),
            ("vocab_size", json!(rows)),
            (
                "tie_word_embeddings",
                json!(self.header.tensor("output.weight").is_none()),
            ),
            ("bos_token_id", json!(id("bos")?)),
            ("eos_token_id", json!(id("eos")?)),
            ("torch_dtype", json!("float32")),
        ] {
            map.insert(key.to_owned(), value);
        }
        Ok((map, head))
    }

    /// The keys that some families have: windows, biases, factors.
    fn of_family(&self, map: &mut Map<String, Json>, head: u64) -> Result<(), String> {
        let name = self.family.name;
        match self.size("attention.sliding_window")? {
            Some(window) if window > 0 => {
                map.insert("sliding_window".into(), json!(window));
            }
            _ => {}
        }
        if matches!(name, "llama" | "smollm3" | "granite" | "qwen3") {
            map.insert("attention_bias".into(), json!(self.has("attn_q.bias")));
        }
        if matches!(name, "llama" | "smollm3" | "granite") {
            map.insert("mlp_bias".into(), json!(self.has("ffn_up.bias")));
        }
        for (key, own) in [
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        ] {
            if let (Some(x), "granite") = (self.number(key)?, name) {
                map.insert(own.into(), json!(shortest(x)));
            }
        }
        if name.starts_with("gemma") {
            self.gemma(map, head)?;
        }
        Ok(())
    }
}

/// The config of a file's model.
///
/// # Errors
/// An architecture that is not read, or a key that is missing or makes no sense.
pub fn config(header: &Header, file: &File) -> Result<Json, String> {
    let name = header.text("general.architecture")?;
    let name =
        name.ok_or("it has no `general.architecture`: it is no model that llama.cpp could load")?;
    if let Some(kind) = header.text("general.type")?.filter(|kind| *kind != "model") {
        return Err(format!(
            "it is of the type `{kind}`; a whole model is wanted"
        ));
    }
    let family = Family::of(name)?;
    let reader = Reader {
        header,
        family,
        file,
    };
    if reader.size("expert_count")?.is_some_and(|n| n > 0) {
        return Err(
            "its feed-forward networks are mixtures of experts, which are not built".to_owned(),
        );
    }
    let (mut map, head) = reader.sizes()?;
    match family.name {
        "gpt2" => gpt2(&mut map)?,
        "gptneox" => {
            reader.rotary(&mut map, head)?;
            reader.gpt_neox(&mut map, head)?;
        }
        _ => {
            reader.rotary(&mut map, head)?;
            reader.of_family(&mut map, head)?;
        }
    }
    let known: BTreeSet<String> = KNOWN.iter().map(|key| reader.key(key)).collect();
    let prefix = format!("{}.", family.name);
    let unknown = header
        .metadata
        .keys()
        .filter(|k| k.starts_with(&prefix) && !known.contains(*k));
    for key in unknown {
        map.insert(key.clone(), Json::Null);
    }
    Ok(Json::Object(map))
}

/// What GPT-2's models have under other names.
fn gpt2(map: &mut Map<String, Json>) -> Result<(), String> {
    usual_heads(map)?;
    renamed(
        map,
        &[
            ("hidden_size", "n_embd"),
            ("intermediate_size", "n_inner"),
            ("num_hidden_layers", "n_layer"),
            ("num_attention_heads", "n_head"),
            ("max_position_embeddings", "n_positions"),
            ("rms_norm_eps", "layer_norm_epsilon"),
        ],
    );
    map.insert("activation_function".into(), json!("gelu_new"));
    Ok(())
}

/// Takes the widths of heads out of a config whose class knows the usual one alone.
fn usual_heads(map: &mut Map<String, Json>) -> Result<(), String> {
    let size = |key: &str| map.get(key).and_then(Json::as_u64).unwrap_or(0);
    let (heads, hidden) = (size("num_attention_heads"), size("hidden_size"));
    if size("head_dim").checked_mul(heads) != Some(hidden) || size("num_key_value_heads") != heads {
        return Err(format!(
            "it has {heads} heads that are no equal parts of a width of {hidden}, as its architecture has them"
        ));
    }
    map.remove("head_dim");
    map.remove("num_key_value_heads");
    Ok(())
}

/// Keys under other names.
fn renamed(map: &mut Map<String, Json>, names: &[(&str, &str)]) {
    for (from, to) in names {
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
}

/// A number that was written in f32 as the shortest decimal that is read back as the same: 1e-5, not 0.0000099999997.
fn shortest(x: f64) -> f64 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "what f32 rounds is compared"
    )]
    let narrow = x as f32;
    if f64::from(narrow) == x {
        narrow.to_string().parse().unwrap_or(x)
    } else {
        x
    }
}
