//! `peftc predict`: label new text.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{error, pool, print};
use crate::exec::device::Device;
use crate::exec::observe::Silent;
use crate::exec::predict::Predictor;
use crate::files::RunError;
use crate::files::sealed;
use crate::library::data::{Cell, Input, format_named, format_of};
use crate::library::metric::Predictions;
use crate::library::model::HeadKind;
use crate::library::stage::stage;
use crate::program::op::Machine;
use crate::resolve::methods_from_text;

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub(super) struct Predict {
    /// A finished stage's artifact, or an output directory (its last model is taken)
    artifact: PathBuf,
    /// Text to label: TSV or JSONL with the columns the model was trained on
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Columns of the text, if not those of the training
    #[arg(long, value_delimiter = ',')]
    text: Vec<String>,
    /// Examples at once
    #[arg(long, default_value_t = 32)]
    batch: u64,
    /// Draws of the prompt's demonstrations to average over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    draws: u64,
    /// Device to compute on: cpu, cuda, cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads to compute with; all cores if not given
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Predict {
    pub(super) fn run(&self) -> i32 {
        let named = self.device.parse::<Device>();
        let device = match named.and_then(|device| device.is_built().map(|()| device)) {
            Ok(device) => device,
            Err(why) => {
                error(&format!("`--device {}`: {why}", self.device));
                return exit::WRONG;
            }
        };
        let machine = Machine::detect(self.threads);
        match pool(machine.threads).install(|| self.predict(machine, device)) {
            Ok(text) => {
                print(&text);
                exit::DONE
            }
            Err(why) => {
                error(&why.to_string());
                why.exit_code()
            }
        }
    }

    fn predict(&self, machine: Machine, device: Device) -> Result<String, RunError> {
        let artifact = last_model(&self.artifact)?;
        let predictor = Predictor::open(&artifact, &methods_from_text)?;
        let columns = if self.text.is_empty() {
            predictor.description.text.clone()
        } else {
            self.text.clone()
        };
        let format = format_of(&self.input)
            .or_else(|| format_named("tsv"))
            .ok_or_else(|| RunError::bug("no formats are registered"))?;
        let bytes =
            std::fs::read(&self.input).map_err(|e| RunError::file(&self.input, e.to_string()))?;
        let name = self.input.display().to_string();
        let input = Input {
            bytes: bytes.into(),
            file: &name,
        };
        let cell = |c: &Cell| match c {
            Cell::Text(t) => t.clone(),
            Cell::Int(n) => n.to_string(),
            Cell::Float(x) => x.to_string(),
            Cell::Missing => String::new(),
        };
        let mut texts: Vec<Vec<String>> = Vec::new();
        let read = (format.read)(&input, &columns, &mut |row| {
            texts.push(row.cells.iter().map(cell).collect());
            true
        });
        read.map_err(|e| {
            let help = e.help.clone().map(|h| format!("; {h}")).unwrap_or_default();
            RunError::file(&self.input, format!("{}{help}", e.message))
        })?;
        let predictions = predictor.predict(
            &texts,
            (self.batch.max(1), self.draws),
            (machine, device),
            &mut Silent,
        )?;
        let json = format.name == "jsonl";
        Ok(if json {
            jsonl(&columns, &texts, &predictions, &predictor.head)
        } else {
            tsv(&columns, &texts, &predictions, &predictor.head)
        })
    }
}

/// The artifact itself, or the last model that an output directory's result.json names.
fn last_model(path: &Path) -> Result<PathBuf, RunError> {
    let result = path.join("result.json");
    if !result.exists() {
        return Ok(path.to_path_buf());
    }
    let bytes = sealed::unbroken(&result, "`peftc run` writes it again")?;
    let json: Json = serde_json::from_slice(&bytes)
        .map_err(|e| RunError::file(&result, format!("damaged: {e}")))?;
    let stages = json.get("stages").and_then(Json::as_array);
    let models = stages.into_iter().flatten().filter(|s| {
        s.get("kind")
            .and_then(Json::as_str)
            .is_none_or(leaves_model)
    });
    models
        .filter_map(|s| s.get("artifact").and_then(Json::as_str).map(PathBuf::from))
        .next_back()
        .ok_or_else(|| RunError::file(&result, "no finished training or merge stage is listed"))
}

fn leaves_model(kind: &str) -> bool {
    stage(kind).is_none_or(|k| k.trains() || k.merges())
}

fn answer(row: &[f32], best: u32, head: &HeadKind) -> String {
    match head {
        HeadKind::Classes(names) => names.get(best as usize).cloned().unwrap_or_default(),
        HeadKind::Regression | HeadKind::Vocabulary => {
            row.first().map(ToString::to_string).unwrap_or_default()
        }
    }
}

/// Softmax of a row of scores.
fn probabilities(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|x| f64::from(x - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|x| x / sum).collect()
}

fn tsv(columns: &[String], texts: &[Vec<String>], p: &Predictions, head: &HeadKind) -> String {
    let mut out = columns.join("\t");
    out.push_str("\tprediction");
    if let HeadKind::Classes(names) = head {
        names.iter().for_each(|n| {
            let _ = write!(out, "\tp_{n}");
        });
    }
    out.push('\n');
    for ((text, row), best) in texts
        .iter()
        .zip(p.scores.chunks(p.width.max(1)))
        .zip(p.classes())
    {
        let clean: Vec<String> = text
            .iter()
            .map(|t| t.replace(['\t', '\n', '\r'], " "))
            .collect();
        let _ = write!(out, "{}\t{}", clean.join("\t"), answer(row, best, head));
        if matches!(head, HeadKind::Classes(_)) {
            for x in probabilities(row) {
                let _ = write!(out, "\t{x:.6}");
            }
        }
        out.push('\n');
    }
    out
}

fn jsonl(columns: &[String], texts: &[Vec<String>], p: &Predictions, head: &HeadKind) -> String {
    let mut out = String::new();
    for ((text, row), best) in texts
        .iter()
        .zip(p.scores.chunks(p.width.max(1)))
        .zip(p.classes())
    {
        let mut map: serde_json::Map<String, Json> = columns
            .iter()
            .cloned()
            .zip(text.iter().map(|t| json!(t)))
            .collect();
        let value = match head {
            HeadKind::Classes(_) => json!(answer(row, best, head)),
            HeadKind::Regression | HeadKind::Vocabulary => json!(row.first()),
        };
        map.insert("prediction".to_owned(), value);
        if let HeadKind::Classes(names) = head {
            let list: serde_json::Map<String, Json> = names
                .iter()
                .cloned()
                .zip(probabilities(row).into_iter().map(|x| json!(x)))
                .collect();
            map.insert("probabilities".to_owned(), Json::Object(list));
        }
        let _ = writeln!(out, "{}", Json::Object(map));
    }
    out
}
