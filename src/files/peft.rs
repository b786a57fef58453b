//! Adapters in the format of the Python library `peft`: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! **Invariant:** what cannot be honoured is refused by the name of its key, never passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use serde_json::{Map, Value as Json, json};

use super::durable;
use super::error::RunError;
use super::tensorfile::{self, TensorSpec};
use super::weights::{Kind, TensorFile};
use crate::base::Span;
use crate::library::method::{PeftForm, Product};
use crate::library::model::Model;
use crate::library::peft::{self, Config, Fitted, Floats, Misfit, Stored};
use crate::library::schema::Values;
use crate::library::stage::network::Anatomy;
use crate::program::types::DType;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const OUTERMOST: &str = "base_model";

/// Name of the one tensor of a prompt or prefix, which is of no module.
pub const PROMPT: &str = "prompt_embeddings";
const PREFIX: &str = "base_model.model.";

/// Writes an adapter. `tensors` are named below `base_model`; `config` adds keys, the adapter's type among
/// them, and overrides those that every adapter has.
///
/// # Errors
/// What the file system says; a tensor whose shape and data disagree is a bug.
#[expect(clippy::too_many_arguments, reason = "the parts of the two files")]
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
            name: if name == PROMPT {
                name.clone()
            } else {
                format!("{OUTERMOST}.{name}")
            },
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
        ("auto_mapping", Json::Null),
        ("base_model_name_or_path", json!(base)),
        ("inference_mode", json!(true)),
        (
            "modules_to_save",
            if modules_to_save.is_empty() {
                Json::Null
            } else {
                json!(sorted(modules_to_save))
            },
        ),
        ("revision", Json::Null),
        ("target_modules", json!(sorted(targets))),
        ("task_type", json!("SEQ_CLS")),
    ]);
    for (key, value) in config {
        keys.insert(key, value.clone());
    }
    if tensors.iter().any(|(name, ..)| name == PROMPT) {
        keys.remove("target_modules");
    }
    // Types of peft's that know no such key.
    let saves_none = ["ADAPTION_PROMPT", "TRAINABLE_TOKENS"].map(|kind| json!(kind));
    if keys
        .get("peft_type")
        .is_some_and(|kind| saves_none.contains(kind))
    {
        keys.retain(|key, value| *key != "modules_to_save" || !value.is_null());
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

/// An adapter's tensors, named as modules of the base model: without `base_model.model.`.
#[derive(Debug)]
pub struct PeftTensors {
    file: TensorFile,
    names: IndexMap<String, String>,
}

impl Stored for PeftTensors {
    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[u64]> {
        Some(self.file.get(self.names.get(name)?)?.shape)
    }

    fn numbers(&self, name: &str) -> Result<Floats, String> {
        let raw = self.names.get(name).and_then(|own| self.file.get(own));
        let raw = raw.ok_or("is not there")?;
        let data = match raw.kind {
            Kind::Other(kind) => whole_numbers(kind, raw.bytes)?,
            Kind::Stored(_) => raw.to_f32()?,
        };
        Ok((
            raw.shape.iter().map(|&n| super::in_memory(n)).collect(),
            data,
        ))
    }
}

/// The numbers of a tensor of indices or truth values, all of which f32 has.
fn whole_numbers(kind: &str, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let width = match kind {
        "BOOL" | "U8" | "I8" => 1,
        "U16" | "I16" => 2,
        "U32" | "I32" => 4,
        "U64" | "I64" => 8,
        _ => return Err(format!("is stored as {kind}, which is not read")),
    };
    let each = |number: &[u8]| {
        let mut wide = [0; 8];
        wide.iter_mut()
            .zip(number)
            .for_each(|(to, from)| *to = *from);
        let shift = 64 - 8 * width;
        let number = match kind.starts_with('I') {
            // The sign is in the highest byte.
            true => i128::from((i64::from_le_bytes(wide) << shift) >> shift),
            false => i128::from(u64::from_le_bytes(wide)),
        };
        match number.unsigned_abs() <= 1 << 24 {
            true => Ok(number as f32),
            false => Err(format!("holds {number}, which is out of range")),
        }
    };
    bytes.chunks_exact(width).map(each).collect()
}

/// An adapter that was read.
#[derive(Debug)]
pub struct PeftAdapter {
    /// What its config says.
    pub config: Config,
    /// Its tensors.
    pub tensors: PeftTensors,
}

impl PeftAdapter {
    /// Finds each tensor's place in a model.
    ///
    /// # Errors
    /// The tensors that have none, and the first that is missing.
    pub fn fit(&self, model: &dyn Model, parts: &Anatomy) -> Result<Fitted, Misfit> {
        peft::fit(&self.config, &self.tensors, model, parts)
    }

    /// The pairs of an adapter that fits a model, if it holds nothing but LoRA on linear maps and modules that are saved whole.
    ///
    /// # Errors
    /// What else it holds.
    pub fn pairs(&self, fitted: &Fitted) -> Result<Vec<Lora>, String> {
        if let Some(edited) = fitted.edits.first() {
            return Err(format!("it changes `{}` of the model itself", edited.own));
        }
        if let Some(update) = fitted.head.first() {
            return Err(format!("it has a LoRA on the head's `{}`", update.module));
        }
        let mut pairs = Vec::new();
        for group in &fitted.groups {
            let mut values = Values::default();
            for (key, value) in &group.values {
                values.insert(key, value.clone(), Span::default(), false);
            }
            let form = group.method.peft(&values);
            let set = |form: &PeftForm, key| form.keys.contains(&(key, json!(true)));
            let other = ["use_dora", "lora_bias", "use_bdlora"];
            let plain = form.filter(|f| !other.iter().any(|key| set(f, key)));
            let product = plain.and_then(|form| form.product);
            let product = product.ok_or_else(|| {
                format!(
                    "it is a `{}`, and LoRAs are made one",
                    group.method.schema().name
                )
            })?;
            for module in &group.modules {
                let find = |half: &str| {
                    let own = format!("{module}.lora_{half}.weight");
                    let taken = fitted.tensors.iter().find(|t| t.own == own)?;
                    taken.from.first().cloned()
                };
                let (Some(a), Some(b)) = (find("A"), find("B")) else {
                    return Err(format!("`{module}` has no pair"));
                };
                let module = module.clone();
                pairs.push(Lora {
                    module,
                    a,
                    b,
                    product,
                });
            }
        }
        Ok(pairs)
    }

    /// Whether an adapter that fits a model changes nothing of what it computes.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn is_idle(&self, fitted: &Fitted) -> Result<bool, String> {
        if fitted.idle.is_empty() || !fitted.whole.is_empty() || fitted.acts {
            return Ok(false);
        }
        for (name, value) in &fitted.idle {
            let (_, numbers) = self.tensors.numbers(name)?;
            if numbers.iter().any(|x| x != value) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A pair of LoRA's in a file.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Path of its map in the model.
    pub module: String,
    /// Name of A in the file.
    pub a: String,
    /// Name of B in the file.
    pub b: String,
    /// Rank and factor.
    pub product: Product,
}

/// The two files of an adapter, by which it is known from others.
pub const FILES: [&str; 2] = [CONFIG, TENSORS];

/// Reads an adapter.
///
/// # Errors
/// A file is missing or damaged, or the config asks for what is not built yet (naming the key).
pub fn read(dir: &Path) -> Result<PeftAdapter, RunError> {
    let path = dir.join(CONFIG);
    let text = fs::read(&path).map_err(|e| durable::failed(&path, "read", &e))?;
    let refuse = |what: String| RunError::file(&path, what);
    let json: Map<String, Json> = serde_json::from_slice(&text)
        .map_err(|e| refuse(format!("this is no JSON object: {e}")))?;
    let config = Config::read(&json).map_err(refuse)?;
    let tensors = read_tensors(dir)?;
    Ok(PeftAdapter { config, tensors })
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
    // What stands before the model, as prompts, is not wrapped into a model of peft's own.
    let outer = format!("{OUTERMOST}.");
    let name = name
        .strip_prefix(PREFIX)
        .or(name.strip_prefix(&outer))
        .unwrap_or(name);
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
