//! Keys of an encoder's `config.json`.

use serde_json::Value as Json;

use crate::program::op::ActivationKind;

/// Most blocks of a model: a program holds each of them, and the deepest encoders have 48.
const MOST_LAYERS: u64 = 512;
/// Most tokens of a vocabulary: their numbers are results in f32, which holds all whole numbers up to here.
const MOST_TOKENS: u64 = 1 << 24;
/// Most parameters of a model, far more than any machine holds.
const MOST_NUMBERS: u128 = 1_000_000_000_000;

/// Reads keys of a `config.json` and words the complaints.
pub(in super::super) struct Config<'a>(pub &'a Json);

impl Config<'_> {
    /// A required size of at least 1.
    pub(in super::super) fn size(&self, key: &str) -> Result<u64, String> {
        match self.0.get(key).map(|v| (v, v.as_u64())) {
            Some((_, Some(n))) if n > 0 && n <= 1 << 32 => Ok(n),
            Some((v, _)) => Err(format!(
                "config.json has `{key}` = {v}; a whole number of at least 1 is wanted"
            )),
            None => Err(format!("config.json has no `{key}`")),
        }
    }

    /// A size with a default.
    pub(in super::super) fn size_or(&self, key: &str, default: u64) -> Result<u64, String> {
        if self.0.get(key).is_some_and(|v| !v.is_null()) {
            self.size(key)
        } else {
            Ok(default)
        }
    }

    /// A number with a default; `null` counts as absent.
    pub(in super::super) fn number_or(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|x| x.is_finite())
                .ok_or_else(|| format!("config.json has `{key}` = {v}; a number is wanted")),
        }
    }

    /// A dropout rate.
    pub(in super::super) fn rate_or(&self, key: &str, default: f64) -> Result<f64, String> {
        let p = self.number_or(key, default)?;
        if (0.0..1.0).contains(&p) {
            Ok(p)
        } else {
            Err(format!(
                "config.json has `{key}` = {p}; a rate from 0 to below 1 is wanted"
            ))
        }
    }

    /// The activation, which is `gelu` where none is written.
    pub(in super::super) fn activation(&self, key: &str) -> Result<ActivationKind, String> {
        self.activation_or(key, "gelu")
    }

    /// The activation, with a default.
    pub(in super::super) fn activation_or(
        &self,
        key: &str,
        default: &str,
    ) -> Result<ActivationKind, String> {
        let name = match self.0.get(key) {
            None => default,
            Some(Json::String(name)) => name,
            Some(other) => {
                return Err(format!(
                    "config.json has `{key}` = {other}; the name of an activation is wanted"
                ));
            }
        };
        match name {
            "gelu" | "gelu_python" => Ok(ActivationKind::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh"
            | "gelu_accurate" => Ok(ActivationKind::GeluTanh),
            "relu" => Ok(ActivationKind::Relu),
            "silu" | "swish" => Ok(ActivationKind::Silu),
            "tanh" => Ok(ActivationKind::Tanh),
            other => Err(format!(
                "config.json asks for the activation `{other}`, which is not built yet; built are gelu, gelu_new, relu, \
                 silu and tanh"
            )),
        }
    }

    /// The first of several names of a key that is there, else the last.
    pub(in super::super) fn name<'k>(&self, names: &[&'k str]) -> &'k str {
        let there = |name: &&&str| self.0.get(**name).is_some();
        let found = names.iter().find(there).or(names.last());
        found.copied().unwrap_or_default()
    }

    /// Whether the masked-LM head reads the token embedding.
    pub(in super::super) fn tied(&self) -> Result<bool, String> {
        self.flag("tie_word_embeddings", true)
    }

    /// Yes or no, with a default.
    pub(in super::super) fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.0.get(key) {
            None => Ok(default),
            Some(Json::Bool(flag)) => Ok(*flag),
            Some(other) => Err(format!(
                "config.json has `{key}` = {other}; true or false is wanted"
            )),
        }
    }

    /// The tokens of the vocabulary.
    pub(in super::super) fn vocabulary(&self) -> Result<u64, String> {
        let n = self.size("vocab_size")?;
        if n > MOST_TOKENS {
            return Err(format!(
                "config.json has `vocab_size` = {n}; {MOST_TOKENS} tokens are the most that are built"
            ));
        }
        Ok(n)
    }

    /// The addend of the variance in norms, with a default.
    pub(in super::super) fn eps(&self, key: &str, default: f64) -> Result<f64, String> {
        let eps = self.number_or(key, default)?;
        if eps >= 0.0 {
            Ok(eps)
        } else {
            Err(format!(
                "config.json has `{key}` = {eps}; a number of at least 0 is wanted"
            ))
        }
    }
}

/// Whether a model with so many blocks, of this width within and without its attention, is one that can be built.
pub(in super::super) fn within_bounds(
    layers: u64,
    (hidden, width): (u64, u64),
    ffn: u64,
    rows: u64,
) -> Result<(), String> {
    if layers > MOST_LAYERS {
        return Err(format!(
            "config.json has {layers} blocks; {MOST_LAYERS} are the most that are built"
        ));
    }
    let [layers, hidden, width, ffn, rows] = [layers, hidden, width, ffn, rows].map(u128::from);
    let numbers = layers * hidden * (4 * width + 2 * ffn) + rows * hidden;
    if numbers > MOST_NUMBERS {
        return Err(format!(
            "config.json describes a model of about {numbers} parameters; {MOST_NUMBERS} are the most that are built"
        ));
    }
    Ok(())
}
