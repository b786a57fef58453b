//! `peftc diff A B`: two plans compared: what changed, what will run again, memory and time.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{Common, Intent, Prepared, Within, error, print, store_of};
use super::screen::Screen;
use super::table::{Side, Table};
use crate::base::units::{About, Bytes, Count};
use crate::driver::Compiled;
use crate::exec::run::is_finished;
use crate::exec::store::Store;
use crate::plan::Stage;
use crate::program::op::Machine;

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The recipe as it was
    before: PathBuf,
    /// The recipe as it is
    after: PathBuf,
    /// The store, to say what is finished already; `.peftc/store` beside the second recipe if not given
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// A stage in both plans, or in one.
struct Pair<'a> {
    name: &'a str,
    before: Option<&'a Stage>,
    after: Option<&'a Stage>,
}

/// A part of what a result depends on, that is not the same in both.
struct Change {
    part: String,
    before: Option<String>,
    after: Option<String>,
}

impl Pair<'_> {
    /// What differs of all that the result depends on; nothing where a stage is new or gone.
    fn changes(&self) -> Vec<Change> {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return Vec::new();
        };
        let mut parts: Vec<&String> = before.parts.keys().chain(after.parts.keys()).collect();
        parts.sort();
        parts.dedup();
        let values = parts.into_iter().map(|part| Change {
            part: part.trim_start_matches("key ").to_owned(),
            before: before.parts.get(part).cloned(),
            after: after.parts.get(part).cloned(),
        });
        values.filter(|c| c.before != c.after).collect()
    }

    /// In a word.
    fn state(&self) -> &'static str {
        match (self.before, self.after) {
            (None, _) => "new",
            (_, None) => "gone",
            (Some(a), Some(b)) if a.parts == b.parts => "the same",
            _ => "changed",
        }
    }
}

impl Diff {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(None, Intent::Tell) else {
            return exit::WRONG;
        };
        let (before, after) = (
            self.compiled(&self.before, &asked),
            self.compiled(&self.after, &asked),
        );
        let mut code = exit::DONE;
        for compiled in [&before, &after] {
            super::render::report(&compiled.diags, &compiled.sources, &self.common);
            if compiled.plan.is_none() {
                error(&format!(
                    "{} is rejected: there is nothing to compare",
                    compiled.path.display()
                ));
                code = exit::WRONG;
            }
        }
        if code != exit::DONE {
            return code;
        }
        let pairs = pairs(&before, &after);
        let store = Store::open(store_of(&self.after, self.store.as_deref()));
        if self.common.json {
            print(&format!(
                "{:#}\n",
                self.json(&pairs, &store, &asked.machine)
            ));
        } else {
            print(&self.text(&pairs, &store, &asked.machine));
        }
        exit::DONE
    }

    fn compiled(&self, file: &std::path::Path, asked: &Prepared) -> Compiled {
        let store = store_of(file, self.store.as_deref());
        let world = self.common.world();
        self.common.compile(
            file,
            asked,
            &world,
            Within::alone(Some(&store), asked.limit()),
        )
    }

    fn text(&self, pairs: &[Pair<'_>], store: &Store, machine: &Machine) -> String {
        let screen = Screen::out(self.common.color);
        let rates = store.rates(machine.threads);
        let mut table = Table::new([
            ("stage", Side::Left),
            ("", Side::Left),
            ("trained", Side::Right),
            ("memory", Side::Right),
            ("time", Side::Right),
            ("runs", Side::Left),
        ]);
        for pair in pairs {
            let both =
                |of: &dyn Fn(&Stage) -> String| between(pair.before.map(of), pair.after.map(of));
            let trained = both(&|s| match s.job.parameters().1 {
                0 => String::new(),
                n => Count(n).to_string(),
            });
            let memory = both(&|s| Bytes(s.estimate.needs()).to_string());
            let time = both(&|s| {
                s.seconds(&rates, machine)
                    .map_or_else(String::new, |t| About(t).to_string())
            });
            let runs = match pair.after {
                Some(stage) if is_finished(store, stage) => "no, it is finished",
                Some(_) => "yes",
                None => "",
            };
            table.row(vec![
                pair.name.into(),
                pair.state().into(),
                trained.into(),
                memory.into(),
                time.into(),
                runs.into(),
            ]);
        }
        let mut text = table.without_empty().render(screen);
        for pair in pairs {
            let changes = pair.changes();
            if changes.is_empty() {
                continue;
            }
            text.push_str(&format!("\n  {}\n", pair.name));
            for change in changes {
                let pair = (change.before.as_deref(), change.after.as_deref());
                let same = match pair {
                    (Some(before), Some(after)) => shared(before, after),
                    _ => 0,
                };
                let value = |v: Option<&str>| match v.map(|value| value.split_at(same)) {
                    Some(("", value)) => short(value),
                    Some((_, rest)) => short(&format!("…{rest}")),
                    None => "not there".to_owned(),
                };
                let (before, after) = (value(pair.0), value(pair.1));
                let line = format!("    {}: {before} → {after}\n", change.part);
                text.push_str(&screen.fold(&line, 6));
            }
        }
        let most = |of: &dyn Fn(&Pair<'_>) -> Option<u64>| pairs.iter().filter_map(of).max();
        let before = most(&|p| p.before.map(|s| s.estimate.needs()));
        let after = most(&|p| p.after.map(|s| s.estimate.needs()));
        let bytes = |n: Option<u64>| n.map(|n| Bytes(n).to_string());
        let line = between(bytes(before), bytes(after));
        text.push_str(&format!("\n  largest: {line}\n"));
        text
    }

    fn json(&self, pairs: &[Pair<'_>], store: &Store, machine: &Machine) -> Json {
        let rates = store.rates(machine.threads);
        let side = |stage: Option<&Stage>| match stage {
            Some(s) => json!({
                "fingerprint": s.fingerprint, "needs_bytes": s.estimate.needs(), "peak_bytes": s.estimate.peak(),
                "trainable_parameters": s.job.parameters().1, "estimated_s": s.seconds(&rates, machine),
            }),
            None => Json::Null,
        };
        let one = |pair: &Pair<'_>| {
            let changes = pair.changes().into_iter();
            let changes =
                changes.map(|c| json!({ "part": c.part, "before": c.before, "after": c.after }));
            json!({
                "name": pair.name, "state": pair.state(), "before": side(pair.before), "after": side(pair.after),
                "runs": pair.after.map(|s| !is_finished(store, s)), "changes": changes.collect::<Vec<_>>(),
            })
        };
        json!({
            "schema": 1, "before": self.before.display().to_string(), "after": self.after.display().to_string(),
            "stages": pairs.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

/// The stages of the second plan in their order, each with that of the first of the same name; then those that are gone.
fn pairs<'a>(before: &'a Compiled, after: &'a Compiled) -> Vec<Pair<'a>> {
    let all = |c: &'a Compiled| c.plan.iter().flat_map(|p| &p.stages);
    let named = |c: &'a Compiled, name: &str| all(c).find(|s| s.name.value == name);
    let there = all(after).map(|stage| Pair {
        name: &stage.name.value,
        before: named(before, &stage.name.value),
        after: Some(stage),
    });
    let gone = all(before).filter(|s| named(after, &s.name.value).is_none());
    let gone = gone.map(|stage| Pair {
        name: &stage.name.value,
        before: Some(stage),
        after: None,
    });
    there.chain(gone).collect()
}

/// A value that is the same, or what it was and is.
fn between(before: Option<String>, after: Option<String>) -> String {
    match (before, after) {
        (Some(a), Some(b)) if a != b => match (a.as_str(), b.as_str()) {
            ("", b) => format!("– → {b}"),
            (a, "") => format!("{a} → –"),
            (a, b) => format!("{a} → {b}"),
        },
        (_, Some(one)) | (Some(one), None) => one,
        (None, None) => String::new(),
    }
}

/// Bytes with which two long values begin alike, up to a place between keys; so that what differs is not cut off.
fn shared(a: &str, b: &str) -> usize {
    const LONG: usize = 40;
    let alike = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let alike = (0..=alike).rev().find(|&i| a.is_char_boundary(i));
    let same = a.get(..alike.unwrap_or(0)).unwrap_or_default();
    match same.rfind(", ") {
        Some(at) if a.len().max(b.len()) > LONG => at + 1,
        _ => 0,
    }
}

/// Hashes and long values in short.
fn short(value: &str) -> String {
    const MOST: usize = 60;
    const HASH: usize = 12;
    let hash = value.len() >= 32 && value.chars().all(|c| c.is_ascii_hexdigit());
    if hash {
        return format!("{}…", value.get(..HASH).unwrap_or(value));
    }
    if value.chars().count() <= MOST {
        return value.to_owned();
    }
    value.chars().take(MOST - 1).chain(['…']).collect()
}
