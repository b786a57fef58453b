//! `run --dry-run`: the stages that would run, and why.

use serde_json::{Value as Json, json};

use super::Run;
use crate::base::units::Bytes;
use crate::cli::output::note;
use crate::cli::screen::Screen;
use crate::cli::table::{Side, Table};
use crate::exec::run::{Options, entry_name, reason};
use crate::exec::store::Store;
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
            let Some(reason) = reason(stage, &store, options) else {
                continue;
            };
            let resumes = options.resumes_at(&store, stage);
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
