//! `peftc list`: what the registries hold.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::exit;
use super::options::{error, print};
use crate::library::schema::Registry;
use crate::resolve::registry;

/// The registries by the name users give.
pub(super) const KINDS: [(&str, Registry); 9] = [
    ("methods", Registry::Method),
    ("models", Registry::Model),
    ("stages", Registry::Stage),
    ("optimizers", Registry::Optimizer),
    ("schedules", Registry::Schedule),
    ("metrics", Registry::Metric),
    ("objectives", Registry::Objective),
    ("sources", Registry::Source),
    ("starts", Registry::Start),
];

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// methods, models, stages, optimizers, schedules, metrics, objectives, sources, starts, codes; all if not given
    kind: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(&self) -> i32 {
        let wanted = self.kind.as_deref().map(|k| {
            if k.ends_with('s') {
                k.to_owned()
            } else {
                format!("{k}s")
            }
        });
        let chosen: Vec<_> = KINDS
            .iter()
            .filter(|(name, _)| wanted.as_deref().is_none_or(|w| w == *name))
            .collect();
        let codes = wanted.as_deref() == Some("codes");
        if chosen.is_empty() && !codes {
            let names: Vec<&str> = KINDS.iter().map(|(n, _)| *n).chain(["codes"]).collect();
            error(&format!(
                "there is nothing called `{}` to list; there are {}",
                self.kind.as_deref().unwrap_or(""),
                names.join(", ")
            ));
            return exit::WRONG;
        }
        if self.json {
            let mut map = serde_json::Map::new();
            for (name, kind) in chosen {
                let list: Vec<_> = registry::schemas(*kind)
                    .iter()
                    .map(|s| json!({ "name": s.name, "summary": s.summary }))
                    .collect();
                map.insert((*name).to_owned(), json!(list));
            }
            if codes {
                map.insert(
                    "codes".to_owned(),
                    json!(
                        crate::driver::codes()
                            .map(|c| format!("peftc::{}", c.name))
                            .collect::<Vec<_>>()
                    ),
                );
            }
            print(&format!("{:#}\n", serde_json::Value::Object(map)));
            return exit::DONE;
        }
        let mut text = String::new();
        for (name, kind) in chosen {
            let _ = writeln!(text, "{name}");
            for schema in registry::schemas(*kind) {
                let _ = writeln!(text, "  {:<12} {}", schema.name, schema.summary);
            }
        }
        if codes {
            for code in crate::driver::codes() {
                let _ = writeln!(text, "peftc::{}", code.name);
            }
        }
        print(&text);
        exit::DONE
    }
}
