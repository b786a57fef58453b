//! `peftc explain NAME`: what a registered thing, a key or a diagnostic code means.

use std::fmt::Write as _;

use clap::Args;

use super::exit;
use super::list::KINDS;
use super::options::{error, print};
use crate::base::suggest;
use crate::base::units::Bytes;
use crate::library::decl::DECLARATIONS;
use crate::library::placement::ROLES;
use crate::library::schema::{Default, Schema};
use crate::program::device::{
    ARITHMETIC_EFFICIENCY, BANDWIDTH_EFFICIENCY, CARDS, Card, LEAST_CAPABILITY, overhead,
};
use crate::resolve::registry;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// lora, train, accuracy, resolve::unknown_key, placement, sweep, rtx3070-8gb, …
    name: String,
}

impl Explain {
    pub(super) fn run(&self) -> i32 {
        let name = self.name.strip_prefix("peftc::").unwrap_or(&self.name);
        let mut text = String::new();
        if let Some(code) = crate::driver::codes().find(|c| c.name == name) {
            let _ = writeln!(text, "peftc::{}\n\n{}", code.name, wrap(code.doc, 78, ""));
        }
        if name == "placement" {
            placements(&mut text);
        }
        if matches!(name, "sweep" | "grid" | "zip") {
            text.push_str(SWEEP);
        }
        if let Some(card) = Card::named(name) {
            device(&mut text, card);
        }
        for (kind, registry) in KINDS {
            for schema in registry::schemas(registry)
                .into_iter()
                .filter(|s| s.name == name)
            {
                entry(&mut text, kind.trim_end_matches('s'), schema);
            }
        }
        for declaration in DECLARATIONS.iter().filter(|d| d.keyword == name) {
            for schema in declaration.schemas() {
                entry(&mut text, declaration.what, schema);
            }
        }
        if text.is_empty() {
            let all: Vec<&str> = KINDS
                .iter()
                .flat_map(|(_, r)| registry::names(*r))
                .chain(["placement", "sweep", "grid", "zip"])
                .chain(crate::driver::codes().map(|c| c.name))
                .chain(CARDS.iter().map(|c| c.name))
                .collect();
            let near = suggest::nearest(name, all);
            let hint = if near.is_empty() {
                "`peftc list` names everything".to_owned()
            } else {
                format!("did you mean `{}`?", near.join("` or `"))
            };
            error(&format!("nothing is called `{}`; {hint}", self.name));
            return exit::WRONG;
        }
        print(&text);
        exit::DONE
    }
}

const SWEEP: &str = "\
sweep (declaration): the recipe at several values of its `let`s

  let seed = 1
  let method = lora { rank = 4 }
  sweep compare = grid { seed = [1, 2, 3], method = [lora { rank = 4 }, siva { rank = 4 }] }
  sweep pairs = zip { lr = [1e-3, 2e-4], rank = [4, 8] }

  grid — every combination of the values of its axes
  zip — the first values of all axes, then the second ones, …; the lists are equally long

Each key is an axis: it names a `let` of the recipe, and its values are what the `let` is in turn,
of any kind. Several sweeps multiply; a recipe has at most 10,000 points.

A stage is planned and run once for each set of values that reaches it: what no axis reaches runs
once. The others are named by the axes that reach them, `learn@seed=1,method=lora`; constructors
by their names, and by what tells them apart where several have one name. `--stage learn` means all
of them. `--set NAME=VALUE` fixes a swept `let`: the sweep loses that axis.

After a run each stage with variants has a table; an axis that changes nothing but stages' `seed`
is a repetition, and gives mean ± standard deviation.

";

fn entry(text: &mut String, kind: &str, schema: &Schema) {
    let _ = writeln!(text, "{} ({kind}): {}\n", schema.name, schema.summary);
    if !schema.doc.is_empty() {
        let _ = writeln!(text, "{}", wrap(schema.doc, 78, ""));
    }
    if !schema.paper.is_empty() {
        let _ = writeln!(text, "Source: {}\n", schema.paper);
    }
    for key in schema.keys {
        let default = match key.default {
            Default::Required => "required".to_owned(),
            Default::Absent => "optional".to_owned(),
            Default::Text(text) | Default::Tacit(text) => format!("default {text}"),
        };
        let _ = writeln!(text, "  {} — {}; {default}", key.name, key.kind);
        let _ = write!(text, "{}", wrap(key.doc, 72, "      "));
    }
    text.push('\n');
}

fn device(text: &mut String, card: &'static Card) {
    let (major, minor) = card.capability;
    let tera = |gigaflops: u64| format!("{:.1} TFLOP/s", gigaflops as f64 / 1000.0);
    let own = overhead(Some(card), (0, 0), []);
    let _ = writeln!(text, "{} (device): NVIDIA {}\n", card.name, card.product);
    let lines = [
        ("memory", Bytes(card.memory()).to_string()),
        (
            "left by its driver, about",
            Bytes(card.available()).to_string(),
        ),
        ("CUDA context, about", Bytes(own.context).to_string()),
        ("cuBLAS workspace", Bytes(own.cublas_workspace).to_string()),
        ("bandwidth", format!("{} GB/s", card.bandwidth)),
        ("f32", tera(card.f32)),
        (
            "TF32 products, dense",
            match card.tf32 {
                0 => "none".to_owned(),
                rate => tera(rate),
            },
        ),
        (
            if card.capability < (8, 0) {
                "f16 products, dense"
            } else {
                "f16 and bf16 products, dense"
            },
            tera(card.half),
        ),
        ("compute capability", format!("{major}.{minor}")),
        ("multiprocessors", card.multiprocessors.to_string()),
    ];
    for (what, value) in lines {
        let _ = writeln!(text, "  {what:<30} {value}");
    }
    text.push('\n');
    if card.capability < LEAST_CAPABILITY {
        let (major, minor) = LEAST_CAPABILITY;
        let note = format!(
            "CUDA 13 compiles for capability {major}.{minor} and above: this card needs the tools of CUDA 12."
        );
        text.push_str(&wrap(&note, 78, ""));
    }
    let note = format!(
        "`peftc check --device {}` tells whether a recipe fits it and about how long it takes, on any \
         machine. Rates are the data sheet's; programs compute in f32, and are taken to reach {:.0} % of \
         its arithmetic or {:.0} % of its bandwidth, whichever takes longer. A screen takes some of the \
         memory: say so with `--budget`.",
        card.name,
        100.0 * ARITHMETIC_EFFICIENCY,
        100.0 * BANDWIDTH_EFFICIENCY
    );
    text.push_str(&wrap(&note, 78, ""));
    text.push('\n');
}

fn placements(text: &mut String) {
    text.push_str("A placement names the linear maps a method acts on, by what they do:\n\n");
    for (_, path) in ROLES {
        let _ = writeln!(text, "  {path}");
    }
    text.push_str(
        "\n`*` matches any one part: `attention.*`. Braces give alternatives: `attention.{key, query}`.\n\
         `layers[12..24].ffn.up` restricts to blocks, counted from 0; `layers[-1]` is the last.\n\
         A string is matched against module paths of the checkpoint: \"*.query\".\n\n",
    );
}

/// Text wrapped at a width, each line indented, ending with a newline.
fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            let _ = writeln!(out, "{indent}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{indent}{line}");
    out
}
