//! Pages that are made of the registry: methods, the blocks of the language, diagnostic codes, and the gallery of recipes.
//! `BOOK_UPDATE=1 cargo test --test suite book` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use peftc::library::decl::DECLARATIONS;
use peftc::library::schema::{Default, Key, Registry, Schema};
use peftc::resolve::registry;
use serde_json::Value;

use super::{BOOK, text};

/// Compares a file with what it should be, or writes it.
fn held(path: &Path, wanted: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("BOOK_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, wanted).expect("written");
    } else if std::fs::read_to_string(path).ok().as_deref() != Some(wanted) {
        wrong.push(path.display().to_string());
    }
}

/// Says which files are not what they should be.
fn hold(pages: Vec<(String, String)>) {
    let mut wrong = Vec::new();
    for (path, wanted) in pages {
        held(Path::new(&path), &wanted, &mut wrong);
    }
    let how = "`BOOK_UPDATE=1 cargo test --test suite book` writes them anew";
    assert!(
        wrong.is_empty(),
        "other than the registry says: {}\n{how}",
        wrong.join(", ")
    );
}

/// Text of the registry as Markdown: outside of code, what would be marks is none.
fn plain(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => part
            .replace('*', "\\*")
            .replace('<', "\\<")
            .replace("](", "] ("),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

fn default(key: &Key) -> String {
    match key.default {
        Default::Required => "has to be written".to_owned(),
        Default::Absent => "may be left out".to_owned(),
        Default::Text(text) | Default::Tacit(text) => format!("`{text}` if left out"),
    }
}

/// What a thing is: its doc, where it comes from and its keys.
fn body(schema: &Schema, heading: &str) -> String {
    let mut page = format!("{}.\n", plain(schema.summary));
    for paragraph in schema.doc.split("\n\n").filter(|p| !p.is_empty()) {
        let _ = write!(page, "\n{}\n", plain(paragraph.trim()));
    }
    if !schema.paper.is_empty() {
        let _ = write!(page, "\n*Source:* {}\n", plain(schema.paper));
    }
    if !schema.keys.is_empty() {
        let _ = write!(page, "\n{heading}\n\n");
    }
    for key in schema.keys {
        let what = plain(&key.kind.to_string());
        let doc = plain(key.doc);
        let _ = writeln!(
            page,
            "- **`{}`**: {what}; {}. *{doc}*",
            key.name,
            default(key)
        );
    }
    page
}

/// A method in a recipe, with the keys that have to be written.
fn example(schema: &Schema) -> String {
    let required = schema
        .keys
        .iter()
        .filter(|key| matches!(key.default, Default::Required));
    let required: Vec<String> = required.map(|key| format!("{} = …", key.name)).collect();
    match (schema.name, required.as_slice()) {
        ("peft", _) => "adapter = peft \"DIR\"".to_owned(),
        (name, []) => format!("adapter = {name}"),
        (name, keys) => format!("adapter = {name} {{ {} }}", keys.join(", ")),
    }
}

fn method(schema: &Schema) -> String {
    format!(
        "# {}\n\n```text\n{}\n```\n\n{}\n[All methods with their memory](../methods.md) · [starting values](../starting-values.md)\n",
        schema.name,
        example(schema),
        body(schema, "## Keys")
    )
}

fn mib(bytes: f64) -> String {
    match bytes / 1048576.0 {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The stages that `check` gives for a recipe.
fn stages<'a>(checked: &'a Value, recipe: &str) -> &'a [Value] {
    let list = checked["recipes"].as_array().expect("recipes");
    let found = list.iter().find(|r| r["recipe"].as_str() == Some(recipe));
    let found = found.unwrap_or_else(|| panic!("{recipe} was not checked"));
    found["stages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

const METHODS: &str = "# Methods\n
Choose one with [Choosing a method](../choosing.md). Each page has formula, keys and source, as `peftc explain NAME` prints them.\n
The figures are those of one recipe, `recipes/reviews/all_methods.peft`: the embedded BERT with three blocks, batch 16, each method with the
values that the recipe gives it. *Tensors* are bytes at the peak of a step as `peftc check` plans them, *trained* counts the parameters
with those of the head (148,610). A dash means that the recipe leaves the method out.\n
| method | what it is | trained | tensors |\n| --- | --- | ---: | ---: |\n";

fn methods(checked: &Value) -> String {
    let stages = stages(checked, "recipes/reviews/all_methods.peft");
    let mut page = METHODS.to_owned();
    for schema in registry::schemas(Registry::Method) {
        let own = |stage: &&Value| {
            let methods = stage["methods"].as_array();
            stage["kind"] == "train"
                && methods.is_some_and(|list| list.iter().any(|m| m == schema.name))
        };
        let (trained, tensors) = match stages.iter().find(own) {
            Some(stage) => (
                grouped(stage["parameters"]["trainable"].as_u64().expect("a count")),
                mib(stage["memory"]["peak"].as_f64().expect("bytes")),
            ),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let name = schema.name;
        let what = plain(schema.summary).replace('|', "\\|");
        let _ = writeln!(
            page,
            "| [`{name}`](methods/{name}.md) | {what} | {trained} | {tensors} |"
        );
    }
    page
}

/// The summary with a line for each method.
fn summary() -> String {
    let own = text(&Path::new(BOOK).join("SUMMARY.md"));
    let mut lines = Vec::new();
    for line in own
        .lines()
        .filter(|line| !line.contains("](reference/methods/"))
    {
        lines.push(line.to_owned());
        if line.contains("](reference/methods.md)") {
            let all = registry::schemas(Registry::Method);
            lines.extend(
                all.iter()
                    .map(|m| format!("    - [{0}](reference/methods/{0}.md)", m.name)),
            );
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_method_has_its_page() {
    let mut list = vec![
        (format!("{BOOK}/SUMMARY.md"), summary()),
        (
            format!("{BOOK}/reference/methods.md"),
            methods(crate::recipes::checked()),
        ),
    ];
    let all = registry::schemas(Registry::Method);
    assert!(all.len() > 60, "{} methods", all.len());
    list.extend(
        all.into_iter()
            .map(|m| (format!("{BOOK}/reference/methods/{}.md", m.name), method(m))),
    );
    hold(list);
}

const BLOCKS: &str = "# Blocks and their keys\n
What each block of a recipe may hold. `peftc explain train` prints the same of a block, `peftc explain train.batch` of a key.
Methods have [pages of their own](methods.md).\n";

#[test]
fn every_block_and_key_is_in_the_book() {
    let mut page = BLOCKS.to_owned();
    for declaration in &DECLARATIONS {
        let own = declaration.schemas();
        let own: Vec<_> = own.into_iter().filter(|s| !s.keys.is_empty()).collect();
        if !own.is_empty() {
            let _ = write!(page, "\n## `{}`\n", declaration.keyword);
        }
        for schema in own {
            let _ = write!(
                page,
                "\n### `{} NAME = {}`\n\n{}",
                declaration.keyword,
                schema.name,
                body(schema, "Keys:")
            );
        }
    }
    let others = [
        ("Objectives", Registry::Objective),
        ("Optimizers", Registry::Optimizer),
        ("Schedules", Registry::Schedule),
        ("Metrics", Registry::Metric),
    ];
    for (title, kind) in others {
        let _ = write!(page, "\n## {title}\n");
        for schema in registry::schemas(kind) {
            let _ = write!(page, "\n### `{}`\n\n{}", schema.name, body(schema, "Keys:"));
        }
    }
    hold(vec![(format!("{BOOK}/reference/blocks.md"), page)]);
}

const CODES: &str = "# The index of messages\n
Every message has a code, such as `peftc::resolve::unknown_key`. `peftc explain unknown_key` prints what stands here. Codes of one layer stand
together: the layers are those of [the architecture](../inside/architecture.md).\n";

#[test]
fn every_code_is_in_the_index() {
    let mut page = CODES.to_owned();
    let mut layer = "";
    for code in peftc::driver::codes() {
        let lines: Vec<&str> = code.doc.lines().map(str::trim).collect();
        let doc = lines.join("\n").trim().to_owned();
        let (own, name) = code.name.split_once("::").expect("a layer and a name");
        if own != layer {
            layer = own;
            let _ = write!(page, "\n## {layer}\n");
        }
        let _ = write!(page, "\n### {name}\n\n{}\n", plain(&doc));
    }
    hold(vec![(format!("{BOOK}/reference/errors.md"), page)]);
}

/// What a recipe shows: the first paragraph of its comments.
fn shows(recipe: &str) -> String {
    let own = text(Path::new(recipe));
    let lines = own.lines().skip_while(|line| !line.starts_with('#'));
    let lines = lines.take_while(|line| line.starts_with('#'));
    let words: Vec<&str> = lines
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    words.join(" ").replace('|', "\\|")
}

fn time(stages: &[Value]) -> String {
    let each: Option<Vec<f64>> = stages
        .iter()
        .filter(|s| s["kind"] != "export")
        .map(|s| s["estimated_s"].as_f64())
        .collect();
    match each.map(|list| list.iter().sum::<f64>()) {
        None => "–".to_owned(),
        Some(s) if s < 90.0 => format!("{s:.0} s"),
        Some(s) if s < 5400.0 => format!("{:.0} min", s / 60.0),
        Some(s) => format!("{:.0} h", s / 3600.0),
    }
}

const GALLERY: &str = "# The gallery\n
Every recipe here, with what it shows and what `peftc check` says it costs. *Process* is the memory of the largest stage, *time* that of
the arithmetic by the rates of a usual processor with two cores; a dash means that the data are on the hub and were not at hand. This page is
written by a test (`BOOK_UPDATE=1 cargo test --test suite book`).\n";

const FOLDERS: &[(&str, &str)] = &[
    (
        "recipes",
        "## To begin with\n\nThey run as they are, on a model and data that lie beside them.\n",
    ),
    (
        "recipes/reviews",
        "## Film reviews\n\nOne recipe a method on the embedded model and data. They run as they are.\n",
    ),
    (
        "recipes/report",
        "## The report on RoBERTa-large and DistilBERT\n\nModels and data come from the hub; what is planned here needs the config.json beside the recipes alone. The figures \
         behind a row are the report's (see the README).\n",
    ),
];

#[test]
fn the_gallery_lists_every_recipe() {
    let checked = crate::recipes::checked();
    let mut page = GALLERY.to_owned();
    for (folder, title) in FOLDERS {
        let _ = write!(
            page,
            "\n{title}\n| recipe | what it shows | stages | process | time |\n| --- | --- | ---: | ---: | ---: |\n"
        );
        let own = crate::recipes::recipes()
            .into_iter()
            .filter(|path| path.parent() == Some(Path::new(folder)));
        for path in own {
            let name = path.display().to_string();
            let stages = stages(checked, &name);
            if stages.is_empty() {
                continue; // What others import.
            }
            let process = |s: &Value| {
                s["memory"]["peak"].as_f64().unwrap_or(0.0)
                    + s["memory"]["host"].as_f64().unwrap_or(0.0)
            };
            let most = stages.iter().map(process).fold(0.0, f64::max);
            let way = name.trim_start_matches("recipes/");
            let _ = writeln!(
                page,
                "| [{way}]({way}) | {} | {} | {} | {} |",
                shows(&name),
                stages.len(),
                mib(most),
                time(stages)
            );
        }
    }
    let others = crate::recipes::recipes();
    let others = others.iter().filter(|path| {
        path.starts_with("recipes/peft_comparison") && !path.ends_with("common.peft")
    });
    let _ = write!(
        page,
        "\n## PEFT's comparison of methods\n\n`peft_comparison` holds {} recipes, one for each configuration that PEFT compares on Llama-3.2-3B. \
         [A table](../docs/peft-comparison.md) has what each of them trains and how much memory it takes beside PEFT's.\n",
        others.count()
    );
    hold(vec![("recipes/README.md".to_owned(), page)]);
}
