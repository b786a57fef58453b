//! Proves the memory estimate: draws recipes at random over methods, placements, models, batches,
//! lengths, kinds of stages, optimizers, objectives and storage types, runs two steps of each in a
//! process of its own, and compares what was estimated with what was measured. The same seed draws
//! the same recipes on every machine. Exit code 1 if a target is missed.
//!
//! `cargo build && cargo run --example prove -- [--draws N] [--seed S] [--only DRAW] [--device cpu|cuda|cuda:N]
//! [--precision f32|tf32|bf16|any] [--peftc FILE] [--limit SECONDS] [--jobs N] [--confine] [--verbose] [--csv FILE]
//! [--keep FOLDER]`
//!
//! Behind the random draws come corners: ranks as large as the matrices, a thousand classes.
//! `--keep FOLDER` leaves the recipes that ran there with their files, so that another build can run them too.
//! With `--confine` every stage runs a second time, in a control group with exactly the memory of its process line.
//!
//! With `--device cuda` each recipe is estimated by `check` for that very device and then run there. Texts and
//! tokenizer are part of the program, so it runs where the repository is not; `--peftc` names the compiler then.
//! `--jobs N` runs N recipes at once. The memory of the whole GPU is watched only with one job.

mod asked;
mod confine;
mod decoders;
mod dice;
mod draw;
mod tally;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use peftc::library::derive::DECOMPOSITION;
use serde_json::Value;

use asked::Asked;
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
        written(draw, root).map_err(io)?;
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

/// Writes a draw's recipe and the files that it reads.
fn written(draw: &Draw, root: &Path) -> std::io::Result<()> {
    for folder in ["model", "data", "tokenizer", "tales"] {
        std::fs::create_dir(root.join(folder))?;
    }
    std::fs::write(root.join("model/config.json"), draw.config.to_string())?;
    // Models of several families read these ids, whatever class of tokenizer their own kind has.
    let class = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    std::fs::write(root.join("tokenizer/tokenizer_config.json"), class)?;
    std::fs::write(root.join("tokenizer/tokenizer.json"), TOKENIZER)?;
    for (name, text) in TALES {
        std::fs::write(root.join("tales").join(name), text)?;
    }
    std::fs::write(root.join("data").join(draw.file), &draw.data)?;
    std::fs::write(root.join("drawn.peft"), &draw.recipe)?;
    Ok(())
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

/// All that the draws share.
struct Draws<'a> {
    asked: &'a Asked,
    texts: Vec<(&'a str, &'a str)>,
    corners: Vec<Draw>,
}

/// What one draw came to.
struct Outcome {
    index: u64,
    recipe: String,
    rows: Vec<Row>,
    card: Option<(u64, u64)>,
    refused: u64,
    failed: bool,
    /// What is printed of it.
    lines: Vec<String>,
}

impl Draws<'_> {
    /// Draws until a recipe is accepted, and runs it.
    fn one(&self, index: u64, bench: &mut Bench) -> Result<Outcome, String> {
        let asked = self.asked;
        let corner = index.checked_sub(asked.draws);
        let corner = corner.and_then(|i| self.corners.get(i as usize));
        let mut lines = Vec::new();
        for attempt in 0..=MOST_REFUSED {
            let mut drawn = match corner {
                Some(corner) => corner.clone(),
                None => draw::draw(asked.seed, index, attempt, &self.texts),
            };
            if let Some(precision) = &asked.precision {
                drawn.say_precision(precision, asked.seed, index);
            }
            let (rows, card, failed) = match bench.run(index, &drawn)? {
                Ended::Rows(rows, card) => (rows, card, false),
                Ended::Failed(said) => {
                    lines.push(format!("draw {index} failed: {said}\n{}", describe(&drawn)));
                    (Vec::new(), None, true)
                }
                Ended::Refused(said) => {
                    if asked.verbose || attempt == MOST_REFUSED {
                        lines.push(format!("draw {index} refused:\n{said}"));
                    }
                    continue;
                }
            };
            if let Some(folder) = &asked.keep {
                let own = folder.join(index.to_string());
                let kept = std::fs::create_dir_all(&own).and_then(|()| written(&drawn, &own));
                kept.map_err(|e| format!("{}: {e}", own.display()))?;
            }
            let mut own = Outcome {
                index,
                recipe: describe(&drawn),
                rows,
                card,
                refused: attempt,
                failed,
                lines,
            };
            if asked.verbose {
                own.describe();
            }
            return Ok(own);
        }
        let said = lines.last().map_or("", String::as_str);
        Err(format!("draw {index} is refused again and again:\n{said}"))
    }
}

impl Outcome {
    /// Says of each stage how near the estimate came.
    fn describe(&mut self) {
        for row in &self.rows {
            let ((te, tm), (pe, pm)) = (row.tensors, row.process);
            self.lines.push(format!(
                "draw {}, {}: tensors {tm} of {te} ({:+.3} %), process {pm} of {pe} ({:+.2} %)",
                self.index,
                row.what,
                100.0 * error(row.tensors),
                100.0 * error(row.process)
            ));
        }
        if let Some(bytes @ (estimated, measured)) = self.card {
            self.lines.push(format!(
                "draw {}, the whole GPU: {measured} of {estimated} ({:+.2} %)",
                self.index,
                100.0 * error(bytes)
            ));
        }
    }

    /// A line a stage.
    fn csv(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let ((te, tm), (pe, pm)) = (row.tensors, row.process);
            let (ce, cm) = self
                .card
                .map_or_else(Default::default, |(e, m)| (e.to_string(), m.to_string()));
            let on = u8::from(row.on_card);
            text += &format!(
                "{},{},{te},{tm},{pe},{pm},{on},{ce},{cm}\n",
                self.index, row.what
            );
        }
        text
    }
}

/// What runs draws: the whole GPU can be watched only where they run one by one.
fn bench(asked: &Asked) -> Result<Bench, String> {
    let mut bench = Bench {
        peftc: asked.peftc.clone().map_or_else(binary, Ok)?,
        device: asked.device.clone(),
        watch: None,
        confine: asked.confine,
        tight: 0,
    };
    if bench.on_card() && asked.jobs == 1 {
        match Watch::start(&asked.device) {
            Ok(watch) => bench.watch = Some(watch),
            Err(why) => println!("the GPU's whole memory is not watched: {why}"),
        }
    }
    Ok(bench)
}

/// Draws in the order in which they end, from as many threads as were asked for, and how many stages were too tight.
fn run_all(
    draws: &Draws,
    each: &(dyn Fn(Outcome) -> Result<(), String> + Sync),
) -> Result<u64, String> {
    let asked = draws.asked;
    let last = asked.draws + draws.corners.len() as u64;
    let chosen = asked.only.map_or(0..last, |i| i..i + 1);
    let (begun, next) = (Instant::now(), AtomicU64::new(chosen.start));
    let work = || -> Result<u64, String> {
        let mut bench = bench(asked)?;
        loop {
            let index = next.fetch_add(1, Ordering::SeqCst);
            if index >= chosen.end {
                return Ok(bench.tight);
            }
            if asked.limit.is_some_and(|limit| begun.elapsed() > limit) {
                println!("stopped before draw {index}: the time is over");
                return Ok(bench.tight);
            }
            each(draws.one(index, &mut bench)?)?;
        }
    };
    let ended: Vec<Result<u64, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..asked.jobs).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|r| r.unwrap_or_else(|_| Err("a thread ended early".to_owned())))
            .collect()
    });
    ended.into_iter().sum()
}

fn prove(asked: &Asked) -> Result<Tally, String> {
    let io = |e: std::io::Error| e.to_string();
    let texts: Vec<(&str, &str)> = REVIEWS
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once('\t'))
        .collect();
    let corners = draw::corners(&texts);
    let draws = Draws {
        asked,
        texts,
        corners,
    };
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
    let mut tally = Tally::new(asked.device != "cpu");
    tally.apart = asked.jobs == 1;
    let shared = Mutex::new((&mut tally, &mut csv));
    let tight = run_all(&draws, &|own| {
        let mut guard = shared.lock().map_err(|e| e.to_string())?;
        let (tally, csv) = &mut *guard;
        for line in &own.lines {
            println!("{line}");
        }
        if asked.only.is_some() {
            println!("{}", own.recipe);
        }
        if let Some(file) = csv {
            file.write_all(own.csv().as_bytes()).map_err(io)?;
        }
        tally.refused += own.refused;
        tally.failed += u64::from(own.failed);
        if let Some(bytes) = own.card {
            tally.cards.push(Card {
                draw: own.index,
                bytes,
            });
        }
        tally.recipes.push((own.index, own.recipe));
        tally.rows.extend(own.rows);
        Ok(())
    })?;
    tally.confined = asked.confine.then_some(tight);
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
