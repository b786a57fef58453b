//! The model card: `README.md` in what a stage leaves, as the hub reads it. Its head is YAML, and says what the hub's search and pages
//! show; behind it stands what a reader wants to know: how to use it, data, results, keys, memory, the recipe and the command.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::base::units::{Bytes, Count};
use crate::base::world::Location;
use crate::exec::export::gguf;
use crate::exec::stage::Work;
use crate::files::RunError;
use crate::files::durable::write_bytes;
use crate::library::stage::job::Routine;

/// The file's name.
pub(in crate::exec) const CARD: &str = "README.md";

/// A line that tells a card of ours from one that somebody has made their own.
pub(in crate::exec) const OURS: &str = "<!-- Written by peftc. Remove this line to keep what you change here: then no run writes over it. -->";

/// Most bytes of a recipe that a card shows; `result.json` has all of it.
const RECIPE: usize = 8 << 10;

/// Writes a card into each folder that a stage has left.
///
/// # Errors
/// What the file system says.
pub(in crate::exec) fn write(work: &Work<'_>, result: &Json) -> Result<(), RunError> {
    for name in ["adapter", "model"] {
        let dir = work.dir.join(name);
        if dir.is_dir() {
            let card = Card {
                work,
                result,
                loads: Loads::of(&dir),
            };
            write_bytes(&dir.join(CARD), card.text().as_bytes())?;
        }
    }
    Ok(())
}

/// What opens a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loads {
    Peft,
    Mlx,
    Gguf,
    Transformers,
    /// Nothing but this compiler.
    Own,
}

impl Loads {
    fn of(dir: &Path) -> Self {
        let has = |file: &str| dir.join(file).exists();
        match () {
            () if has("adapter_model.safetensors") && has("adapter_config.json") => Self::Peft,
            () if has("adapters.safetensors") => Self::Mlx,
            () if has(gguf::FILE) => Self::Gguf,
            () if has("config.json") => Self::Transformers,
            () => Self::Own,
        }
    }

    /// Its name among the hub's libraries.
    const fn library(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Mlx => "mlx",
            Self::Gguf => "gguf",
            Self::Transformers => "transformers",
            Self::Own => "peftc",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Peft => "The library `peft` opens this folder, and so does `peftc`.",
            Self::Mlx => "`mlx_lm` opens this folder (`--adapter-path`).",
            Self::Gguf => "`llama.cpp`, Ollama and other programs that read GGUF open the file.",
            Self::Transformers => {
                "The library `transformers` opens this folder, and so does `peftc`."
            }
            Self::Own => {
                "`peftc` opens this folder. No class of `transformers` or `peft` is its equal."
            }
        }
    }
}

/// A card being written.
struct Card<'a> {
    work: &'a Work<'a>,
    result: &'a Json,
    loads: Loads,
}

/// A line `key: value` of YAML; JSON's texts are YAML's.
fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key}: {}", json!(value));
}

/// A list of YAML; nothing where it is empty.
fn list(out: &mut String, key: &str, values: &[String]) {
    if !values.is_empty() {
        let _ = writeln!(out, "{key}:");
        values.iter().for_each(|value| {
            let _ = writeln!(out, "- {}", json!(value));
        });
    }
}

/// A text as it may stand in a cell of a table of Markdown.
fn cell(text: &str) -> String {
    let flat = text.replace(['\n', '\r'], " ").replace('|', "\\|");
    if flat.contains('`') || flat.is_empty() {
        flat
    } else {
        format!("`{flat}`")
    }
}

/// A table of Markdown; nothing where it has no rows.
fn table(out: &mut String, title: &str, head: [&str; 2], rows: &[(String, String)]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n## {title}\n\n| {} | {} |\n| --- | --- |",
        head[0], head[1]
    );
    for (key, value) in rows {
        let _ = writeln!(out, "| {} | {} |", cell(key), cell(value));
    }
}

impl Card<'_> {
    fn text(&self) -> String {
        let mut out = String::from("---\n");
        self.head(&mut out);
        let name = &self.work.stage.name.value;
        let _ = writeln!(
            out,
            "---\n\n{OURS}\n\n# {}\n\n{}",
            name.replace('\n', " "),
            self.summary()
        );
        self.usage(&mut out);
        table(&mut out, "Data", ["key", "rows of"], &self.data());
        let metrics = self.metrics();
        let results: Vec<(String, String)> = metrics
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect();
        if let Some(on) = self.scored_on() {
            table(
                &mut out,
                &format!("Results on {}", cell(&on)),
                ["metric", "value"],
                &results,
            );
        }
        table(&mut out, "Hyper-parameters", ["key", "value"], &self.keys());
        table(&mut out, "Memory", ["of what", "size"], &self.memory());
        self.recipe(&mut out);
        out
    }

    /// The repository of the hub that the model's own weights are of.
    fn base(&self) -> Option<&str> {
        match &self.work.stage.start.model.place {
            Location::Hub { repo, .. } => Some(repo),
            Location::Local(_) => None,
        }
    }

    /// What it is to that repository, in the hub's words.
    fn relation(&self) -> &'static str {
        let trained = matches!(self.work.stage.job.routine, Routine::Fit(_));
        match self.loads {
            Loads::Peft | Loads::Mlx => "adapter",
            Loads::Own if self.work.stage.trained_with.exports_adapter() => "adapter",
            Loads::Gguf if !trained && self.work.stage.parent.is_none() => "quantized",
            _ => "finetune",
        }
    }

    fn head(&self, out: &mut String) {
        let stage = self.work.stage;
        let mut tags = vec!["peftc".to_owned()];
        for method in stage.methods() {
            if !tags.iter().any(|tag| tag == method) {
                tags.push(method.to_owned());
            }
        }
        if let Some(base) = self.base() {
            line(out, "base_model", base);
            line(out, "base_model_relation", self.relation());
            tags.push(format!("base_model:{}:{base}", self.relation()));
        }
        line(out, "library_name", self.loads.library());
        if let Some(tag) = stage.start.task.pipeline_tag() {
            line(out, "pipeline_tag", tag);
        }
        list(out, "tags", &tags);
        let mut hubs: Vec<String> = stage
            .splits
            .iter()
            .flatten()
            .filter_map(|s| s.hub.clone())
            .collect();
        hubs.dedup();
        list(out, "datasets", &hubs);
        let metrics = self.metrics();
        let names: Vec<String> = metrics.iter().map(|(name, _)| name.clone()).collect();
        list(out, "metrics", &names);
        let Some(on) = self.scored_on().filter(|_| !metrics.is_empty()) else {
            return;
        };
        let hub = stage
            .splits
            .get(self.scored())
            .and_then(Option::as_ref)
            .and_then(|s| s.hub.clone());
        let task = stage
            .start
            .task
            .pipeline_tag()
            .unwrap_or_else(|| stage.start.task.name());
        let _ = writeln!(
            out,
            "model-index:\n- name: {}\n  results:",
            json!(stage.name.value)
        );
        let _ = writeln!(out, "  - task:\n      type: {}", json!(task));
        let _ = writeln!(
            out,
            "    dataset:\n      type: {}\n      name: {}",
            json!(hub.as_ref().unwrap_or(&on)),
            json!(on)
        );
        let _ = writeln!(out, "    metrics:");
        for (name, value) in &metrics {
            let _ = writeln!(out, "    - type: {}\n      value: {value}", json!(name));
        }
    }

    /// The place of the split that the stage's own metrics are of, among its splits.
    fn scored(&self) -> usize {
        usize::from(matches!(self.work.stage.job.routine, Routine::Fit(_)))
    }

    /// Its name in the recipe.
    fn scored_on(&self) -> Option<String> {
        let stage = self.work.stage;
        let key = stage.kind.splits().get(self.scored())?;
        stage.filled.values.get(key).map(ToString::to_string)
    }

    /// Metrics with numbers that YAML and the hub take.
    fn metrics(&self) -> Vec<(String, f64)> {
        let all = self.result.get("metrics").and_then(Json::as_object);
        let all = all.into_iter().flatten();
        let finite = all.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
        finite.filter(|(_, value)| value.is_finite()).collect()
    }

    fn summary(&self) -> String {
        let stage = self.work.stage;
        let model = match &stage.start.model.place {
            Location::Hub { repo, revision } => {
                let at = revision.as_ref().map(|r| format!(" at `{r}`"));
                format!(
                    "[{repo}](https://huggingface.co/{repo}){}",
                    at.unwrap_or_default()
                )
            }
            Location::Local(_) if stage.start.model.random.is_some() => {
                "a model with random weights".to_owned()
            }
            Location::Local(dir) => {
                let name = dir.file_name().unwrap_or_default().to_string_lossy();
                format!(
                    "a model in a local folder (`{}`)",
                    name.replace(['`', '\n'], " ")
                )
            }
        };
        let methods = match stage.methods().as_slice() {
            [] => String::new(),
            all => format!(" with `{}`", all.join("`, `")),
        };
        let from = stage
            .parent
            .as_ref()
            .map(|p| format!(", from the stage `{p}`"));
        format!(
            "A `{}` stage{methods} for `{}` on {model}{}. Made by peftc {}.",
            stage.filled.name,
            stage.start.task.name(),
            from.unwrap_or_default(),
            env!("CARGO_PKG_VERSION"),
        )
    }

    fn usage(&self, out: &mut String) {
        let _ = writeln!(out, "\n## How to use it\n\n{}", self.loads.sentence());
        if !matches!(self.loads, Loads::Mlx | Loads::Gguf) {
            let _ = writeln!(out, "\n```sh\npeftc predict FOLDER --input FILE\n```");
        }
        let classes = &self.work.stage.start.classes;
        if !classes.is_empty() {
            let _ = writeln!(
                out,
                "\nIts classes are {}.",
                classes
                    .iter()
                    .map(|c| cell(c))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
    }

    fn data(&self) -> Vec<(String, String)> {
        let stage = self.work.stage;
        let keys = stage.kind.splits().iter().zip(&stage.splits).enumerate();
        keys.filter_map(|(place, (key, split))| {
            let split = split.as_ref()?;
            let name = stage.filled.values.get(key)?;
            let rows = stage.rows(place).map(|n| format!(", {} rows", Count(n)));
            let hub = split.hub.as_ref().map(|hub| format!(" of {hub}"));
            let said = format!(
                "{name}{}{}",
                hub.unwrap_or_default(),
                rows.unwrap_or_default()
            );
            Some(((*key).to_owned(), said))
        })
        .collect()
    }

    fn keys(&self) -> Vec<(String, String)> {
        let values = self.work.stage.filled.values.iter();
        let mut rows: Vec<(String, String)> = values
            .map(|(key, value)| (key.to_owned(), format!("{value:#}")))
            .collect();
        rows.sort();
        rows.push((
            "max_length".to_owned(),
            self.work.stage.start.max_length.to_string(),
        ));
        rows.dedup_by(|a, b| a.0 == b.0);
        rows
    }

    fn memory(&self) -> Vec<(String, String)> {
        let number = |key: &str| self.result.get(key).and_then(Json::as_u64);
        let size =
            |(what, key): (&str, &str)| Some((what.to_owned(), Bytes(number(key)?).to_string()));
        let sizes = [
            ("tensors, estimated", "estimated_peak_bytes"),
            ("tensors, measured", "measured_peak_bytes"),
            ("process, estimated", "estimated_process_bytes"),
            ("process, measured", "measured_process_bytes"),
        ];
        let mut rows: Vec<(String, String)> = sizes.into_iter().filter_map(size).collect();
        if let Some(trained) = number("trainable_parameters").filter(|n| *n > 0) {
            rows.push(("trained parameters".to_owned(), Count(trained).to_string()));
        }
        rows
    }

    fn recipe(&self, out: &mut String) {
        let text = |key: &str| self.result.get(key).and_then(Json::as_str);
        let options = self.work.options;
        let _ = writeln!(out, "\n## How it was made\n");
        if !options.command.is_empty() {
            let _ = writeln!(out, "```sh\n{}\n```\n", options.command.replace('\n', " "));
        }
        let made = [
            ("On", text("date")),
            ("by", text("machine")),
            ("on the device", text("device")),
        ];
        let made: Vec<String> = made
            .iter()
            .filter_map(|(word, said)| Some(format!("{word} {}", (*said)?)))
            .collect();
        if !made.is_empty() {
            let _ = writeln!(out, "{}.", made.join(", ").replace('\n', " "));
        }
        for (name, source) in &options.sources {
            let most = RECIPE.min(source.len());
            let end = (0..=most)
                .rfind(|&at| source.is_char_boundary(at))
                .unwrap_or(0);
            let (shown, rest) = source.split_at(end);
            let cut = if rest.is_empty() {
                ""
            } else {
                "\n# … cut here; result.json has the rest"
            };
            // A fence is longer than any in the text.
            let ticks = shown.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(ticks.max(2) + 1);
            let name = Path::new(name)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let _ = writeln!(
                out,
                "\n{}\n\n{fence}\n{}{cut}\n{fence}",
                cell(&name),
                shown.trim_end()
            );
        }
    }
}
