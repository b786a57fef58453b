//! `peftc list`: what the registries hold.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::exit;
use super::options::{Color, error, print};
use super::screen::{Screen, TITLE};
use super::table::{Side, Table};
use crate::library::schema::Registry;
use crate::plan::render::card_json;
use crate::program::device::{CARDS, Device};
use crate::resolve::registry;

/// The registries by the name users give.
pub(super) const KINDS: [(&str, Registry); 10] = [
    ("methods", Registry::Method),
    ("models", Registry::Model),
    ("stages", Registry::Stage),
    ("optimizers", Registry::Optimizer),
    ("schedules", Registry::Schedule),
    ("metrics", Registry::Metric),
    ("objectives", Registry::Objective),
    ("sources", Registry::Source),
    ("starts", Registry::Start),
    ("exports", Registry::Export),
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
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: Color,
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
        let screen = Screen::out(self.color);
        let mut text = String::new();
        // One width for all kinds, so that summaries begin in one column.
        let schemas = chosen.iter().flat_map(|(_, kind)| registry::schemas(*kind));
        let widest = schemas.map(|s| s.name.len()).max().unwrap_or(0);
        for (name, kind) in chosen {
            let _ = writeln!(text, "{}", screen.paint(TITLE, name));
            for schema in registry::schemas(*kind) {
                let line = format!("  {:<widest$}  {}\n", schema.name, schema.summary);
                text.push_str(&screen.fold(&line, widest + 4));
            }
        }
        if devices {
            text.push_str(&cards(screen));
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
fn cards(screen: Screen) -> String {
    let right = |title: &'static str| (title, Side::Right);
    let mut table = Table::new([
        ("device", Side::Left),
        right("MiB"),
        right("GB/s"),
        right("f32"),
        right("TF32"),
        right("16 bit"),
        right("capability"),
        right("SMs"),
    ]);
    for card in CARDS {
        let rate = |gigaflops: u64| match gigaflops {
            0 => "–".to_owned(),
            rate => format!("{:.1}", rate as f64 / 1000.0),
        };
        let (major, minor) = card.capability;
        table.row(vec![
            card.name.into(),
            card.memory_mib.to_string().into(),
            card.bandwidth.to_string().into(),
            rate(card.f32).into(),
            rate(card.tf32).into(),
            rate(card.half).into(),
            format!("{major}.{minor}").into(),
            card.multiprocessors.to_string().into(),
        ]);
    }
    format!(
        "{}arithmetic: TFLOP/s, dense; SMs: multiprocessors\n",
        table.flush().render(screen)
    )
}
