//! Proves the memory estimate: draws recipes at random over methods, placements, models, batches,
//! lengths, kinds of stages, optimizers, objectives and storage types, runs two steps of each in a
//! process of its own, and compares what was estimated with what was measured. The same seed draws
//! the same recipes on every machine. Exit code 1 if a target is missed.
//!
//! `cargo build && cargo run --example prove -- [--draws N] [--seed S] [--only DRAW] [--device cpu|cuda|cuda:N]
//! [--precision f32|tf32|bf16|any] [--peftc FILE] [--limit SECONDS] [--confine] [--verbose] [--csv FILE]`
//!
//! Behind the random draws come corners: ranks as large as the matrices, a thousand classes.
//! With `--confine` every stage runs a second time, in a control group with exactly the memory of its process line.
//!
//! With `--device cuda` each recipe is estimated by `check` for that very device and then run there. Texts and
//! tokenizer are part of the program, so it runs where the repository is not; `--peftc` names the compiler then.

mod confine;
mod decoders;
mod dice;
mod draw;
mod tally;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use peftc::library::derive::DECOMPOSITION;
use serde_json::Value;

use confine::Cage;
use draw::Draw;
use tally::{Card, Row, Tally, error};
use watch::Watch;

const REVIEWS: &str = include_str!("../../recipes/reviews/train.tsv");
const TOKENIZER: &str = include_str!("../../recipes/reviews-mini/tokenizer.json");
const TALES: [(&str, &str); 2] = [
    (
        "tokenizer.json",
        include_str!("../../recipes/tales-mini/tokenizer.json"),
    ),
    (
        "tokenizer_config.json",
        include_str!("../../recipes/tales-mini/tokenizer_config.json"),
    ),
];
/// Exit code of a recipe that is wrong.
const REFUSED: i32 = 2;
/// So many refused recipes in a row mean that something else is wrong.
const MOST_REFUSED: u64 = 50;

struct Asked {
    draws: u64,
    seed: u64,
    only: Option<u64>,
    device: String,
    precision: Option<String>,
    peftc: Option<PathBuf>,
    limit: Option<Duration>,
    confine: bool,
    verbose: bool,
    csv: Option<PathBuf>,
}

impl Asked {
    fn from_args() -> Result<Self, String> {
        let mut asked = Self {
            draws: 300,
            seed: 7,
            only: None,
            device: "cpu".to_owned(),
            precision: None,
            peftc: None,
            limit: None,
            confine: false,
            verbose: false,
            csv: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--verbose" => asked.verbose = true,
                "--confine" => asked.confine = true,
                _ => {}
            }
            if matches!(arg.as_str(), "--verbose" | "--confine") {
                continue;
            }
            let value = args.next().ok_or(format!("`{arg}` lacks a value"))?;
            let number = || value.parse().map_err(|_| format!("`{value}` is no number"));
            match arg.as_str() {
                "--draws" => asked.draws = number()?,
                "--seed" => asked.seed = number()?,
                "--only" => asked.only = Some(number()?),
                "--device" => asked.device = value,
                "--precision" => asked.precision = Some(value),
                "--peftc" => asked.peftc = Some(value.into()),
                "--limit" => asked.limit = Some(Duration::from_secs(number()?)),
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
    /// The stages, and the bytes of the whole GPU: estimated, measured.
    Rows(Vec<Row>, Option<(u64, u64)>),
    Refused(String),
    Failed(String),
}

/// What runs the draws.
struct Bench {
    peftc: PathBuf,
    device: String,
    watch: Option<Watch>,
    /// Whether stages are run again within their process line; how many did not fit.
    confine: bool,
    tight: u64,
}

impl Bench {
    fn on_card(&self) -> bool {
        self.device != "cpu"
    }

    /// A command of the compiler on a recipe, and what it leaves in a store of its own.
    fn command(&self, words: &[&str], root: &Path, store: &str) -> Command {
        let mut command = Command::new(&self.peftc);
        command
            .args(words)
            .args(["--quiet", "--json", "--offline", "--color", "never"])
            .args(["--device", &self.device, "--store"])
            .arg(root.join(store))
            .arg(root.join("drawn.peft"));
        command
    }

    /// Runs the stages one by one within exactly the memory that is said of each; those that did not fit.
    fn confined(&self, result: &Value, root: &Path) -> Result<Vec<String>, String> {
        let mut list = Vec::new();
        for stage in result["stages"].as_array().into_iter().flatten() {
            let (Some(name), Some(bytes)) = (
                stage["name"].as_str(),
                stage["estimated_process_bytes"].as_u64(),
            ) else {
                continue;
            };
            let cage = Cage::new(bytes).map_err(|why| format!("nothing can be confined: {why}"))?;
            let command = self.command(&["run", "--stage", name], root, "confined");
            let output = cage.around(&command).output().map_err(|e| e.to_string())?;
            if !output.status.success() {
                list.push(format!("{name} within {bytes} bytes: {}", output.status));
                // What comes from it can run all the same.
                let mut free = self.command(&["run", "--stage", name], root, "confined");
                free.output().map_err(|e| e.to_string())?;
            }
        }
        Ok(list)
    }

    /// Runs a draw in a scratch directory that is gone afterwards.
    fn run(&mut self, index: u64, draw: &Draw) -> Result<Ended, String> {
        let io = |e: std::io::Error| e.to_string();
        let scratch = tempfile::tempdir().map_err(io)?;
        let root = scratch.path();
        for folder in ["model", "data", "tokenizer", "tales"] {
            std::fs::create_dir(root.join(folder)).map_err(io)?;
        }
        std::fs::write(root.join("model/config.json"), draw.config.to_string()).map_err(io)?;
        std::fs::write(root.join("tokenizer/tokenizer.json"), TOKENIZER).map_err(io)?;
        for (name, text) in TALES {
            std::fs::write(root.join("tales").join(name), text).map_err(io)?;
        }
        std::fs::write(root.join("data").join(draw.file), &draw.data).map_err(io)?;
        std::fs::write(root.join("drawn.peft"), &draw.recipe).map_err(io)?;
        let mut planned = Value::Null;
        if self.on_card() {
            let mut check = self.command(&["check"], root, "store");
            let output = check.output().map_err(io)?;
            if let Some(ended) = ended(&output) {
                return Ok(ended);
            }
            planned = json(&output)?["recipes"][0].take();
        }
        if let Some(watch) = &mut self.watch {
            watch.begin();
        }
        let mut run = self.command(&["run", "--fresh"], root, "store");
        let output = run.output().map_err(io)?;
        if let Some(ended) = ended(&output) {
            return Ok(ended);
        }
        let most = self.watch.as_ref().map(Watch::most);
        let result = json(&output)?;
        if self.confine {
            for stage in self.confined(&result, root)? {
                println!("draw {index} does not fit: {stage}\n{}", draw.recipe);
                self.tight += 1;
            }
        }
        let stages = result["stages"].as_array().into_iter().flatten();
        let rows = stages.map(|stage| row(index, stage, &planned));
        let Some(rows) = rows.collect::<Option<Vec<Row>>>() else {
            return Ok(Ended::Failed(format!("no figures in {result}")));
        };
        let card = planned["device_bytes"].as_u64().zip(most);
        let card = card.filter(|_| rows.iter().any(|r| r.on_card));
        Ok(Ended::Rows(rows, card))
    }
}

fn json(output: &std::process::Output) -> Result<Value, String> {
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}

/// How a command ended that did not do what it should.
fn ended(output: &std::process::Output) -> Option<Ended> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => None,
        Some(REFUSED) => Some(Ended::Refused(said)),
        _ => Some(Ended::Failed(format!("{}\n{said}", output.status))),
    }
}

/// A stage's figures. On a GPU the estimate is that of `check` for it, `planned`.
fn row(draw: u64, stage: &Value, planned: &Value) -> Option<Row> {
    let number = |key: &str| stage[key].as_u64();
    let methods = stage["methods"].as_array().into_iter().flatten();
    let words = std::iter::once(&stage["kind"]).chain(methods);
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    let peak = stage["memory"]["peak_op"].as_str();
    let on_card = stage["device"].as_str()? != "cpu";
    let mut tensors = (
        number("estimated_peak_bytes")?,
        number("measured_peak_bytes")?,
    );
    let mut planned_alike = true;
    if on_card {
        let mut all = planned["stages"].as_array()?.iter();
        let memory = &all.find(|s| s["name"] == stage["name"])?["memory"];
        let estimated = memory["peak"].as_u64()?;
        planned_alike = estimated == tensors.0;
        tensors.0 = estimated;
    }
    Some(Row {
        draw,
        bound: peak == Some(DECOMPOSITION),
        what: words.join(" "),
        on_card,
        planned_alike,
        tensors,
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

#[expect(
    clippy::too_many_lines,
    reason = "one draw, from its recipe to its verdict"
)]
fn prove(asked: &Asked) -> Result<Tally, String> {
    let io = |e: std::io::Error| e.to_string();
    let peftc = asked.peftc.clone().map_or_else(binary, Ok)?;
    let mut bench = Bench {
        peftc,
        device: asked.device.clone(),
        watch: None,
        confine: asked.confine,
        tight: 0,
    };
    if bench.on_card() {
        match Watch::start(&asked.device) {
            Ok(watch) => bench.watch = Some(watch),
            Err(why) => println!("the GPU's whole memory is not watched: {why}"),
        }
    }
    let begun = Instant::now();
    let texts: Vec<(&str, &str)> = REVIEWS
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once('\t'))
        .collect();
    let mut csv = match &asked.csv {
        Some(path) => {
            let mut file = std::fs::File::create(path).map_err(io)?;
            writeln!(
                file,
                "draw,stage,tensors_estimated,tensors_measured,process_estimated,process_measured,on_card,card_estimated,card_measured"
            )
            .map_err(io)?;
            Some(file)
        }
        None => None,
    };
    let mut tally = Tally::new(bench.on_card());
    let corners = draw::corners(&texts);
    let last = asked.draws + corners.len() as u64;
    let chosen = asked.only.map_or(0..last, |i| i..i + 1);
    for index in chosen {
        if asked.limit.is_some_and(|limit| begun.elapsed() > limit) {
            println!("stopped before draw {index}: the time is over");
            break;
        }
        let mut attempt = 0;
        let (rows, card) = loop {
            let corner = index.checked_sub(asked.draws);
            let corner = corner.and_then(|i| corners.get(i as usize));
            let mut drawn = match corner {
                Some(corner) => corner.clone(),
                None => draw::draw(asked.seed, index, attempt, &texts),
            };
            if let Some(precision) = &asked.precision {
                drawn.say_precision(precision, asked.seed, index);
            }
            match bench.run(index, &drawn)? {
                Ended::Rows(rows, card) => {
                    tally.recipes.push((index, describe(&drawn)));
                    break (rows, card);
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
                    break (Vec::new(), None);
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
                let (ce, cm) =
                    card.map_or_else(Default::default, |(e, m)| (e.to_string(), m.to_string()));
                let on = u8::from(row.on_card);
                writeln!(
                    file,
                    "{index},{},{te},{tm},{pe},{pm},{on},{ce},{cm}",
                    row.what
                )
                .map_err(io)?;
            }
        }
        if let Some(bytes) = card {
            if asked.verbose {
                let (estimated, measured) = bytes;
                println!(
                    "draw {index}, the whole GPU: {measured} of {estimated} ({:+.2} %)",
                    100.0 * error(bytes)
                );
            }
            tally.cards.push(Card { draw: index, bytes });
        }
        if asked.only.is_some() {
            println!("{}", tally.recipes.last().map_or("", |(_, r)| r.as_str()));
        }
        tally.rows.extend(rows);
    }
    tally.confined = asked.confine.then_some(bench.tight);
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
