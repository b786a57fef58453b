//! What GGUF's metadata say of a model that is written: the opposite of [`super::config`].

use serde_json::Value as Json;

use super::names::Family;
use super::types;
use super::write::{Meta, Metadata, Planned};
use crate::library::model::{Layer, Rope, Shape};
use crate::library::net::Param;
use crate::program::Format;
use crate::program::op::ActivationKind;

/// A tensor beside the model's own: factors of rotary frequencies.
pub type Factors = (&'static str, Vec<f32>);

/// Metadata and tensors of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The metadata, but for the tokenizer's.
    pub metadata: Metadata,
    /// Tensors beside the model's own.
    pub factors: Vec<Factors>,
}

/// Collects metadata of one architecture.
struct Keys {
    family: &'static Family,
    made: Described,
}

impl Keys {
    fn put(&mut self, key: &str, value: Meta) {
        let key = format!("{}.{key}", self.family.name);
        self.made.metadata.push((key, value));
    }

    fn count(&mut self, key: &str, n: u64) -> Result<(), String> {
        let n = u32::try_from(n).map_err(|_| format!("GGUF holds no {key} of {n}"))?;
        self.put(key, Meta::U32(n));
        Ok(())
    }

    fn number(&mut self, key: &str, x: f64) {
        self.put(key, Meta::F32(narrow(x)));
    }
}

/// What is said of a model whose matrices are stored in a format.
///
/// # Errors
/// What of the model llama.cpp has no name for.
pub fn describe(
    family: &'static Family,
    shape: &Shape,
    (config, name): (&Json, &str),
    format: Format,
) -> Result<Described, String> {
    let metadata = vec![
        (
            "general.architecture".to_owned(),
            Meta::Text(family.name.to_owned()),
        ),
        ("general.type".to_owned(), Meta::Text("model".to_owned())),
        ("general.name".to_owned(), Meta::Text(name.to_owned())),
    ];
    let mut keys = Keys {
        family,
        made: Described {
            metadata,
            factors: Vec::new(),
        },
    };
    keys.count("context_length", shape.positions)?;
    keys.count("embedding_length", shape.hidden)?;
    keys.count("block_count", shape.layers.len() as u64)?;
    keys.count("feed_forward_length", shape.ffn)?;
    keys.count("attention.head_count", shape.heads)?;
    keys.count("attention.head_count_kv", shape.kv_heads)?;
    keys.count("attention.key_length", shape.head)?;
    keys.count("attention.value_length", shape.head)?;
    keys.count("vocab_size", shape.vocab)?;
    let eps = match family.layer_norm {
        true => "attention.layer_norm_epsilon",
        false => "attention.layer_norm_rms_epsilon",
    };
    keys.number(eps, shape.eps);
    computes(family, shape)?;
    windows(&mut keys, shape)?;
    if family.name != "gpt2" {
        rotary(&mut keys, shape, config)?;
    }
    if family.name == "gptneox" {
        keys.put("use_parallel_residual", Meta::Bool(shape.parallel));
    }
    if family.name == "granite" {
        keys.number("attention.scale", shape.score_scale);
        keys.number("embedding_scale", shape.embedding_scale);
        keys.number("residual_scale", shape.residual_scale);
        keys.number("logit_scale", 1.0 / shape.logit_scale);
    }
    if family.name == "gemma2" {
        keys.number("attn_logit_softcapping", shape.score_cap.unwrap_or(0.0));
        keys.number("final_logit_softcapping", shape.logit_cap.unwrap_or(0.0));
    }
    let number =
        types::file_type(format).ok_or_else(|| format!("GGUF has no type of files in {format}"))?;
    let made = &mut keys.made.metadata;
    made.push(("general.file_type".to_owned(), Meta::U32(number)));
    made.push(("general.quantization_version".to_owned(), Meta::U32(2)));
    Ok(keys.made)
}

/// Whether llama.cpp computes what the model does: it knows these parts by the architecture's name alone.
fn computes(family: &Family, shape: &Shape) -> Result<(), String> {
    let gemma = family.name.starts_with("gemma");
    let name = family.name;
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
    let wanted = if gemma || family.layer_norm {
        ActivationKind::GeluTanh
    } else {
        ActivationKind::Silu
    };
    if shape.activation != wanted && !(name == "gptneox" && is_gelu(shape.activation)) {
        return Err(format!(
            "llama.cpp's `{name}` has another activation than this model"
        ));
    }
    if name == "gptneox" && (shape.tied || !shape.biases.qkv) {
        return Err(
            "llama.cpp's `gptneox` has a head and biases of the attention, and this model has not both of them"
                .to_owned(),
        );
    }
    let layers = shape.layers.len() as u64;
    let score = match name {
        "granite" => shape.score_scale,
        "gemma2" if layers == 46 => (shape.hidden as f64 / shape.heads as f64).powf(-0.5),
        "gemma3" if layers == 62 => (shape.hidden as f64 / shape.heads as f64).powf(-0.5),
        _ => (shape.head as f64).powf(-0.5),
    };
    if !close(shape.score_scale, score) {
        return Err(format!(
            "llama.cpp's `{name}` scales scores by {score}, and this model by {}",
            shape.score_scale
        ));
    }
    if shape.layers.iter().any(|own| !close(own.score_scale, 1.0)) {
        return Err(format!(
            "llama.cpp's `{name}` scales the scores of all blocks alike, and this model those of each block by its number"
        ));
    }
    let embedding = if gemma {
        (shape.hidden as f64).sqrt()
    } else {
        1.0
    };
    let plain = name == "granite"
        || (shape.embedding_scale / embedding - 1.0).abs() < 1e-2
            && close(shape.residual_scale, 1.0)
            && close(shape.logit_scale, 1.0);
    let caps = name == "gemma2" || shape.score_cap.is_none() && shape.logit_cap.is_none();
    if !plain || !caps {
        return Err(format!(
            "llama.cpp's `{name}` has no such factors or soft caps as this model"
        ));
    }
    Ok(())
}

/// Whether an activation is GELU, exact or by tanh: llama.cpp's GPT-NeoX has the second, whichever the model was trained
/// with. They differ by 5e-4 at most.
pub(super) const fn is_gelu(kind: ActivationKind) -> bool {
    matches!(kind, ActivationKind::Gelu | ActivationKind::GeluTanh)
}

/// The windows of blocks.
fn windows(keys: &mut Keys, shape: &Shape) -> Result<(), String> {
    let name = keys.family.name;
    let list: Vec<Option<u32>> = shape.layers.iter().map(|l| l.window).collect();
    let Some(window) = list.iter().flatten().next().copied() else {
        return Ok(());
    };
    // A window over all that a text may have is none.
    if list
        .iter()
        .flatten()
        .all(|&w| u64::from(w) >= shape.positions)
    {
        return Ok(());
    }
    let pattern: Box<dyn Fn(usize) -> bool> = match name {
        "gemma2" => Box::new(|i| i.is_multiple_of(2)),
        "gemma3" => Box::new(|i| !(i + 1).is_multiple_of(6)),
        "phi3" => Box::new(|_| true),
        _ => {
            return Err(format!(
                "llama.cpp's `{name}` has no windows (`sliding_window`), and this model has"
            ));
        }
    };
    let alike = list
        .iter()
        .enumerate()
        .all(|(i, w)| *w == pattern(i).then_some(window));
    if !alike {
        return Err(format!(
            "llama.cpp's `{name}` has windows in other blocks than this model"
        ));
    }
    keys.count("attention.sliding_window", window.into())
}

/// Frequencies as a base, and factors by which they are divided; all of them 1 where there is no scaling.
fn factored(rope: &Rope) -> Option<(f64, Vec<f64>)> {
    let (first, second) = (*rope.inverse.first()?, *rope.inverse.get(1).unwrap_or(&1.0));
    let turned = 2.0 * rope.inverse.len() as f64;
    let base = (second / first).powf(-turned / 2.0);
    let plain = |i: usize| base.powf(-2.0 * i as f64 / turned);
    let all = rope.inverse.iter().enumerate();
    Some((base, all.map(|(i, x)| plain(i) / x).collect()))
}

/// The rotary positions of a model: those of blocks that see all, and those of blocks with a window of gemma3, which have
/// a base of their own.
fn ropes<'a>(name: &str, shape: &'a Shape) -> Result<(&'a Rope, Option<&'a Rope>), String> {
    let turned = |i: usize| name != "smollm3" || !(i + 1).is_multiple_of(4);
    let each = shape.layers.iter().enumerate();
    if each.clone().any(|(i, l)| l.rope.is_some() != turned(i)) {
        return Err(format!(
            "llama.cpp's `{name}` has rotary positions in other blocks than this model"
        ));
    }
    let local = |l: &&Layer| name == "gemma3" && l.window.is_some();
    let global: Vec<&Rope> = shape
        .layers
        .iter()
        .filter(|l| !local(l))
        .filter_map(|l| l.rope.as_ref())
        .collect();
    let mut near = shape
        .layers
        .iter()
        .filter(local)
        .filter_map(|l| l.rope.as_ref());
    let near = near.next();
    let Some(rope) = global.first().copied().or(near) else {
        return Err("its blocks have no rotary positions".to_owned());
    };
    if global.iter().any(|r| *r != rope) {
        return Err("its blocks have different rotary positions".to_owned());
    }
    Ok((rope, near))
}

/// A number as GGUF stores it.
#[allow(clippy::cast_possible_truncation, reason = "the format has f32 alone")]
const fn narrow(x: f64) -> f32 {
    x as f32
}

/// The positions that a model was trained on before they were scaled.
fn positions(x: f64) -> Result<u64, String> {
    if x.fract() != 0.0 || !(1.0..=f64::from(u32::MAX)).contains(&x) {
        return Err(format!(
            "its `original_max_position_embeddings` is {x}, which is no number of positions"
        ));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and in range"
    )]
    Ok(x as u64)
}

/// What a config says of the scaling of its rotary positions.
struct Scaling<'a> {
    config: &'a Json,
    own: Option<&'a Json>,
}

impl<'a> Scaling<'a> {
    fn of(config: &'a Json) -> Self {
        let own = config
            .get("rope_scaling")
            .or_else(|| config.get("rope_parameters"));
        Self { config, own }
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.own?.get(key)?.as_f64()
    }

    fn kind(&self) -> Option<&'a str> {
        let own = self.own?;
        own.get("rope_type").or_else(|| own.get("type"))?.as_str()
    }

    /// The base that is written.
    fn base(&self) -> Option<f64> {
        let own = self.number("rope_theta");
        own.or_else(|| self.config.get("rope_theta").and_then(Json::as_f64))
    }

    fn list(&self, key: &str) -> Option<Vec<f32>> {
        let list = self.own?.get(key)?.as_array()?;
        list.iter().map(|x| x.as_f64().map(narrow)).collect()
    }

    /// Whether a key is there and says something.
    fn says(&self, key: &str) -> bool {
        let value = self.own.and_then(|own| own.get(key));
        value.is_some_and(|value| !value.is_null())
    }
}

/// The rotary positions.
fn rotary(keys: &mut Keys, shape: &Shape, config: &Json) -> Result<(), String> {
    let name = keys.family.name;
    let (rope, near) = ropes(name, shape)?;
    keys.count("rope.dimension_count", 2 * rope.inverse.len() as u64)?;
    if let Some(near) = near {
        let (base, factors) = factored(near).unwrap_or((10_000.0, Vec::new()));
        if near.factor != 1.0 || factors.iter().any(|f| (f - 1.0).abs() > 1e-4) {
            return Err("the positions of its blocks with a window are scaled, for which llama.cpp has no name".to_owned());
        }
        keys.number("rope.freq_base_swa", base.round());
    }
    let scaling = Scaling::of(config);
    let (kind, written) = (scaling.kind(), scaling.base());
    // Phi-3's LongRoPE has YaRN's name in old files.
    let yarn_of = scaling
        .number("factor")
        .filter(|_| !scaling.says("short_factor"));
    if let (Some("yarn"), Some(factor)) = (kind, yarn_of) {
        return yarn(keys, shape, (rope, factor), &scaling);
    }
    let theta = |base: f64| {
        written
            .filter(|w| (w / base - 1.0).abs() < 1e-3)
            .unwrap_or(base)
    };
    let Some((base, factors)) = factored(rope) else {
        return Err("no column of its heads is turned".to_owned());
    };
    let alike = factors.iter().all(|f| (f / factors[0] - 1.0).abs() < 1e-4);
    if alike && rope.factor == 1.0 && kind != Some("longrope") && kind != Some("su") {
        keys.number("rope.freq_base", theta(base));
        if (factors[0] - 1.0).abs() > 1e-6 {
            keys.put("rope.scaling.type", Meta::Text("linear".to_owned()));
            keys.number("rope.scaling.factor", factors[0]);
        }
        return Ok(());
    }
    if !matches!(name, "llama" | "granite" | "phi3") {
        return Err(format!(
            "llama.cpp's `{name}` has no rotary positions scaled as this model's (`{}`)",
            kind.unwrap_or("default")
        ));
    }
    each_scaled(keys, rope, &scaling)
}

/// Positions that YaRN scales.
fn yarn(
    keys: &mut Keys,
    shape: &Shape,
    (rope, factor): (&Rope, f64),
    scaling: &Scaling<'_>,
) -> Result<(), String> {
    let own = [
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ];
    if own.iter().any(|key| scaling.says(key)) {
        return Err("its YaRN has keys of its own, which are not written to GGUF".to_owned());
    }
    keys.number("rope.freq_base", scaling.base().unwrap_or(10_000.0));
    keys.put("rope.scaling.type", Meta::Text("yarn".to_owned()));
    keys.number("rope.scaling.factor", factor);
    let first = scaling.number("original_max_position_embeddings");
    let first = first.map_or(Ok(shape.positions), positions)?;
    keys.count("rope.scaling.original_context_length", first)?;
    keys.number(
        "rope.scaling.attn_factor",
        rope.factor / (0.1 * factor.ln() + 1.0),
    );
    Ok(())
}

/// Positions of which each frequency has a factor of its own. The base is free then: the one that is written keeps the
/// factors readable.
fn each_scaled(keys: &mut Keys, rope: &Rope, scaling: &Scaling<'_>) -> Result<(), String> {
    let base = scaling.base().unwrap_or(10_000.0);
    let turned = 2.0 * rope.inverse.len() as f64;
    let plain = |i: usize| base.powf(-2.0 * i as f64 / turned);
    let own: Vec<f32> = rope
        .inverse
        .iter()
        .enumerate()
        .map(|(i, x)| narrow(plain(i) / x))
        .collect();
    keys.number("rope.freq_base", base);
    if keys.family.name == "phi3" {
        let long = scaling.list("long_factor");
        let long = long.ok_or("its LongRoPE has no `long_factor`")?;
        let key = "original_max_position_embeddings";
        // What stands beside the rotary parameters counts, as in the class.
        let first = scaling.config.get(key).and_then(Json::as_f64);
        let first = first.map_or(Ok(4096), positions)?;
        keys.count("rope.scaling.original_context_length", first)?;
        keys.made.factors.push(("rope_factors_long.weight", long));
        keys.made.factors.push(("rope_factors_short.weight", own));
    } else {
        if rope.beyond.is_some() {
            return Err(format!(
                "llama.cpp's `{}` has no other rotary factors for long texts, and this model has (`long_factor`)",
                keys.family.name
            ));
        }
        keys.made.factors.push(("rope_freqs.weight", own));
    }
    if rope.factor != 1.0 {
        keys.number("rope.scaling.attn_factor", rope.factor);
    }
    Ok(())
}

/// A GGUF file to be written.
#[derive(Debug)]
pub struct GgufModel {
    /// The family's names.
    pub family: &'static Family,
    /// Its metadata.
    pub metadata: Metadata,
    /// Tensors that the metadata bring along.
    pub factors: Vec<(Planned, Vec<f32>)>,
    /// The model's own tensors, each with its name in the file.
    pub tensors: Vec<(Param, Planned)>,
}

/// The metadata of an adapter.
#[must_use]
pub fn adapter_metadata(family: &Family, name: &str, alpha: f32) -> Metadata {
    let text = |text: &str| Meta::Text(text.to_owned());
    vec![
        ("general.architecture".to_owned(), text(family.name)),
        ("general.type".to_owned(), text("adapter")),
        ("general.name".to_owned(), text(name)),
        ("adapter.type".to_owned(), text("lora")),
        ("adapter.lora.alpha".to_owned(), Meta::F32(alpha)),
    ]
}

#[cfg(test)]
mod tests {
    use super::positions;

    #[test]
    fn only_whole_numbers_of_positions_are_written() {
        assert_eq!(positions(4096.0), Ok(4096));
        for wrong in [-1.0, 0.0, 0.5, 1e300, f64::NAN] {
            assert!(positions(wrong).is_err(), "{wrong}");
        }
    }
}
