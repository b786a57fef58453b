//! `peftc explain NAME`: what a registered thing, a key, a device or a diagnostic code means, and what a
//! word of other tools is called here.

use std::fmt::Write as _;

use clap::Args;

use super::exit;
use super::list::KINDS;
use super::options::{Color, error, print};
use super::screen::{Screen, TITLE, wrap};
use crate::base::suggest;
use crate::base::units::Bytes;
use crate::library::decl::DECLARATIONS;
use crate::library::net::ROLES;
use crate::library::schema::{Default, Key, Schema};
use crate::library::words::{self, Means};
use crate::program::device::{
    ARITHMETIC_EFFICIENCY, BANDWIDTH_EFFICIENCY, CARDS, Card, LEAST_CAPABILITY, overhead,
};
use crate::resolve::registry;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// lora, train, accuracy, seed, train.batch, unknown_key, placement, sweep, cuda, rtx3070-8gb, learning_rate, …
    name: String,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: Color,
}

impl Explain {
    pub(super) fn run(&self) -> i32 {
        let name = self.name.strip_prefix("peftc::").unwrap_or(&self.name);
        let screen = Screen::out(self.color);
        let mut text = found(name, screen);
        if text.is_empty()
            && let Some(word) = words::for_key(name)
        {
            text.push_str(&wrap(&word.help(name, None, None), screen.prose(), ""));
            text.push('\n');
            if let Means::Key { of, key, .. } = word.means {
                keys(&mut text, key, of, screen);
            }
        }
        if text.is_empty() {
            error(&format!(
                "nothing is called `{}`; {}",
                self.name,
                nearest(name)
            ));
            return exit::WRONG;
        }
        print(&text);
        exit::DONE
    }
}

/// All that has a name.
fn found(name: &str, screen: Screen) -> String {
    let mut text = String::new();
    for code in crate::driver::codes() {
        let short = code.name.rsplit("::").next();
        if code.name == name || short == Some(name) {
            let title = screen.paint(TITLE, &format!("peftc::{}", code.name));
            let _ = writeln!(text, "{title}\n\n{}", wrap(code.doc, screen.prose(), ""));
        }
    }
    match name {
        "placement" => placements(&mut text, screen),
        "sweep" | "grid" | "zip" => text.push_str(&screen.fold(SWEEP, 2)),
        _ => {}
    }
    if let Some(about) = places(name) {
        let _ = writeln!(
            text,
            "{}\n",
            screen.paint(TITLE, &format!("{name} (device)"))
        );
        let _ = writeln!(text, "{}", wrap(about, screen.prose(), ""));
    }
    if let Some(card) = Card::named(name) {
        device(&mut text, card, screen);
    }
    for (kind, registry) in KINDS {
        for schema in registry::schemas(registry)
            .into_iter()
            .filter(|s| s.name == name)
        {
            entry(&mut text, kind.trim_end_matches('s'), schema, screen);
        }
    }
    for declaration in DECLARATIONS.iter().filter(|d| d.keyword == name) {
        for schema in declaration.schemas() {
            entry(&mut text, declaration.what, schema, screen);
        }
    }
    match name.split_once('.') {
        Some((block, key)) => {
            let declared = DECLARATIONS.iter().filter(|d| d.keyword == block);
            let mut blocks: Vec<&str> =
                declared.flat_map(|d| d.schemas()).map(|s| s.name).collect();
            blocks.push(block);
            keys(&mut text, key, &blocks, screen);
        }
        None => keys(&mut text, name, &[], screen),
    }
    text
}

/// What a place to compute on is, if that is no card.
fn places(name: &str) -> Option<&'static str> {
    match name {
        "cpu" => Some(
            "The processor: what every command takes where no `--device` is written. `--threads N` says with how many threads; \
             results do not depend on it. `peftc doctor` tells what there is.",
        ),
        "cuda" => Some(
            "The first NVIDIA GPU of this machine; `cuda:N` is another. Every build can run there: the driver, NVRTC and cuBLAS \
             are loaded when they are first asked for. `check` and `plan` tell on any machine whether a recipe fits. A card that is not here is named instead: \
             `peftc list devices`. `peftc doctor --device cuda` tells what stands in the way.",
        ),
        _ => None,
    }
}

/// What comes nearest to a name that nothing has.
fn nearest(name: &str) -> String {
    let schemas = registry::all();
    let all: Vec<&str> = KINDS
        .iter()
        .flat_map(|(_, r)| registry::names(*r))
        .chain(DECLARATIONS.iter().map(|d| d.keyword))
        .chain(["placement", "sweep", "grid", "zip", "cpu", "cuda"])
        .chain(schemas.iter().flat_map(|s| s.keys).map(|k| k.name))
        .chain(crate::driver::codes().filter_map(|c| c.name.rsplit("::").next()))
        .chain(CARDS.iter().map(|c| c.name))
        .collect();
    let near = suggest::nearest(name, all);
    if near.is_empty() {
        "`peftc list` names what there is, `peftc explain train` the keys of a stage".to_owned()
    } else {
        format!("did you mean `{}`?", near.join("` or `"))
    }
}

/// A key in the blocks that have it; in all if none is named.
fn keys(text: &mut String, name: &str, blocks: &[&str], screen: Screen) {
    let mut groups: Vec<(&Key, Vec<&str>)> = Vec::new();
    for schema in registry::all() {
        let asked = blocks.is_empty() || blocks.contains(&schema.name);
        let Some(key) = schema.key(name).filter(|_| asked) else {
            continue;
        };
        let same = |k: &Key| k.kind == key.kind && k.doc == key.doc && k.default == key.default;
        match groups.iter_mut().find(|(known, _)| same(known)) {
            Some((_, list)) if list.contains(&schema.name) => {}
            Some((_, list)) => list.push(schema.name),
            None => groups.push((key, vec![schema.name])),
        }
    }
    for (key, of) in groups {
        let title = screen.paint(TITLE, &format!("{name} (key of {})", of.join(", ")));
        let _ = writeln!(text, "{title}\n");
        let line = format!("{}; {}", key.kind, default(key));
        let _ = write!(text, "{}", wrap(&line, screen.prose(), "  "));
        let _ = writeln!(text, "{}", wrap(key.doc, screen.prose(), "  "));
    }
}

fn default(key: &Key) -> String {
    match key.default {
        Default::Required => "required".to_owned(),
        Default::Absent => "optional".to_owned(),
        Default::Text(text) | Default::Tacit(text) => format!("default {text}"),
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
of any kind. Several sweeps multiply; a recipe has at most 2,000 points.

A stage is planned and run once for each set of values that reaches it: what no axis reaches runs
once. The others are named by the axes that reach them, `learn@seed=1,method=lora`; constructors
by their names, and by what tells them apart where several have one name. `--stage learn` means all
of them. `--set NAME=VALUE` fixes a swept `let`: the sweep loses that axis.

After a run each stage with variants has a table; an axis that changes nothing but stages' `seed`
is a repetition, and gives mean ± standard deviation.

";

fn entry(text: &mut String, kind: &str, schema: &Schema, screen: Screen) {
    let title = screen.paint(TITLE, &format!("{} ({kind})", schema.name));
    let _ = writeln!(
        text,
        "{}",
        screen.fold(&format!("{title}: {}\n", schema.summary), 2)
    );
    let width = screen.prose();
    if !schema.doc.is_empty() {
        let _ = writeln!(text, "{}", wrap(schema.doc, width, ""));
    }
    if !schema.paper.is_empty() {
        let _ = writeln!(
            text,
            "{}",
            wrap(&format!("Source: {}", schema.paper), width, "")
        );
    }
    for key in schema.keys {
        let line = format!("{} — {}; {}", key.name, key.kind, default(key));
        let _ = write!(text, "{}", screen.fold(&format!("  {line}\n"), 6));
        let _ = write!(text, "{}", wrap(key.doc, width, "      "));
    }
    text.push('\n');
}

fn device(text: &mut String, card: &'static Card, screen: Screen) {
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
        text.push_str(&wrap(&note, screen.prose(), ""));
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
    text.push_str(&wrap(&note, screen.prose(), ""));
    text.push('\n');
}

fn placements(text: &mut String, screen: Screen) {
    let mut own =
        String::from("A placement names the linear maps a method acts on, by what they do:\n\n");
    for (_, path) in ROLES {
        let _ = writeln!(own, "  {path}");
    }
    own.push_str(
        "\n`*` matches any one part: `attention.*`. Braces give alternatives: `attention.{key, query}`.\n\
         `layers[12..24].ffn.up` restricts to blocks, counted from 0; `layers[-1]` is the last.\n\
         A string is matched against module paths of the checkpoint: \"*.query\".\n\n",
    );
    text.push_str(&screen.fold(&own, 2));
}
