//! `adapter_config.json`: what of it is honoured, what is refused and what has no effect here.
//!
//! **Invariant:** every key is in [`KEYS`]; one that is not, and says something, is refused by its name.

use regex::Regex;
use serde_json::{Map, Value as Json};

use crate::library::net::ends_with;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Read.
    Used,
    /// Must be absent or empty (`null`, `false`, `{}`, `[]`, `""`): it changes what the adapter computes, and that is not built yet.
    Refused,
    /// Does not change what the adapter computes on these models; the reason.
    WithoutEffect(&'static str),
}

use Fate::{Refused, Used, WithoutEffect};

/// Why a key that belongs to the start of a training does not matter: the tensors are trained already.
const START: &str = "says how A and B began, and they are in the file";

/// The keys that peft's `LoraConfig` has, up to 0.21, and those that older versions wrote.
pub(super) const KEYS: &[(&str, Fate)] = &[
    ("alora_invocation_tokens", Refused),
    ("alpha_pattern", Used),
    ("arrow_config", Refused),
    ("auto_mapping", WithoutEffect("names Python classes")),
    ("base_model_name_or_path", Used),
    ("bias", Used),
    ("corda_config", WithoutEffect(START)),
    (
        "enable_lora",
        WithoutEffect("of fused projections, which these models do not have"),
    ),
    (
        "ensure_weight_tying",
        WithoutEffect("of tied embeddings, which are refused as targets"),
    ),
    ("eva_config", WithoutEffect(START)),
    ("exclude_modules", Used),
    (
        "fan_in_fan_out",
        WithoutEffect("peft turns it off on linear maps, and these models have no others"),
    ),
    (
        "inference_mode",
        WithoutEffect("whether peft trained on; the recipe says that here"),
    ),
    ("init_lora_weights", Used),
    ("kasa_config", Refused),
    ("layer_replication", Refused),
    ("layers_pattern", Used),
    ("layers_to_transform", Used),
    (
        "loftq_config",
        WithoutEffect("read beside `init_lora_weights` only"),
    ),
    ("lora_alpha", Used),
    ("lora_bias", Refused),
    ("lora_dropout", Used),
    ("lora_ga_config", WithoutEffect(START)),
    ("megatron_config", Refused),
    (
        "megatron_core",
        WithoutEffect("read beside `megatron_config` only"),
    ),
    (
        "merge_weights",
        WithoutEffect("when peft folded the product in, not what it is"),
    ),
    ("modules_to_save", Used),
    ("monteclora_config", Refused),
    ("peft_type", Used),
    ("peft_version", WithoutEffect("who wrote the file")),
    (
        "qalora_group_size",
        WithoutEffect("read beside `use_qalora` only"),
    ),
    ("r", Used),
    ("rank_pattern", Used),
    (
        "revision",
        WithoutEffect("of the base, which the recipe names"),
    ),
    ("runtime_config", WithoutEffect("how peft runs")),
    ("target_modules", Used),
    ("target_parameters", Refused),
    ("task_type", Used),
    ("trainable_token_indices", Refused),
    ("use_bdlora", Refused),
    ("use_dora", Refused),
    ("use_qalora", Refused),
    ("use_rslora", Used),
    (
        "velora_config",
        WithoutEffect("changes the backward pass of a training only"),
    ),
];

/// Which modules an adapter is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Modules whose path is an entry or ends with a dot and an entry.
    Names(Vec<String>),
    /// Modules whose whole path matches.
    Regex(String),
    /// Every linear map but the output head.
    AllLinear,
    /// Those that have tensors: the config does not say, or not in a way that can be read here.
    Present,
}

impl Targets {
    /// Whether a module is a target; `None` where the tensors alone tell.
    #[must_use]
    pub fn matches(&self, module: &str) -> Option<bool> {
        match self {
            Self::AllLinear => Some(true),
            Self::Names(names) => Some(named(names, module)),
            Self::Regex(pattern) => Some(whole(pattern)?.is_match(module)),
            Self::Present => None,
        }
    }
}

/// Whether a module path is an entry or ends with a dot and an entry.
fn named(names: &[String], module: &str) -> bool {
    names.iter().any(|name| ends_with(module, name))
}

/// A regular expression over a whole module path, which has no line breaks.
fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

/// What a config says, as far as it is honoured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Rank where no pattern says another.
    pub rank: u64,
    /// Alpha where no pattern says another: the product counts `alpha / rank` times, `alpha / √rank` with `rs_lora`.
    pub alpha: f64,
    /// Dropout before A while it trained.
    pub dropout: f64,
    /// Rank-stabilised scaling.
    pub rs_lora: bool,
    /// Which modules it is on.
    pub targets: Targets,
    /// Which of these it is not on; `None` for none.
    pub excluded: Option<Targets>,
    /// The blocks it is limited to.
    pub layers: Option<Vec<u64>>,
    /// What stands before a block's number, beside `layers`.
    pub layers_pattern: Vec<String>,
    /// Ranks of modules that match, the first that does.
    pub rank_pattern: Vec<(String, u64)>,
    /// Alphas of modules that match, the first that does.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules that were trained whole, as the config lists them.
    pub modules_to_save: Vec<String>,
    /// Whether it is one of a sequence classification, whose head peft always saves.
    pub classifies: bool,
    /// The base model as the config names it; may be empty.
    pub base: String,
}

impl Config {
    /// Reads and checks an object.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(super) fn read(json: &Map<String, Json>) -> Result<Self, String> {
        check_keys(json)?;
        let rank = match given(json, "r") {
            None => 8,
            Some(value) => value
                .as_u64()
                .filter(|&r| r > 0)
                .ok_or_else(|| format!("`r` must be a whole number above 0, not {value}"))?,
        };
        let number = |key: &str, default: f64| match given(json, key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| format!("`{key}` must be a number, not {value}")),
        };
        let (alpha, dropout) = (number("lora_alpha", 8.0)?, number("lora_dropout", 0.0)?);
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(format!("`lora_alpha` must be above 0, not {alpha}"));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(format!(
                "`lora_dropout` must be at least 0 and below 1, not {dropout}"
            ));
        }
        let rs_lora = match given(json, "use_rslora") {
            None => false,
            Some(value) => value
                .as_bool()
                .ok_or_else(|| format!("`use_rslora` must be true or false, not {value}"))?,
        };
        let (layers, targets) = (layers(json)?, targets(json, "target_modules")?);
        if layers.is_some() && !matches!(targets, Some(Targets::Names(_))) {
            return Err(
                "`layers_to_transform` stands beside a `target_modules` that is no list, where peft refuses it; write the \
                 module names as a list"
                    .to_owned(),
            );
        }
        Ok(Self {
            rank,
            alpha,
            dropout,
            rs_lora,
            targets: targets.unwrap_or(Targets::Present),
            excluded: targets_excluded(json)?,
            layers,
            layers_pattern: list(json, "layers_pattern")?,
            rank_pattern: pattern(json, "rank_pattern", |v| v.as_u64().filter(|&r| r > 0))?,
            alpha_pattern: pattern(json, "alpha_pattern", |v| v.as_f64().filter(|&a| a > 0.0))?,
            modules_to_save: list(json, "modules_to_save")?,
            classifies: given(json, "task_type").and_then(Json::as_str) == Some("SEQ_CLS"),
            base: json
                .get("base_model_name_or_path")
                .and_then(Json::as_str)
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// Whether the config puts LoRA on a module; `None` where the tensors alone tell.
    #[must_use]
    pub fn places(&self, module: &str) -> Option<bool> {
        if let Some(excluded) = &self.excluded
            && excluded.matches(module)?
        {
            return Some(false);
        }
        // What is saved whole has no LoRA.
        if self
            .modules_to_save
            .iter()
            .any(|m| parents(module).any(|path| ends_with(path, m)))
        {
            return Some(false);
        }
        let found = self.targets.matches(module)?;
        let exactly =
            matches!(&self.targets, Targets::Names(names) if names.iter().any(|n| n == module));
        match &self.layers {
            Some(layers) if found && !exactly => {
                Some(self.block(module).is_some_and(|i| layers.contains(&i)))
            }
            _ => Some(found),
        }
    }

    /// The number of the block a module is in, as `layers_to_transform` counts.
    fn block(&self, module: &str) -> Option<u64> {
        let parts: Vec<&str> = module.split('.').collect();
        let numbered = |name: Option<&str>| {
            parts.windows(3).find_map(|w| {
                let number = w.get(1)?.parse().ok()?;
                (name.is_none() || name == w.first().copied()).then_some(number)
            })
        };
        if self.layers_pattern.is_empty() {
            return numbered(None);
        }
        let names = self.layers_pattern.iter();
        names.map(|n| numbered(Some(n))).find(Option::is_some)?
    }

    /// Rank and alpha of a module.
    #[must_use]
    pub fn sizes(&self, module: &str) -> (u64, f64) {
        let rank = by_pattern(&self.rank_pattern, module).unwrap_or(self.rank);
        (
            rank,
            by_pattern(&self.alpha_pattern, module).unwrap_or(self.alpha),
        )
    }

    /// Whether peft saves a module whole.
    #[must_use]
    pub fn saves(&self, module: &str) -> bool {
        let own = self.modules_to_save.iter().map(String::as_str);
        let always = ["classifier", "score"].into_iter();
        own.chain(always.filter(|_| self.classifies))
            // Any end of a path will do for peft here, be it in the middle of a name.
            .any(|entry| parents(module).any(|path| path.ends_with(entry)))
    }
}

/// A module's path and those of the modules it is in.
fn parents(module: &str) -> impl Iterator<Item = &str> {
    let ends = module.match_indices('.').map(|(at, _)| at);
    ends.chain([module.len()])
        .filter_map(move |end| module.get(..end))
}

/// The value of the first pattern that matches a module, or an end of it, as peft looks it up.
fn by_pattern<T: Copy>(patterns: &[(String, T)], module: &str) -> Option<T> {
    patterns.iter().find_map(|(pattern, value)| {
        let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).ok()?;
        regex.is_match(module).then_some(*value)
    })
}

/// A key's value, if it is there and not null.
fn given<'a>(json: &'a Map<String, Json>, key: &str) -> Option<&'a Json> {
    json.get(key).filter(|value| !value.is_null())
}

fn strings(value: &Json) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// A list of names, or one name.
fn list(json: &Map<String, Json>, key: &str) -> Result<Vec<String>, String> {
    match given(json, key) {
        None => Ok(Vec::new()),
        Some(Json::String(one)) if key == "layers_pattern" && !one.is_empty() => {
            Ok(vec![one.clone()])
        }
        Some(Json::String(none)) if none.is_empty() => Ok(Vec::new()),
        Some(value) => {
            strings(value).ok_or_else(|| format!("`{key}` must be a list of names, not {value}"))
        }
    }
}

fn targets(json: &Map<String, Json>, key: &str) -> Result<Option<Targets>, String> {
    Ok(match given(json, key) {
        None => None,
        Some(Json::String(all)) if all.eq_ignore_ascii_case("all-linear") => {
            Some(Targets::AllLinear)
        }
        Some(Json::String(pattern)) => Some(expression(key, pattern)?),
        Some(value) => Some(Targets::Names(strings(value).ok_or_else(|| {
            format!("`{key}` must be a list of names or a regular expression, not {value}")
        })?)),
    })
}

fn targets_excluded(json: &Map<String, Json>) -> Result<Option<Targets>, String> {
    let excluded = targets(json, "exclude_modules")?;
    Ok(excluded.filter(|e| {
        let empty = matches!(e, Targets::Names(names) if names.is_empty())
            || matches!(e, Targets::Regex(text) if text.is_empty());
        !empty
    }))
}

/// A regular expression. Python has more of them than can be read here; then the tensors tell the modules.
fn expression(key: &str, pattern: &str) -> Result<Targets, String> {
    match Regex::new(pattern) {
        Ok(_) if whole(pattern).is_some() => Ok(Targets::Regex(pattern.to_owned())),
        Err(why) if why.to_string().contains("not supported") => Ok(Targets::Present),
        _ => Err(format!(
            "`{key}` is no regular expression: `{pattern}`; write the modules as a list"
        )),
    }
}

fn layers(json: &Map<String, Json>) -> Result<Option<Vec<u64>>, String> {
    let key = "layers_to_transform";
    let wrong = |value: &Json| format!("`{key}` must be a list of numbers of blocks, not {value}");
    match given(json, key) {
        None => Ok(None),
        Some(Json::Array(list)) if list.is_empty() => Ok(None),
        Some(value) => {
            let one = std::slice::from_ref(value);
            let list = value.as_array().map_or(one, Vec::as_slice);
            let numbers: Option<Vec<u64>> = list.iter().map(Json::as_u64).collect();
            numbers.map(Some).ok_or_else(|| wrong(value))
        }
    }
}

fn pattern<T>(
    json: &Map<String, Json>,
    key: &str,
    read: impl Fn(&Json) -> Option<T>,
) -> Result<Vec<(String, T)>, String> {
    let Some(value) = given(json, key) else {
        return Ok(Vec::new());
    };
    let wrong = || format!("`{key}` must map names of modules to numbers above 0, not {value}");
    let map = value.as_object().ok_or_else(wrong)?;
    map.iter()
        .map(|(name, value)| {
            if Regex::new(name).is_err() {
                return Err(format!(
                    "`{key}` has `{name}`, a regular expression that cannot be read here; write the modules' names"
                ));
            }
            Ok((name.clone(), read(value).ok_or_else(wrong)?))
        })
        .collect()
}

fn check_keys(json: &Map<String, Json>) -> Result<(), String> {
    match given(json, "peft_type") {
        Some(Json::String(kind)) if kind == "LORA" => {}
        Some(other) => {
            // What stands before the text, or in every layer's keys, is in no weight it could be folded into.
            let virtual_tokens = other.as_str().is_some_and(|kind| {
                [
                    "PROMPT",
                    "PREFIX",
                    "P_TUNING",
                    "ADAPTION",
                    "CPT",
                    "CARTRIDGE",
                ]
                .iter()
                .any(|word| kind.contains(word))
            });
            let remedy = if virtual_tokens {
                "it has no weights that could be folded into the model: train a `lora` instead"
            } else {
                MERGE_INSTEAD
            };
            return Err(format!(
                "`peft_type` is {other}, which is not built yet; only \"LORA\" is; {remedy}"
            ));
        }
        None => {
            return Err(
                "it has no `peft_type`, so that it is no adapter's config; name the folder that peft's `save_pretrained` \
                 wrote, or write \"LORA\" there if it is one"
                    .to_owned(),
            );
        }
    }
    match given(json, "bias") {
        None => {}
        Some(Json::String(bias)) if bias == "none" => {}
        Some(other) => {
            return Err(format!(
                "`bias` is {other}, which is not built yet; only \"none\" is; {MERGE_INSTEAD}"
            ));
        }
    }
    match given(json, "init_lora_weights") {
        None | Some(Json::Bool(_)) => {}
        // These start A and B elsewhere and leave the base weights alone.
        Some(Json::String(init)) if matches!(init.as_str(), "gaussian" | "eva" | "orthogonal") => {}
        Some(other) => {
            return Err(format!(
                "`init_lora_weights` is {other}, which changes the base weights or the training too and is not built yet; \
                 convert the adapter to a plain LoRA with peft's `path_initial_model_for_weight_conversion`"
            ));
        }
    }
    for (key, value) in json {
        if is_empty(value) {
            continue;
        }
        match KEYS.iter().find(|(known, _)| known == key) {
            Some((_, Used | WithoutEffect(_))) => {}
            Some((_, Refused)) => {
                return Err(format!(
                    "`{key}` is set, which is not built yet; {MERGE_INSTEAD}"
                ));
            }
            None => {
                return Err(format!(
                    "it has the key `{key}` = {value}, which is not known here and may change what the adapter computes; \
                     remove it if it does not, or else {MERGE_INSTEAD}"
                ));
            }
        }
    }
    Ok(())
}

/// What to do with an adapter that cannot be taken as it is.
pub(super) const MERGE_INSTEAD: &str = "fold the adapter into its model with peft (`model.merge_and_unload().save_pretrained(DIR)`) and name \
     that folder as the recipe's model, or train it without this";

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Object(map) => map.is_empty(),
        Json::Array(list) => list.is_empty(),
        Json::String(text) => text.is_empty(),
        _ => false,
    }
}
