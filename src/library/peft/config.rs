//! `adapter_config.json`: what of it is honoured, what is refused and what has no effect here.
//!
//! **Invariant:** every key is in [`COMMON`] or in the table of the method that reads the adapter; one that is not, and
//! says something, is refused by its name.

use regex::Regex;
use serde_json::{Map, Value as Json};

use super::super::method::{METHODS, Method};
use super::super::net::ends_with;
use super::Misfit;
use targets::{named, targets, targets_excluded};

mod targets;

pub use targets::Targets;

/// What becomes of a key of an adapter's config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Read.
    Used,
    /// Must be absent or empty (`null`, `false`, `{}`, `[]`, `""`, `0`): it changes what the adapter computes, and that is not built yet.
    Refused,
    /// Must be absent, empty or one of these, as JSON: others change what the adapter computes, and that is not built yet.
    Only(&'static [&'static str]),
    /// Does not change what the adapter computes on these models; the reason.
    WithoutEffect(&'static str),
}

use Fate::{Only, Refused, Used, WithoutEffect};

/// Why a key that belongs to the start of a training does not matter: the tensors are trained already.
pub const START: &str = "says how the tensors began, and they are in the file";

/// The keys that the configs of several types have.
pub const COMMON: &[(&str, Fate)] = &[
    ("auto_mapping", WithoutEffect("names Python classes")),
    ("base_model_name_or_path", Used),
    ("exclude_modules", Used),
    (
        "fan_in_fan_out",
        WithoutEffect("peft sets it by the class of each module, whatever is written"),
    ),
    (
        "inference_mode",
        WithoutEffect("whether peft trained on; the recipe says that here"),
    ),
    ("layers_pattern", Used),
    ("layers_to_transform", Used),
    ("modules_to_save", Used),
    ("peft_type", Used),
    ("peft_version", WithoutEffect("who wrote the file")),
    (
        "revision",
        WithoutEffect("of the base, which the recipe names"),
    ),
    ("target_modules", Used),
    ("task_type", Used),
];

/// What a config says, as far as it is honoured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The method that reads it.
    pub method: &'static dyn Method,
    /// The adapter's type.
    pub kind: String,
    /// Which modules it is on.
    pub targets: Targets,
    /// Which of these it is not on; `None` for none.
    pub excluded: Option<Targets>,
    /// The blocks it is limited to.
    pub layers: Option<Vec<u64>>,
    /// What stands before a block's number, beside `layers`.
    pub layers_pattern: Vec<String>,
    /// Modules that were trained whole, as the config lists them.
    pub modules_to_save: Vec<String>,
    /// Whether its type saves modules whole at all: then that of a classification has its head.
    pub saves_modules: bool,
    /// What it was trained for, as peft calls it.
    pub task: Option<String>,
    /// The base model as the config names it; may be empty.
    pub base: String,
    /// The keys that the method reads.
    own: Map<String, Json>,
    keys: Keys,
}

impl Config {
    /// Reads and checks an object.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn read(json: &Map<String, Json>) -> Result<Self, String> {
        let (method, kind, keys) = reader(json)?;
        check_keys(json, keys)?;
        let (layers, targets) = (layers(json)?, targets(json, "target_modules")?);
        if layers.is_some() && !matches!(targets, Some(Targets::Names(_))) {
            return Err(
                "`layers_to_transform` stands beside a `target_modules` that is no list, where peft refuses it; write the \
                 module names as a list"
                    .to_owned(),
            );
        }
        let used = |key: &&String| keys.contains(&(key.as_str(), Used));
        let text = |key: &str| given(json, key).and_then(Json::as_str).map(str::to_owned);
        Ok(Self {
            method,
            kind: kind.to_owned(),
            targets: targets.unwrap_or(Targets::Present),
            excluded: targets_excluded(json)?,
            layers,
            layers_pattern: list(json, "layers_pattern")?,
            modules_to_save: list(json, "modules_to_save")?,
            saves_modules: json.contains_key("modules_to_save"),
            task: text("task_type"),
            base: text("base_model_name_or_path").unwrap_or_default(),
            keys,
            own: json
                .iter()
                .filter(|(key, _)| used(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        })
    }

    /// A value that the method reads, unless it is null. The method's table has to say that the key is used.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        debug_assert!(
            self.keys.contains(&(key, Used)),
            "`{key}` is no key that the method reads"
        );
        given(&self.own, key)
    }

    /// A whole number.
    ///
    /// # Errors
    /// It is none.
    pub fn whole(&self, key: &str, default: u64) -> Result<u64, Misfit> {
        self.typed(key, default, "a whole number", Json::as_u64)
    }

    /// A whole number above 0.
    ///
    /// # Errors
    /// It is none.
    pub fn positive(&self, key: &str, default: u64) -> Result<u64, Misfit> {
        let above = |v: &Json| v.as_u64().filter(|&n| n > 0);
        self.typed(key, default, "a whole number above 0", above)
    }

    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, key: &str, default: f64) -> Result<f64, Misfit> {
        let finite = |v: &Json| v.as_f64().filter(|x| x.is_finite());
        self.typed(key, default, "a number", finite)
    }

    /// A rate of dropout.
    ///
    /// # Errors
    /// It is none.
    pub fn rate(&self, key: &str) -> Result<f64, Misfit> {
        let rate = |v: &Json| v.as_f64().filter(|x| (0.0..1.0).contains(x));
        self.typed(key, 0.0, "a number from 0 to below 1", rate)
    }

    /// A truth value.
    ///
    /// # Errors
    /// It is none.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, Misfit> {
        self.typed(key, default, "true or false", Json::as_bool)
    }

    /// A list of names, or one name; empty where nothing is written.
    ///
    /// # Errors
    /// It is none.
    pub fn names(&self, key: &str) -> Result<Vec<String>, Misfit> {
        list(&self.own, key).map_err(Misfit::of_config)
    }

    /// Modules by names or by a regular expression.
    ///
    /// # Errors
    /// It is neither.
    pub fn modules(&self, key: &str) -> Result<Option<Targets>, Misfit> {
        targets(&self.own, key).map_err(Misfit::of_config)
    }

    /// Values of modules by patterns of their paths.
    ///
    /// # Errors
    /// It is no map of patterns to what `read` takes.
    pub fn patterns<T: Copy>(
        &self,
        key: &str,
        read: impl Fn(&Json) -> Option<T>,
    ) -> Result<Patterns<T>, Misfit> {
        let list = pattern(&self.own, key, read).map_err(Misfit::of_config)?;
        Ok(Patterns(list))
    }

    fn typed<T>(
        &self,
        key: &str,
        default: T,
        what: &str,
        read: impl Fn(&Json) -> Option<T>,
    ) -> Result<T, Misfit> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => read(value)
                .ok_or_else(|| Misfit::of_config(format!("`{key}` must be {what}, not {value}"))),
        }
    }

    /// Whether it is on all linear maps but the output.
    #[must_use]
    pub fn is_all_linear(&self) -> bool {
        self.targets == Targets::AllLinear
    }

    /// Whether it is an adapter of a sequence classification, whose head peft always saves.
    #[must_use]
    pub fn classifies(&self) -> bool {
        self.task.as_deref() == Some("SEQ_CLS")
    }

    /// Whether the config puts the adapter on a module; `None` where the tensors alone tell.
    #[must_use]
    pub fn places(&self, module: &str) -> Option<bool> {
        if let Some(excluded) = &self.excluded
            && excluded.matches(module)?
        {
            return Some(false);
        }
        // What is saved whole has no other change.
        if self
            .modules_to_save
            .iter()
            .any(|m| parents(module).any(|path| ends_with(path, m)))
        {
            return Some(false);
        }
        // LoRA names parameters of modules beside the modules.
        let weights = self.own.get("target_parameters").and_then(strings);
        let weights: Vec<String> = weights
            .iter()
            .flatten()
            .filter_map(|p| p.strip_suffix(".weight").map(str::to_owned))
            .collect();
        if named(&weights, module) {
            return Some(true);
        }
        if !weights.is_empty() && self.targets == Targets::Present {
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

    /// Whether peft saves a module whole.
    #[must_use]
    pub fn saves(&self, module: &str) -> bool {
        let own = self.modules_to_save.iter().map(String::as_str);
        let always = ["classifier", "score"].into_iter();
        own.chain(always.filter(|_| self.classifies()))
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

/// Values of modules by regular expressions over the ends of their paths.
#[derive(Clone, Debug)]
pub struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    /// The value of the first pattern that matches a module, or an end of it, as peft looks it up.
    #[must_use]
    pub fn of(&self, module: &str) -> Option<T> {
        let mut list = self.0.iter();
        list.find_map(|(regex, value)| regex.is_match(module).then_some(*value))
    }
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
) -> Result<Vec<(Regex, T)>, String> {
    let Some(value) = given(json, key) else {
        return Ok(Vec::new());
    };
    let wrong = || format!("`{key}` must map names of modules to numbers above 0, not {value}");
    let map = value.as_object().ok_or_else(wrong)?;
    map.iter()
        .map(|(name, value)| {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{name})$"));
            let regex = regex.ok().filter(|_| Regex::new(name).is_ok()).ok_or_else(|| format!(
                "`{key}` has `{name}`, a regular expression that cannot be read here; write the modules' names"
            ))?;
            Ok((regex, read(value).ok_or_else(wrong)?))
        })
        .collect()
}

/// The keys of a type, with what becomes of them.
pub type Keys = &'static [(&'static str, Fate)];

/// The method that reads a config, its type, and the keys of that type.
/// Types that are not read, with the reasons.
const REASONS: &[(&str, &str)] = &[
    (
        "PSOFT",
        "its file holds a rotation between singular vectors of the base and not the vectors, whose signs are those of the library \
         that computed them; merge it with peft (`merge_and_unload`) where it was trained, and name that folder as the model",
    ),
    (
        "SHADOW",
        "it is a network that runs beside the base's blocks and corrects what enters each, which folds into no weight; train an `lst` or \
         a `lora` instead",
    ),
    (
        "XLORA",
        "it is a gate that mixes several LoRAs token by token, which fold into no weight; name one of them, or combine them with \
         `convert { adapters = [peft \"A\", peft \"B\"], combine = … }`",
    ),
];

fn reader(json: &Map<String, Json>) -> Result<(&'static dyn Method, &str, Keys), String> {
    let kind = match given(json, "peft_type") {
        Some(Json::String(kind)) => kind,
        Some(other) => {
            return Err(format!(
                "`peft_type` is {other}, which is no name of a type"
            ));
        }
        None => {
            return Err(
                "it has no `peft_type`, so that it is no adapter's config; name the folder that peft's `save_pretrained` \
                 wrote, or write \"LORA\" there if it is one"
                    .to_owned(),
            );
        }
    };
    let mut methods = METHODS.iter();
    let found = methods.find_map(|m| Some((*m, m.peft_keys(kind, json)?)));
    let (method, keys) = found.ok_or_else(|| {
        if let Some((_, reason)) = REASONS.iter().find(|(own, _)| own == kind) {
            return format!("`peft_type` is \"{kind}\", which is not read: {reason}");
        }
        // What stands before the text, or in every layer's keys, is in no weight it could be folded into.
        let before = [
            "PROMPT",
            "PREFIX",
            "P_TUNING",
            "ADAPTION",
            "CPT",
            "CARTRIDGE",
        ];
        let remedy = if before.iter().any(|word| kind.contains(word)) {
            "it has no weights that could be folded into the model: train a `lora` instead"
        } else {
            MERGE_INSTEAD
        };
        format!("`peft_type` is \"{kind}\", which is not built yet; {remedy}")
    })?;
    Ok((method, kind, keys))
}

fn check_keys(json: &Map<String, Json>, keys: Keys) -> Result<(), String> {
    for (key, value) in json {
        if is_empty(value) {
            continue;
        }
        // A type's own table goes before the common one.
        let known = keys.iter().chain(COMMON).find(|(known, _)| known == key);
        match known.map(|(_, fate)| fate) {
            Some(Used | WithoutEffect(_)) => {}
            // What is off by a number.
            Some(Refused) if value.as_f64() == Some(0.0) => {}
            Some(Only(list)) if list.contains(&value.to_string().as_str()) => {}
            Some(Only(list)) => {
                return Err(format!(
                    "`{key}` is {value}, which is not built yet; only {} is; {MERGE_INSTEAD}",
                    list.join(" or ")
                ));
            }
            Some(Refused) => {
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
pub const MERGE_INSTEAD: &str = "fold the adapter into its model with peft (`model.merge_and_unload().save_pretrained(DIR)`) and name \
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
