//! `peftc list`: what the registries hold.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::exit;
use super::options::{error, print};
use crate::library::schema::Registry;
use crate::plan::render::card_json;
use crate::program::device::{CARDS, Device};
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
    /// methods, models, stages, optimizers, schedules, metrics, objectives, sources, starts, devices, codes; all
    /// but the last two if not given
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
        let devices = wanted.as_deref() == Some("devices");
        if chosen.is_empty() && !codes && !devices {
            let names = KINDS.iter().map(|(n, _)| *n);
            let names: Vec<&str> = names.chain(["devices", "codes"]).collect();
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
            if devices {
                let cards = CARDS.iter().map(|c| card_json(Device::Cuda(Some(c))));
                map.insert("devices".to_owned(), cards.collect());
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
        if devices {
            text.push_str(&cards());
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

/// The table of cards.
fn cards() -> String {
    let mut text = format!(
        "{:<22} {:>9} {:>6} {:>8} {:>8} {:>8} {:>5} {:>4}\n{:<22} {:>9} {:>6} {:>26} {:>5}\n",
        "device",
        "memory",
        "GB/s",
        "f32",
        "TF32",
        "16 bit",
        "cap.",
        "SMs",
        "",
        "MiB",
        "",
        "TFLOP/s, dense",
        ""
    );
    for card in CARDS {
        let rate = |gigaflops: u64| match gigaflops {
            0 => "–".to_owned(),
            rate => format!("{:.1}", rate as f64 / 1000.0),
        };
        let (major, minor) = card.capability;
        let _ = writeln!(
            text,
            "{:<22} {:>9} {:>6} {:>8} {:>8} {:>8} {:>5} {:>4}",
            card.name,
            card.memory_mib,
            card.bandwidth,
            rate(card.f32),
            rate(card.tf32),
            rate(card.half),
            format!("{major}.{minor}"),
            card.multiprocessors
        );
    }
    text
}
