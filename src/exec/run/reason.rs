//! Why a stage runs.

use super::{Options, entry_name};
use crate::exec::store::{State, Store};
use crate::plan::Stage;

/// Why a stage would run now; `None` where the store has its result.
#[must_use]
pub fn reason(stage: &Stage, store: &Store, options: &Options) -> Option<String> {
    if options.fresh {
        return Some("forced".to_owned());
    }
    if stage.fingerprint.is_none() {
        return Some("the identity of an input is unknown".to_owned());
    }
    match store.look(&entry_name(stage)) {
        State::Finished(_) => None,
        State::Damaged(damage) => Some(damage.to_string()),
        State::Nothing | State::Unfinished => Some(match options.resumes_at(store, stage) {
            Some(step) => format!("interrupted: resumes at {step}"),
            None => unfinished(store, &options.recipe.display().to_string(), stage),
        }),
    }
}

/// Why a stage that is not in the store would run: what changed since it ran last, if it did.
fn unfinished(store: &Store, recipe: &str, stage: &Stage) -> String {
    match store.latest(recipe, &stage.name.value) {
        Some((_, parts)) if parts != stage.parts => {
            let differs = |k: &&String| parts.get(*k) != stage.parts.get(*k);
            let mut changed: Vec<&String> = stage
                .parts
                .keys()
                .chain(parts.keys())
                .filter(differs)
                .collect();
            changed.sort();
            changed.dedup();
            let names: Vec<String> = changed
                .iter()
                .map(|k| format!("`{}`", k.trim_start_matches("key ")))
                .collect();
            format!("changed: {}", names.join(", "))
        }
        Some(_) => "unfinished".to_owned(),
        None => "new".to_owned(),
    }
}
