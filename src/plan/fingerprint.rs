//! The identity of a stage's result: the hash of all that can change it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::bind::BoundSplit;
use super::{Handed, Plan};
use crate::library::demonstrations::Showing;
use crate::library::schema::{Checked, Filled};
use crate::library::stage::{NEUTRAL, StageKind, keys};
use crate::program::DType;
use crate::program::op::Precision;

/// Version of the fingerprints: it changes when the meaning of a recipe, or the numbers behind it, change.
const SCHEMA: u32 = 4;

/// The part that stands for a prompt that another stage chooses: that stage's fingerprint.
pub(super) const CHOSEN: &str = "chosen prompt";

/// The part that stands for scores of other stages: the fingerprints of these, and of those that weigh them.
pub(super) const TAUGHT: &str = "teachers";

/// The part that stands for a training's place among those that draw rows, which decides what is drawn as a seed does.
pub(super) const PLACE: &str = "place of drawing";

/// What a stage's result depends on, by name, and its hash; no hash where an input's identity could
/// not be had. References count by what they refer to, not by name; adapters that are started from by their files.
pub(super) fn fingerprint(
    plan: &Plan,
    (kind, filled): (&dyn StageKind, &Filled),
    (start, parent): (&Handed, Option<&str>),
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
        let stored = start.model.numbers.activations.to_string();
        parts.insert("activations".to_owned(), stored);
    }
    parts.extend(of_keys(filled, parent));
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
        if let Some(rules) = &start.model.rules {
            parts.insert("rules".to_owned(), format!("{rules:?}"));
        }
    }
    if let Some((modules, _)) = &start.model.modules
        && start.task.of_modules(modules).is_some()
    {
        parts.insert("modules".to_owned(), format!("{modules:?}"));
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
    whole &= of_teachers(plan, start, &mut parts);
    whole &= of_prompt(plan, start, &mut parts);
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

/// The stages whose scores a stage learns from, and its place among those that draw by them; whether all have fingerprints.
fn of_teachers(plan: &Plan, start: &Handed, parts: &mut IndexMap<String, String>) -> bool {
    let mut whole = true;
    if !start.teachers.is_empty() {
        let print = |name: &str| plan.stage(name).and_then(|s| s.fingerprint.clone());
        let each = start.teachers.iter().map(|teacher| {
            let judge = teacher.judge.as_deref();
            let judged = judge.map(|name| print(name).map(|print| format!("*{print}")));
            Some(print(&teacher.stage)? + &judged.unwrap_or(Some(String::new()))?)
        });
        let each: Option<Vec<String>> = each.collect();
        whole = each.is_some();
        parts.insert(TAUGHT.to_owned(), each.unwrap_or_default().join(" "));
    }
    if let Some(drawing) = &start.drawing {
        parts.insert(PLACE.to_owned(), drawing.place.to_string());
    }
    whole
}

/// The written keys, by name. References count by what they refer to.
fn of_keys<'a>(
    filled: &'a Filled,
    parent: Option<&str>,
) -> impl Iterator<Item = (String, String)> + use<'a> {
    let mut keys: Vec<(&str, &Checked)> = filled
        .values
        .iter()
        .filter(|(k, v)| !matches!(v, Checked::Ref(..)) && !NEUTRAL.contains(k))
        .collect();
    keys.sort_by_key(|(k, _)| *k);
    let goes_on = parent.is_some();
    keys.into_iter().map(move |(key, value)| {
        let text = match value {
            // An objective without keys of its own is its name.
            Checked::Entry(entry) if key == "objective" && entry.values.iter().next().is_none() => {
                Checked::Str(entry.name.clone()).to_string()
            }
            value => value.to_string(),
        };
        // Where a stage goes on from another, its default is that one's objective, which may be any.
        let text = match key {
            "objective" if goes_on && filled.values.written(key) => format!("own {text}"),
            "objective" if goes_on => "inherited".to_owned(),
            _ => text,
        };
        (format!("key {key}"), text)
    })
}

/// The prompt and its demonstrations, or the stage that chooses it. Whether all of their identities are known.
fn of_prompt(plan: &Plan, start: &Handed, parts: &mut IndexMap<String, String>) -> bool {
    if let Some(chooser) = &start.chooser {
        let chooser = plan.stage(&chooser.stage);
        let print = chooser.and_then(|s| s.fingerprint.clone());
        let known = print.is_some();
        parts.insert(CHOSEN.to_owned(), print.unwrap_or_default());
        return known;
    }
    let Some(prompt) = &start.prompt else {
        return true;
    };
    let mut text = format!("{:?} {:?}", prompt.template.source, prompt.words);
    if start.task.label_texts().is_some() {
        text += &format!(" {:?}", prompt.labels);
    }
    parts.insert("prompt".to_owned(), text);
    let Some(shown) = &prompt.demonstrations else {
        return true;
    };
    let identity = shown.identity.as_deref();
    let text = format!(
        "{} of {} tokens, seed {}, {}",
        shown.each,
        shown.length,
        shown.seed,
        identity.unwrap_or_default()
    );
    let more = match shown.showing == Showing::default() {
        true => String::new(),
        false => format!(" {:?} {:?}", shown.showing, prompt.labels),
    };
    parts.insert("demonstrations".to_owned(), text + &more);
    identity.is_some()
}

/// The hash of a fingerprint's parts.
pub(super) fn hash(parts: &IndexMap<String, String>) -> String {
    let text: Vec<String> = parts.iter().map(|(k, v)| format!("{k}\u{1f}{v}")).collect();
    blake3::hash(text.join("\u{1e}").as_bytes())
        .to_hex()
        .to_string()
}
