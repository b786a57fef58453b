//! What `run` prints at its end: the stages, what was chosen, means over repetitions, and what was made.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::base::units::{Bytes, Count};
use crate::base::visible;
use crate::cli::screen::{GOOD, Screen};
use crate::cli::table::{Side, Table};
use crate::library::metric::metric;
use crate::library::model::is_lm;
use crate::library::task;
use crate::plan::Plan;
use crate::report::sweep;

/// Variants of a stage that are listed one by one.
const LISTED: usize = 6;

fn list<'a>(json: &'a Json, key: &str) -> impl Iterator<Item = &'a Json> {
    json.get(key).and_then(Json::as_array).into_iter().flatten()
}

fn string<'a>(json: &'a Json, key: &str) -> &'a str {
    json.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// The table of stages.
pub(super) fn stages(document: &Json, screen: Screen) -> String {
    let right = |title: &'static str| (title, Side::Right);
    let mut table = Table::new([
        ("stage", Side::Left),
        ("kind", Side::Left),
        right("samples/s"),
        right("estimated"),
        right("measured"),
        right("trained"),
        ("metrics", Side::Left),
    ]);
    for stage in list(document, "stages") {
        let bytes = |key: &str| {
            stage
                .get(key)
                .and_then(Json::as_u64)
                .map_or("–".to_owned(), |b| Bytes(b).to_string())
        };
        let rate = stage
            .get("samples_per_s")
            .and_then(Json::as_f64)
            .map_or("–".to_owned(), |r| format!("{r:.1}"));
        let trained = stage
            .get("trainable_parameters")
            .and_then(Json::as_u64)
            .filter(|&n| n > 0)
            .map_or("–".to_owned(), |n| Count(n).to_string());
        let mut metrics: Vec<String> = stage
            .get("metrics")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| {
                let of = match stage.get("f1_class").and_then(Json::as_str) {
                    Some(class) if name == "f1" => {
                        format!(" of {}", crate::cli::scores::short(class))
                    }
                    _ => String::new(),
                };
                Some(format!("{name}{of} {:.4}", value.as_f64()?))
            })
            .collect();
        if stage.get("cached").and_then(Json::as_bool) == Some(true) {
            metrics.push("(from the store)".to_owned());
        }
        table.row(vec![
            string(stage, "name").into(),
            string(stage, "kind").into(),
            rate.into(),
            bytes("estimated_peak_bytes").into(),
            bytes("measured_peak_bytes").into(),
            trained.into(),
            metrics.join(", ").into(),
        ]);
    }
    let legend = "estimated, measured: bytes of tensors at the peak; trained: parameters.";
    let legend = crate::cli::screen::wrap(legend, screen.prose(), "  ");
    // A cell of metrics may be wider than a narrow terminal.
    let table = screen.fold(&table.without_empty().render(screen), 6);
    format!("\n{table}\n{legend}")
}

/// The share of each op in the time of a stage's programs, and how fast it was.
pub(super) fn profiles(document: &Json, screen: Screen) -> String {
    let mut text = String::new();
    for stage in list(document, "stages") {
        let mut table = Table::new([
            (string(stage, "name"), Side::Left),
            ("share", Side::Right),
            ("GFLOP/s", Side::Right),
            ("GB/s", Side::Right),
        ]);
        let mut any = false;
        for op in list(stage, "profile") {
            let number = |key: &str| op.get(key).and_then(Json::as_f64).unwrap_or(0.0);
            table.row(vec![
                string(op, "op").into(),
                format!("{:.1} %", 100.0 * number("share")).into(),
                format!("{:.1}", number("gflop_per_s")).into(),
                format!("{:.1}", number("gb_per_s")).into(),
            ]);
            any = true;
        }
        if any {
            let _ = write!(text, "\n{}", table.render(screen));
        }
    }
    text
}

/// What stages have chosen.
pub(super) fn choices(document: &Json, screen: Screen) -> String {
    let mut text = String::new();
    for stage in list(document, "stages") {
        let Some(choice) = stage.get("choice") else {
            continue;
        };
        let template = choice.get("template").cloned().unwrap_or_default();
        let words = choice.get("words").and_then(Json::as_object);
        let words: Vec<String> = words
            .into_iter()
            .flatten()
            .map(|(class, word)| format!("{}: {word}", visible::line(class)))
            .collect();
        let of = choice.get("of").and_then(Json::as_u64).unwrap_or_default();
        let _ = writeln!(
            text,
            "\n  {} chose, of {of} prompts:\n    {template} with {{ {} }}",
            string(stage, "name"),
            words.join(", ")
        );
    }
    screen.fold(&text, 6)
}

/// For a swept recipe, a table for each stage of its own: means over repetitions.
pub(super) fn repetitions(plan: &Plan, document: &Json, screen: Screen) -> String {
    let seeds: Vec<&str> = plan
        .axes
        .iter()
        .filter(|a| a.repeats)
        .map(|a| a.name.as_str())
        .collect();
    screen.starred(&screen.fold(&sweep::tables(document, &seeds), 4))
}

/// What a stage left for others.
struct Made<'a> {
    name: &'a str,
    declared: &'a str,
    folder: PathBuf,
    loads: String,
    /// Whether `predict` has an answer for a text.
    labels: bool,
}

/// The file of an export for llama.cpp.
const GGUF: &str = "model.gguf";

/// What was made: each folder with what loads it, and the command to predict with. `all` has the stages, too, that an
/// earlier run left in OUT.
pub(super) fn made(document: &Json, all: &Json, out: &Path, screen: Screen) -> String {
    let made = models(document, out);
    let several = models(all, out).len() > 1;
    let mut text = String::new();
    if !made.is_empty() {
        let mut table = Table::new([
            ("made by", Side::Left),
            ("opens with", Side::Left),
            ("folder", Side::Left),
        ]);
        for group in made.chunk_by(|a, b| a.declared == b.declared) {
            for one in group.iter().take(LISTED) {
                table.row(vec![
                    one.name.into(),
                    one.loads.as_str().into(),
                    one.folder.display().to_string().into(),
                ]);
            }
            if let (Some(one), true) = (group.first(), group.len() > LISTED) {
                table.row(vec![
                    format!("and {} more of {}", group.len() - LISTED, one.declared).into(),
                    "".into(),
                    out.join(format!("{}@…", one.declared))
                        .display()
                        .to_string()
                        .into(),
                ]);
            }
        }
        let _ = write!(text, "\n{}", table.render(screen));
    }
    if let Some(last) = made.iter().rfind(|made| made.labels) {
        let variants = made.iter().filter(|m| m.declared == last.declared).count();
        let mut words = vec!["peftc".to_owned(), "predict".to_owned(), quoted(out)];
        if several {
            words.push(format!("--stage {}", last.declared));
        }
        if variants > 1 {
            words.push(format!("--best {}", scored(document)));
        }
        words.push("--input FILE".to_owned());
        let _ = write!(
            text,
            "\n  New text is labelled by\n\n{}",
            command(&words, screen)
        );
    }
    let out = out.to_string_lossy();
    let _ = writeln!(text, "\n  results: {}/result.json", visible::line(&out));
    text
}

/// The stages of a document that left a model or an adapter.
fn models<'a>(document: &'a Json, out: &Path) -> Vec<Made<'a>> {
    list(document, "stages")
        .filter_map(|stage| {
            let name = string(stage, "name");
            let declared = stage.get("stage").and_then(Json::as_str).unwrap_or(name);
            let stored = PathBuf::from(string(stage, "artifact"));
            // In the output where it is linked there; else in the store.
            let places = [out.join(name), out.join(&stored), stored];
            let folder = places.iter().find_map(|place| {
                let inside = ["adapter", "model"].map(|sub| place.join(sub));
                inside.into_iter().find(|dir| {
                    let files = ["config.json", "adapter_config.json", "peftc.json", GGUF];
                    files.iter().any(|file| dir.join(file).exists())
                })
            })?;
            Some(Made {
                name,
                declared,
                loads: loads(&folder),
                labels: labels(&folder),
                folder,
            })
        })
        .collect()
}

/// Whether the task that a folder was trained for has an answer for a text.
fn labels(folder: &Path) -> bool {
    // An adapter that was converted is without the description that `predict` reads.
    let bare = folder.join("adapter_config.json").exists() && !folder.join("peftc.json").exists();
    if bare || elsewhere(folder).is_some() {
        return false;
    }
    let own: Option<Json> = std::fs::read(folder.join("peftc.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let name = own.as_ref().and_then(|own| own.get("objective")?.as_str());
    let form = task::Form {
        all: false,
        nested: false,
    };
    let classes = ["0", "1"].map(str::to_owned);
    name.and_then(task::task)
        .is_none_or(|task| task.answers(&classes, form).is_ok())
}

/// The program that a folder was exported for, if it was.
fn elsewhere(folder: &Path) -> Option<&'static str> {
    if folder.join(GGUF).exists() {
        Some("llama.cpp, Ollama")
    } else if folder.join("adapters.safetensors").exists() {
        Some("mlx-lm")
    } else {
        None
    }
}

/// What opens a folder.
fn loads(folder: &Path) -> String {
    if let Some(program) = elsewhere(folder) {
        return program.to_owned();
    }
    if folder.join("adapter_config.json").exists() {
        return "PeftModel (peft)".to_owned();
    }
    let config: Option<Json> = std::fs::read(folder.join("config.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let class = config
        .as_ref()
        .and_then(|c| c.get("architectures")?.get(0)?.as_str());
    if folder.ends_with("adapter") || class.is_none() {
        // Ladders and several methods at once have no class elsewhere.
        return "peftc".to_owned();
    }
    if folder.join("modules.json").exists() {
        return "SentenceTransformer".to_owned();
    }
    let auto = match class {
        Some(class) if class.ends_with("ForMaskedLM") => "AutoModelForMaskedLM",
        Some(class) if class.ends_with("ForMultipleChoice") => "AutoModelForMultipleChoice",
        Some(class) if class.ends_with("ForQuestionAnswering") => "AutoModelForQuestionAnswering",
        Some(class) if class.ends_with("ForTokenClassification") => {
            "AutoModelForTokenClassification"
        }
        Some(class) if is_lm(class) => "AutoModelForCausalLM",
        Some(class) if class.ends_with("ForConditionalGeneration") => "AutoModelForSeq2SeqLM",
        _ => "AutoModelForSequenceClassification",
    };
    auto.to_owned()
}

/// A metric that the evaluations of a result give.
fn scored(document: &Json) -> &str {
    let metrics =
        list(document, "stages").filter_map(|stage| stage.get("metrics").and_then(Json::as_object));
    let mut names = metrics.flat_map(|map| map.keys());
    names
        .find(|name| metric(name).is_some())
        .map_or("METRIC", String::as_str)
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(visible::acts) {
        // What bash, zsh and ksh read as the character itself.
        let text = text.replace('\\', "\\\\").replace('\'', "\\'");
        return format!("$'{}'", visible::line(&text));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@=,+:".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A command in as many lines as the width asks for, which a shell takes as one.
fn command(words: &[String], screen: Screen) -> String {
    let width = screen.width.unwrap_or(usize::MAX);
    let (mut text, mut line) = (String::new(), "   ".to_owned());
    for word in words {
        if line.trim().len() > 5 && line.chars().count() + 1 + word.chars().count() + 2 > width {
            text.push_str(&format!("{line} \\\n"));
            line = "     ".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    format!("{text}{}\n", screen.paint(GOOD, &line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_one_in_any_width() {
        let words = [
            "peftc",
            "predict",
            "'a b/c'",
            "--stage learn",
            "--input FILE",
        ]
        .map(str::to_owned);
        assert_eq!(
            command(&words, Screen::plain(None)),
            "    peftc predict 'a b/c' --stage learn --input FILE\n"
        );
        assert_eq!(
            command(&words, Screen::plain(Some(44))),
            "    peftc predict 'a b/c' --stage learn \\\n      --input FILE\n"
        );
        assert_eq!(quoted(Path::new("it's")), "'it'\\''s'");
        assert_eq!(quoted(Path::new("a/b@x=1")), "a/b@x=1");
    }
}
