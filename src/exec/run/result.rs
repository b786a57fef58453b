//! `OUT/result.json`: the results of a run, and those of other stages that still hold.
//!
//! **Invariant:** a result stands in it only while its stage's fingerprint is the recipe's.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::Options;
use crate::exec::store::Store;
use crate::files::RunError;
use crate::files::durable::create_dirs;
use crate::files::sealed::{self, Found};
use crate::plan::{Plan, Stage};

/// The document's name.
pub const RESULT: &str = "result.json";

/// Results that are left out and named one by one.
const MOST_SAID: usize = 6;

/// How many times longer than a write takes the next one waits: a sweep of thousands of stages that are finished already
/// would else spend its time on a document that grows with each of them.
const REST: u32 = 10;

/// What a run leaves in OUT.
pub(in crate::exec) struct Results<'a> {
    plan: &'a Plan,
    options: &'a Options,
    /// The stages that this run comes to.
    stages: &'a [&'a Stage],
    /// Their results so far.
    done: Vec<Json>,
    /// What was said of results that do not hold any more.
    said: bool,
    /// When the document was written last, and how long that took.
    written: Option<(Instant, Duration)>,
    /// How many of the results are in the document.
    kept: usize,
}

impl<'a> Results<'a> {
    pub(in crate::exec) fn new(
        plan: &'a Plan,
        options: &'a Options,
        stages: &'a [&'a Stage],
    ) -> Self {
        Self {
            plan,
            options,
            stages,
            done: Vec::new(),
            said: false,
            written: None,
            kept: 0,
        }
    }

    /// Adds a result and writes the document unless it was written a moment ago; gives notes on what of an earlier one
    /// was left out.
    ///
    /// # Errors
    /// What the file system says.
    pub(in crate::exec) fn add(&mut self, result: Json) -> Result<Vec<String>, RunError> {
        self.done.push(result);
        let due = |(at, took): (Instant, Duration)| at.elapsed() >= took * REST;
        if self.written.is_none_or(due) {
            self.write()
        } else {
            Ok(Vec::new())
        }
    }

    /// Writes the document if it lacks a result; gives notes on what of an earlier one was left out.
    ///
    /// # Errors
    /// What the file system says.
    pub(in crate::exec) fn write(&mut self) -> Result<Vec<String>, RunError> {
        if self.kept == self.done.len() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        create_dirs(&self.options.out)?;
        // From here on no other process of this store changes what is read now and written again.
        let _lock = Store::open(&self.options.store).lock_results(&self.options.out)?;
        let earlier = self.earlier();
        sealed::write(&self.path(), &self.with(&earlier.entries))?;
        self.written = Some((Instant::now(), begun.elapsed()));
        self.kept = self.done.len();
        Ok(if std::mem::replace(&mut self.said, true) {
            Vec::new()
        } else {
            let mut gone = earlier.gone;
            if let Some(more) = gone.len().checked_sub(MOST_SAID).filter(|n| *n > 0) {
                gone.truncate(MOST_SAID);
                gone.push(format!("and {more} more results, for the same reasons"));
            }
            gone
        })
    }

    /// The plan, what is asked for, and the stages that this run comes to.
    pub(in crate::exec) fn of(&self) -> (&'a Plan, &'a Options, &'a [&'a Stage]) {
        (self.plan, self.options, self.stages)
    }

    /// The document.
    pub(in crate::exec) fn document(&self) -> Json {
        self.with(&self.earlier().entries)
    }

    fn path(&self) -> std::path::PathBuf {
        self.options.out.join(RESULT)
    }

    /// The document with results of an earlier run, all in the order of the plan.
    fn with(&self, entries: &[Json]) -> Json {
        let all = entries.iter().chain(&self.done);
        let all: HashMap<&str, &Json> = all.map(|r| (named(r), r)).collect();
        let plan = self.plan.stages.iter();
        let stages: Vec<&Json> = plan
            .filter_map(|s| all.get(s.name.value.as_str()).copied())
            .collect();
        let text = |(name, text): &(String, String)| json!({ "name": name, "text": text });
        let sources: Json = self.options.sources.iter().map(text).collect();
        let recipe = self.options.recipe.display().to_string();
        json!({ "schema": 1, "recipe": recipe, "sources": sources, "stages": stages })
    }

    /// What OUT holds of earlier runs. It is read each time: a run of another stage may write there, too.
    fn earlier(&self) -> Earlier {
        let mut earlier = Earlier::default();
        let path = self.path();
        let before: Json = match sealed::read(&path) {
            Found::Whole(document) => document,
            Found::Nothing => return earlier,
            Found::Damaged(why) => {
                let place = path.display();
                earlier
                    .gone
                    .push(format!("{place}: {why}; it is written anew"));
                return earlier;
            }
        };
        let list = before.get("stages").and_then(Json::as_array);
        let of = |s: &'a Stage| (s.name.value.as_str(), s);
        let planned: HashMap<&str, &Stage> = self.plan.stages.iter().map(of).collect();
        let coming: HashSet<&str> = self.stages.iter().map(|s| of(s).0).collect();
        for result in list.into_iter().flatten() {
            let name = named(result);
            let (planned, comes) = (planned.get(name).copied(), coming.contains(name));
            let print = |s: &&Stage| {
                let own = result.get("fingerprint").and_then(Json::as_str);
                own.is_some() && s.fingerprint.as_deref() == own
            };
            if planned.is_some_and(|s| print(&s)) {
                // What runs from the beginning is not there any more.
                if !(comes && self.options.fresh) {
                    earlier.entries.push(result.clone());
                }
            } else if !comes {
                earlier.gone.push(self.gone(name, planned.is_some(), &path));
            }
        }
        earlier
    }

    fn gone(&self, name: &str, planned: bool, path: &Path) -> String {
        let why = if planned {
            format!(
                "what it depends on has changed since; `peftc run {}` makes it anew",
                self.options.recipe.display()
            )
        } else {
            "the recipe has no such stage any more".to_owned()
        };
        format!("`{name}` is left out of {}: {why}", path.display())
    }
}

/// Results of an earlier run.
#[derive(Default)]
struct Earlier {
    /// Those that still hold.
    entries: Vec<Json>,
    /// What is to be said of the others.
    gone: Vec<String>,
}

fn named(result: &Json) -> &str {
    result
        .get("name")
        .and_then(Json::as_str)
        .unwrap_or_default()
}
