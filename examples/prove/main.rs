//! Proves the memory estimate: draws recipes at random over methods, placements, models, batches,
//! lengths, kinds of stages, optimizers, objectives and storage types, runs two steps of each in a
//! process of its own, and compares what was estimated with what was measured. The same seed draws
//! the same recipes on every machine. Exit code 1 if a target is missed.
//!
//! `cargo build && cargo run --example prove -- [--draws N] [--seed S] [--only DRAW] [--verbose] [--csv FILE]`

mod draw;
mod tally;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use peftc::plan::estimate::DECOMPOSITION;
use serde_json::Value;

use draw::Draw;
use tally::{Row, Tally, error};

const REVIEWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/reviews/train.tsv");
const TOKENIZER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/recipes/reviews-mini/tokenizer.json"
);
/// Exit code of a recipe that is wrong.
const REFUSED: i32 = 2;
/// So many refused recipes in a row mean that something else is wrong.
const MOST_REFUSED: u64 = 50;

struct Asked {
    draws: u64,
    seed: u64,
    only: Option<u64>,
    verbose: bool,
    csv: Option<PathBuf>,
}

impl Asked {
    fn from_args() -> Result<Self, String> {
        let mut asked = Self {
            draws: 300,
            seed: 7,
            only: None,
            verbose: false,
            csv: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--verbose" {
                asked.verbose = true;
                continue;
            }
            let value = args.next().ok_or(format!("`{arg}` lacks a value"))?;
            let number = || value.parse().map_err(|_| format!("`{value}` is no number"));
            match arg.as_str() {
                "--draws" => asked.draws = number()?,
                "--seed" => asked.seed = number()?,
                "--only" => asked.only = Some(number()?),
                "--csv" => asked.csv = Some(value.into()),
                _ => return Err(format!("there is no argument `{arg}`")),
            }
        }
        Ok(asked)
    }
}

/// The compiler: it lies one folder above the examples.
fn binary() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = own.parent().and_then(Path::parent);
    let path = folder
        .ok_or("no folder")?
        .join(format!("peftc{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "{} is not there; `cargo build` makes it",
            path.display()
        ))
    }
}

/// How a draw ended.
enum Ended {
    Rows(Vec<Row>),
    Refused(String),
    Failed(String),
}

/// Runs a draw in a scratch directory that is gone afterwards.
fn run(peftc: &Path, index: u64, draw: &Draw) -> Result<Ended, String> {
    let io = |e: std::io::Error| e.to_string();
    let scratch = tempfile::tempdir().map_err(io)?;
    let root = scratch.path();
    for folder in ["model", "data", "tokenizer"] {
        std::fs::create_dir(root.join(folder)).map_err(io)?;
    }
    std::fs::write(root.join("model/config.json"), draw.config.to_string()).map_err(io)?;
    std::fs::copy(TOKENIZER, root.join("tokenizer/tokenizer.json")).map_err(io)?;
    std::fs::write(root.join("data").join(draw.file), &draw.data).map_err(io)?;
    let recipe = root.join("drawn.peft");
    std::fs::write(&recipe, &draw.recipe).map_err(io)?;
    let output = Command::new(peftc)
        .args(["run", "--quiet", "--json", "--fresh", "--offline"])
        .args(["--color", "never", "--store"])
        .arg(root.join("store"))
        .arg(&recipe)
        .output()
        .map_err(io)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(REFUSED) {
        return Ok(Ended::Refused(said));
    }
    if !output.status.success() {
        return Ok(Ended::Failed(format!("{}\n{said}", output.status)));
    }
    let result: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let rows = result["stages"].as_array().into_iter().flatten();
    let rows: Option<Vec<Row>> = rows.map(|stage| row(index, stage)).collect();
    Ok(rows.map_or_else(
        || Ended::Failed(format!("no figures in {result}")),
        Ended::Rows,
    ))
}

fn row(draw: u64, stage: &Value) -> Option<Row> {
    let number = |key: &str| stage[key].as_u64();
    let methods = stage["methods"].as_array().into_iter().flatten();
    let words = std::iter::once(&stage["kind"]).chain(methods);
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    let peak = stage["memory"]["peak_op"].as_str();
    Some(Row {
        draw,
        bound: peak == Some(DECOMPOSITION),
        what: words.join(" "),
        tensors: (
            number("estimated_peak_bytes")?,
            number("measured_peak_bytes")?,
        ),
        process: (
            number("estimated_process_bytes")?,
            number("measured_process_bytes")?,
        ),
    })
}

/// The draw's recipe with all that is needed to try it again.
fn describe(draw: &Draw) -> String {
    format!("# model/config.json: {}\n{}", draw.config, draw.recipe)
}

fn prove(asked: &Asked) -> Result<Tally, String> {
    let io = |e: std::io::Error| e.to_string();
    let peftc = binary()?;
    let reviews = std::fs::read_to_string(REVIEWS).map_err(|e| format!("{REVIEWS}: {e}"))?;
    let texts: Vec<(&str, &str)> = reviews
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once('\t'))
        .collect();
    let mut csv = match &asked.csv {
        Some(path) => {
            let mut file = std::fs::File::create(path).map_err(io)?;
            writeln!(
                file,
                "draw,stage,tensors_estimated,tensors_measured,process_estimated,process_measured"
            )
            .map_err(io)?;
            Some(file)
        }
        None => None,
    };
    let mut tally = Tally::default();
    let chosen = asked.only.map_or(0..asked.draws, |i| i..i + 1);
    for index in chosen {
        let mut attempt = 0;
        let rows = loop {
            let drawn = draw::draw(asked.seed, index, attempt, &texts);
            match run(&peftc, index, &drawn)? {
                Ended::Rows(rows) => {
                    tally.recipes.push((index, describe(&drawn)));
                    break rows;
                }
                Ended::Refused(said) => {
                    if asked.verbose {
                        println!("draw {index} refused:\n{said}");
                    }
                    tally.refused += 1;
                    attempt += 1;
                    if attempt > MOST_REFUSED {
                        return Err(format!("draw {index} is refused again and again:\n{said}"));
                    }
                }
                Ended::Failed(said) => {
                    println!("draw {index} failed: {said}\n{}", describe(&drawn));
                    tally.recipes.push((index, describe(&drawn)));
                    tally.failed += 1;
                    break Vec::new();
                }
            }
        };
        for row in &rows {
            let ((te, tm), (pe, pm)) = (row.tensors, row.process);
            if asked.verbose {
                println!(
                    "draw {index}, {}: tensors {tm} of {te} ({:+.3} %), process {pm} of {pe} ({:+.2} %)",
                    row.what,
                    100.0 * error(row.tensors),
                    100.0 * error(row.process)
                );
            }
            if let Some(file) = &mut csv {
                writeln!(file, "{index},{},{te},{tm},{pe},{pm}", row.what).map_err(io)?;
            }
        }
        if asked.only.is_some() {
            println!("{}", tally.recipes.last().map_or("", |(_, r)| r.as_str()));
        }
        tally.rows.extend(rows);
    }
    Ok(tally)
}

fn main() -> ExitCode {
    let asked = match Asked::from_args() {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match prove(&asked) {
        Ok(tally) if tally.report() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
