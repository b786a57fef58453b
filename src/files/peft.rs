//! LoRA adapters in the format of the Python library `peft`: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! **Invariant:** what cannot be honoured is refused by the name of its key, never passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::durable;
use super::error::RunError;
use super::tensorfile::{self, RawTensor, TensorFile, TensorSpec};
use crate::program::types::DType;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// Keys that change what an adapter computes and that are not built yet: they must be absent or
/// empty (`null`, `false`, `{}`, `[]`).
const NOT_BUILT: &[&str] = &[
    "rank_pattern",
    "alpha_pattern",
    "use_dora",
    "fan_in_fan_out",
    "layers_to_transform",
    "layer_replication",
    "exclude_modules",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "megatron_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
];

/// Writes an adapter. `tensors` are named below `base_model.model.`; `config` overrides and adds keys.
///
/// # Errors
/// What the file system says; a tensor whose shape and data disagree is a bug.
pub fn write(
    dir: &Path,
    base: &str,
    targets: &[String],
    modules_to_save: &[String],
    config: &[(&str, Json)],
    mut tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
) -> Result<(), RunError> {
    durable::create_dirs(dir)?;
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut specs = Vec::with_capacity(tensors.len());
    for (name, shape, data) in &tensors {
        if shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)) != Some(data.len()) {
            return Err(RunError::bug(format!(
                "tensor `{name}` of shape {shape:?} has {} numbers",
                data.len()
            )));
        }
        let shape = shape.iter().map(|&d| d as u64).collect();
        specs.push(TensorSpec {
            name: format!("{PREFIX}{name}"),
            dtype: DType::F32,
            shape,
        });
    }
    let path = dir.join(TENSORS);
    tensorfile::write_tensors(&path, &specs, Some(("format", "pt")), &mut |i, writer| {
        let (_, _, data) = tensors
            .get(i)
            .ok_or_else(|| RunError::bug("an adapter has fewer tensors than specs"))?;
        writer
            .write_all(bytemuck::cast_slice(data))
            .map_err(|e| durable::failed(&path, "write", &e))
    })?;

    let mut keys: BTreeMap<&str, Json> = BTreeMap::from([
        ("alpha_pattern", json!({})),
        ("auto_mapping", Json::Null),
        ("base_model_name_or_path", json!(base)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("init_lora_weights", json!(true)),
        ("layers_pattern", Json::Null),
        ("layers_to_transform", Json::Null),
        (
            "modules_to_save",
            if modules_to_save.is_empty() {
                Json::Null
            } else {
                json!(sorted(modules_to_save))
            },
        ),
        ("peft_type", json!("LORA")),
        ("rank_pattern", json!({})),
        ("revision", Json::Null),
        ("target_modules", json!(sorted(targets))),
        ("task_type", json!("SEQ_CLS")),
        ("use_dora", json!(false)),
        ("use_rslora", json!(false)),
    ]);
    for (key, value) in config {
        keys.insert(key, value.clone());
    }
    let mut text = serde_json::to_vec_pretty(&keys)
        .map_err(|e| RunError::bug(format!("{CONFIG} cannot be written: {e}")))?;
    text.push(b'\n');
    durable::write_bytes(&dir.join(CONFIG), &text)
}

fn sorted(names: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Which modules an adapter is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Modules whose path is an entry or ends with a dot and an entry.
    Names(Vec<String>),
    /// Modules whose whole path matches.
    Regex(String),
    /// Every linear map but the output head.
    AllLinear,
}

impl Targets {
    /// Those of `modules` that are targets, in their order. For [`Self::AllLinear`] the caller
    /// gives linear maps only, without the head.
    ///
    /// # Errors
    /// The regular expression cannot be read.
    pub fn select<'a>(
        &self,
        modules: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<&'a str>, String> {
        let modules = modules.into_iter();
        Ok(match self {
            Self::AllLinear => modules.collect(),
            Self::Names(names) => modules
                .filter(|path| names.iter().any(|name| ends_with(path, name)))
                .collect(),
            Self::Regex(pattern) => {
                let regex = full_match(pattern)?;
                modules.filter(|path| regex.is_match(path)).collect()
            }
        })
    }

    /// Whether one module is a target.
    ///
    /// # Errors
    /// The regular expression cannot be read.
    pub fn matches(&self, module: &str) -> Result<bool, String> {
        Ok(!self.select([module])?.is_empty())
    }
}

/// Whether a module path is `name` or ends with a dot and `name`.
fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn full_match(pattern: &str) -> Result<Regex, String> {
    // `.` and `$` mean the same as in Python on module paths, which have no line breaks.
    let whole = format!("^(?:{pattern})$");
    match (Regex::new(pattern), Regex::new(&whole)) {
        (Ok(_), Ok(regex)) => Ok(regex),
        _ => Err(format!(
            "`target_modules` is a regular expression that is not understood: `{pattern}`; write the modules as a list"
        )),
    }
}

/// A tensor's shape and its elements.
pub type Floats = (Vec<usize>, Vec<f32>);

/// An adapter's tensors, named as modules of the base model: without `base_model.model.`.
#[derive(Debug)]
pub struct PeftTensors {
    file: TensorFile,
    names: IndexMap<String, String>,
}

impl PeftTensors {
    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// A tensor; `None` if there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        self.file.get(self.names.get(name)?)
    }

    /// A tensor's shape and elements as f32; `None` if there is none of that name.
    ///
    /// # Errors
    /// It holds no floats.
    pub fn f32(&self, name: &str) -> Result<Option<Floats>, RunError> {
        let Some(raw) = self.get(name) else {
            return Ok(None);
        };
        let data = raw
            .to_f32()
            .map_err(|e| RunError::file(self.file.path(), format!("`{name}` {e}")))?;
        Ok(Some((raw.shape.to_vec(), data)))
    }
}

/// A LoRA adapter that was read.
#[derive(Debug)]
pub struct PeftAdapter {
    /// Rank of every pair.
    pub rank: u64,
    /// Alpha: the product counts `alpha / rank` times, `alpha / √rank` with `rs_lora`.
    pub alpha: f64,
    /// Dropout before A while it trained.
    pub dropout: f64,
    /// Rank-stabilised scaling.
    pub rs_lora: bool,
    /// Which modules it is on.
    pub targets: Targets,
    /// Modules that were trained whole, as the config lists them.
    pub modules_to_save: Vec<String>,
    /// Its tensors.
    pub tensors: PeftTensors,
    /// The base model as the config names it; may be empty.
    pub base: String,
}

/// Reads an adapter.
///
/// # Errors
/// A file is missing or damaged, or the config asks for what is not built yet (naming the key).
pub fn read(dir: &Path) -> Result<PeftAdapter, RunError> {
    let path = dir.join(CONFIG);
    let text = fs::read(&path).map_err(|e| durable::failed(&path, "read", &e))?;
    let refuse = |what: String| RunError::file(&path, what);
    let config: Map<String, Json> = serde_json::from_slice(&text)
        .map_err(|e| refuse(format!("this is no JSON object: {e}")))?;
    check_built(&config).map_err(refuse)?;

    let rank = match given(&config, "r") {
        None => 8,
        Some(value) => value
            .as_u64()
            .filter(|&r| r > 0)
            .ok_or_else(|| refuse(format!("`r` must be a whole number above 0, not {value}")))?,
    };
    let number = |key: &str, default: f64| match given(&config, key) {
        None => Ok(default),
        Some(value) => value
            .as_f64()
            .ok_or_else(|| refuse(format!("`{key}` must be a number, not {value}"))),
    };
    let (alpha, dropout) = (number("lora_alpha", 8.0)?, number("lora_dropout", 0.0)?);
    if !(0.0..1.0).contains(&dropout) {
        return Err(refuse(format!(
            "`lora_dropout` must be at least 0 and below 1, not {dropout}"
        )));
    }
    let rs_lora = match given(&config, "use_rslora") {
        None => false,
        Some(value) => value
            .as_bool()
            .ok_or_else(|| refuse(format!("`use_rslora` must be true or false, not {value}")))?,
    };
    let modules_to_save = match given(&config, "modules_to_save") {
        None => Vec::new(),
        Some(value) => strings(value).ok_or_else(|| {
            refuse(format!(
                "`modules_to_save` must be a list of names, not {value}"
            ))
        })?,
    };
    let base = config
        .get("base_model_name_or_path")
        .and_then(Json::as_str)
        .unwrap_or_default()
        .to_owned();
    let tensors = read_tensors(dir)?;
    let targets = match given(&config, "target_modules") {
        None => Targets::Names(tensors.names().filter_map(|n| n.strip_suffix(".lora_A.weight")).map(str::to_owned).collect()),
        Some(Json::String(all)) if all.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
        Some(Json::String(pattern)) => {
            full_match(pattern).map_err(refuse)?;
            Targets::Regex(pattern.clone())
        }
        Some(value) => Targets::Names(strings(value).ok_or_else(|| {
            refuse(format!("`target_modules` must be a list of names, a regular expression or \"all-linear\", not {value}"))
        })?),
    };
    Ok(PeftAdapter {
        rank,
        alpha,
        dropout,
        rs_lora,
        targets,
        modules_to_save,
        tensors,
        base,
    })
}

/// A key's value, if it is there and not null.
fn given<'a>(config: &'a Map<String, Json>, key: &str) -> Option<&'a Json> {
    config.get(key).filter(|value| !value.is_null())
}

fn strings(value: &Json) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn check_built(config: &Map<String, Json>) -> Result<(), String> {
    match given(config, "peft_type") {
        Some(Json::String(kind)) if kind == "LORA" => {}
        Some(other) => {
            return Err(format!(
                "`peft_type` is {other}, which is not built yet; only \"LORA\" is"
            ));
        }
        None => {
            return Err(
                "it has no `peft_type`; an adapter's config says \"LORA\" there".to_owned(),
            );
        }
    }
    match given(config, "bias") {
        None => {}
        Some(Json::String(bias)) if bias == "none" => {}
        Some(other) => {
            return Err(format!(
                "`bias` is {other}, which is not built yet; only \"none\" is"
            ));
        }
    }
    match given(config, "init_lora_weights") {
        None | Some(Json::Bool(_)) => {}
        // These start A and B elsewhere and leave the base weights alone.
        Some(Json::String(init)) if matches!(init.as_str(), "gaussian" | "eva" | "orthogonal") => {}
        Some(other) => {
            return Err(format!(
                "`init_lora_weights` is {other}, which changes the base weights too and is not built yet; convert the \
                 adapter to a plain LoRA with peft's `path_initial_model_for_weight_conversion`"
            ));
        }
    }
    for key in NOT_BUILT {
        let empty = match given(config, key) {
            None | Some(Json::Bool(false)) => true,
            Some(Json::Object(map)) => map.is_empty(),
            Some(Json::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(format!(
                "`{key}` is set, which is not built yet; train or convert the adapter without it"
            ));
        }
    }
    Ok(())
}

fn read_tensors(dir: &Path) -> Result<PeftTensors, RunError> {
    let path = dir.join(TENSORS);
    if !path.exists() && dir.join("adapter_model.bin").exists() {
        return Err(RunError::file(
            dir.join("adapter_model.bin"),
            "this is a pickle, which can run code and is never read; load it with peft and write it again with \
             `model.save_pretrained(dir, safe_serialization=True)`",
        ));
    }
    let file = TensorFile::open(&path)?;
    let mut sorted = file.names();
    sorted.sort_unstable();
    let mut names = IndexMap::with_capacity(sorted.len());
    for name in sorted {
        let Some(plain) = plain_name(&name) else {
            continue;
        };
        if let Some(other) = names.insert(plain, name.clone()) {
            return Err(RunError::file(
                &path,
                format!("`{other}` and `{name}` are two values of one parameter"),
            ));
        }
    }
    names.sort_unstable_keys();
    Ok(PeftTensors { file, names })
}

/// The base model's name of a tensor; `None` for copies of what the base model had.
fn plain_name(name: &str) -> Option<String> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    if name.contains(".original_module.") {
        return None;
    }
    let mut plain = name.to_owned();
    for (found, instead) in [
        (".modules_to_save.default.", "."),
        (".modules_to_save.", "."),
        (".lora_A.default.", ".lora_A."),
        (".lora_B.default.", ".lora_B."),
    ] {
        plain = plain.replace(found, instead);
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
