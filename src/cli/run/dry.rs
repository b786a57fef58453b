//! `run --dry-run`: the stages that would run, and why.

use serde_json::{Value as Json, json};

use super::Run;
use crate::base::units::Bytes;
use crate::cli::output::note;
use crate::cli::screen::Screen;
use crate::cli::table::{Side, Table};
use crate::exec::run::{Options, entry_name};
use crate::exec::store::{State, Store};
use crate::plan::{Plan, Stage};

impl Run {
    /// Says that a checkpoint is not used.
    fn note_stranded(&self, stage: &Stage, step: u64) {
        let text = format!(
            "note: a checkpoint of `{}` at step {step} is of another version of its recipe and is not used; to go on \
             from it, take back what was changed\n",
            stage.name.value
        );
        note(&Screen::err(self.common.color).fold(&text, 4));
    }

    /// The stages that would run, each with its reason.
    pub(super) fn dry(&self, plan: &Plan, options: &Options) -> String {
        let store = Store::open(options.store.clone());
        let recipe = options.recipe.display().to_string();
        let mut list = Vec::new();
        for stage in self.asked(plan) {
            let key = entry_name(stage);
            let state = store.look(&key);
            let resumes = options.resumes_at(&store, stage);
            let reason = if self.fresh {
                "forced".to_owned()
            } else if stage.fingerprint.is_none() {
                "the identity of an input is unknown".to_owned()
            } else if let State::Finished(_) = state {
                continue;
            } else if let State::Damaged(damage) = state {
                format!("{damage}")
            } else if let Some(step) = resumes {
                format!("interrupted: resumes at {step}")
            } else {
                unfinished(&store, &recipe, stage)
            };
            let stranded = match resumes {
                None if !self.fresh => store.stranded(&options.recipe, &stage.name.value, &key),
                _ => Vec::new(),
            };
            list.push((
                stage,
                reason,
                resumes,
                stranded.into_iter().max_by_key(|(_, step)| *step),
            ));
        }
        for (stage, .., stranded) in &list {
            if let Some((_, step)) = stranded.as_ref().filter(|_| !self.common.quiet) {
                self.note_stranded(stage, *step);
            }
        }
        if self.common.json {
            let row = |(s, why, resumes, stranded): &(&Stage, String, _, Option<(String, u64)>)| {
                let stranded = stranded.as_ref().map(|(_, step)| *step);
                json!({
                    "name": s.name.value, "kind": s.filled.name, "reason": why, "resumes_at": resumes,
                    "stranded_at": stranded, "estimated_peak_bytes": s.estimate.peak(),
                })
            };
            let stages: Vec<Json> = list.iter().map(row).collect();
            let own = json!({ "schema": 1, "recipe": recipe, "would_run": stages });
            return format!("{own:#}\n");
        }
        if list.is_empty() {
            return "nothing would run: every stage is finished\n".to_owned();
        }
        // One line a stage and no other: programs read them.
        let mut table = Table::new([
            ("", Side::Left),
            ("", Side::Left),
            ("", Side::Right),
            ("", Side::Left),
        ]);
        for (stage, reason, ..) in list {
            table.row(vec![
                stage.name.value.as_str().into(),
                stage.filled.name.as_str().into(),
                Bytes(stage.estimate.peak()).to_string().into(),
                reason.into(),
            ]);
        }
        table.flush().render(Screen::out(self.common.color))
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
