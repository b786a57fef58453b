//! The identity of a stage's result: the hash of all that can change it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::bind::BoundSplit;
use super::{Handed, Plan};
use crate::library::schema::{Checked, Filled};
use crate::library::stage::{NEUTRAL, StageKind, keys};
use crate::program::DType;
use crate::program::op::Precision;

/// Version of the fingerprints: it changes when the meaning of a recipe, or the numbers behind it, change.
const SCHEMA: u32 = 3;

/// The part that stands for a prompt that another stage chooses: that stage's fingerprint.
pub(super) const CHOSEN: &str = "chosen prompt";

/// What a stage's result depends on, by name, and its hash; no hash where an input's identity could
/// not be had. References count by what they refer to, not by name; adapters that are started from by their files.
pub(super) fn fingerprint(
    plan: &Plan,
    kind: &dyn StageKind,
    filled: &Filled,
    start: &Handed,
    parent: Option<&str>,
    splits: &[Option<Arc<BoundSplit>>],
    adapters: Option<String>,
) -> (IndexMap<String, String>, Option<String>) {
    let mut parts = IndexMap::new();
    let mut whole = true;
    parts.insert("schema".to_owned(), SCHEMA.to_string());
    parts.insert("kind".to_owned(), kind.schema().name.to_owned());
    parts.insert(
        "numeric".to_owned(),
        match start.model.numbers.products {
            Precision::F32 => format!("{} frozen, f32 arithmetic", start.storage()),
            Precision::Tf32 => format!("{} frozen, tf32 products", start.storage()),
            Precision::Bf16 => format!("{} frozen, bf16 products", start.storage()),
        },
    );
    if start.model.numbers.activations != DType::F32 {
        let held = start.model.numbers.activations.to_string();
        parts.insert("activations".to_owned(), held);
    }
    let mut keys: Vec<(&str, &Checked)> = filled
        .values
        .iter()
        .filter(|(k, v)| !matches!(v, Checked::Ref(..)) && !NEUTRAL.contains(k))
        .collect();
    keys.sort_by_key(|(k, _)| *k);
    for (key, value) in keys {
        let text = match value {
            // An objective without keys of its own is its name.
            Checked::Entry(entry) if key == "objective" && entry.values.iter().next().is_none() => {
                Checked::Str(entry.name.clone()).to_string()
            }
            value => value.to_string(),
        };
        // Where a stage goes on from another, its default is that one's objective, which may be any.
        let text = match (key, parent) {
            ("objective", Some(_)) if filled.values.written(key) => format!("own {text}"),
            ("objective", Some(_)) => "inherited".to_owned(),
            _ => text,
        };
        parts.insert(format!("key {key}"), text);
    }
    match parent.and_then(|p| plan.stage(p)) {
        Some(parent) => {
            whole &= parent.fingerprint.is_some();
            parts.insert(
                "from".to_owned(),
                parent.fingerprint.clone().unwrap_or_default(),
            );
        }
        None => {
            whole &= start.model.identity.is_some();
            parts.insert(
                "model".to_owned(),
                start.model.identity.clone().unwrap_or_default(),
            );
        }
    }
    if keys::GENERATE.is_written(&filled.values) {
        parts.insert("ends".to_owned(), format!("{:?}", start.model.ends));
    }
    if start.fresh_head {
        parts.insert("head".to_owned(), "fresh".to_owned());
    }
    whole &= adapters.is_some();
    if let Some(adapters) = adapters.filter(|a| !a.is_empty()) {
        parts.insert("adapters".to_owned(), adapters);
    }
    if let Some(tuned) = &start.tuned {
        let print = plan.stage(tuned).and_then(|s| s.fingerprint.clone());
        whole &= print.is_some();
        parts.insert("tuned".to_owned(), print.unwrap_or_default());
    }
    if let Some(chooser) = &start.chooser {
        let print = plan
            .stage(&chooser.stage)
            .and_then(|s| s.fingerprint.clone());
        whole &= print.is_some();
        parts.insert(CHOSEN.to_owned(), print.unwrap_or_default());
    } else if let Some(prompt) = &start.prompt {
        parts.insert(
            "prompt".to_owned(),
            format!("{:?} {:?}", prompt.template.source, prompt.words),
        );
        if let Some(shown) = &prompt.demonstrations {
            whole &= shown.identity.is_some();
            parts.insert(
                "demonstrations".to_owned(),
                format!(
                    "{} of {} tokens, seed {}, {}",
                    shown.each,
                    shown.length,
                    shown.seed,
                    shown.identity.as_deref().unwrap_or_default()
                ),
            );
        }
    }
    for (key, split) in kind.splits().iter().zip(splits) {
        if let Some(split) = split {
            whole &= split.identity.is_some();
            parts.insert(
                (*key).to_owned(),
                split.identity.clone().unwrap_or_default(),
            );
        }
    }
    let hash = hash(&parts);
    (parts, whole.then_some(hash))
}

/// The hash of a fingerprint's parts.
pub(super) fn hash(parts: &IndexMap<String, String>) -> String {
    let text: Vec<String> = parts.iter().map(|(k, v)| format!("{k}\u{1f}{v}")).collect();
    blake3::hash(text.join("\u{1e}").as_bytes())
        .to_hex()
        .to_string()
}
