//! What every method of the registry promises, tried on one small model: a row a method.
//!
//! `cargo bench --profile dev --bench methods -- [METHOD …]`
//!
//! | column | what it says |
//! | --- | --- |
//! | trained | parameters that are trained, the head's among them |
//! | counted | how many of the counts that papers give of it (`tests/suite/counted.rs`) are those of `check` |
//! | gradient | the largest relative difference of a step's gradient from central differences, in f64; – where the method takes another by intention, or chooses by a measurement what it trains |
//! | PyTorch | the largest difference of the loss over 20 steps from `tests/reference/methods` |
//! | merged | the largest difference of a score of the merged model from the adapted one |
//! | peft | the largest difference of a score when peft's form of the adapter is read again |
//! | measured | bytes of tensors at the peak, measured over estimated |
//! | killed | whether a run that was killed and went on has the same losses and the same bytes |
//!
//! The exit code tells whether all of them hold.

#[path = "../tests/suite/counted.rs"]
mod counted;
#[path = "methods/gradients.rs"]
mod gradients;
#[allow(dead_code, reason = "a row has one point")]
mod points;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use peftc::library::method::{METHODS, Method};
use peftc::library::schema::Default;
use points::{io, peftc, some_of};
use serde_json::Value;

/// How far losses may be from PyTorch's.
const NEAR: f64 = 1e-4;
/// How far scores may be that have to be the same.
const CLOSE: f64 = 1e-5;
/// How far gradients may be from central differences.
const STEEP: f64 = 1e-5;
/// Where measured/estimated has to lie.
const ALLOWED: std::ops::RangeInclusive<f64> = 0.98..=1.0;
/// Values that a small model needs, where a method's defaults do not fit it.
const SMALL: &[(&str, &str)] = &[("k_lst", "k = 3")];

/// A training as it is written, and its losses by PyTorch.
struct Case {
    method: &'static dyn Method,
    written: String,
    rate: f64,
    losses: Vec<f64>,
}

/// The first curve of a method on the small BERT, or the method with its defaults.
fn case(method: &'static dyn Method, root: &Path) -> Result<Case, String> {
    let name = method.schema().name;
    let path = root.join(format!("tests/reference/methods/{name}.json"));
    if path.exists() {
        let text = std::fs::read(&path).map_err(io)?;
        let value: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        let mut curves = value["curves"].as_array().into_iter().flatten();
        if let Some(curve) = curves.find(|c| c["model"] == "bert-tiny") {
            let losses = curve["loss"].as_array().into_iter().flatten();
            return Ok(Case {
                method,
                written: curve["method"].as_str().unwrap_or_default().to_owned(),
                rate: curve["lr"].as_f64().unwrap_or(1e-3),
                losses: losses.filter_map(Value::as_f64).collect(),
            });
        }
    }
    let small = SMALL.iter().filter(|(of, _)| *of == name);
    let mut keys: Vec<String> = small.map(|(_, key)| (*key).to_owned()).collect();
    let required = method.schema().keys.iter().filter(|key| {
        matches!(key.default, Default::Required) && !keys.iter().any(|k| k.starts_with(key.name))
    });
    let required: Vec<String> = required.map(|key| format!("{} = 1", key.name)).collect();
    keys.extend(required);
    Ok(Case {
        method,
        written: format!("{name} {{ {} }}", keys.join(", ")),
        rate: 1e-3,
        losses: Vec::new(),
    })
}

/// The recipe that reference curves are made of, and what is scored behind it.
fn recipe(case: &Case, root: &Path, more: &str) -> String {
    let (at, Case { written, rate, .. }) = (root.display(), case);
    // What compares weights needs a training of all of them.
    let (before, beside) = match case.method.schema().name {
        "lt_sft" => (
            "stage dense = train { model = m, data = d.train, adapter = full, lr = 1e-3, steps = 4, batch = 16, max_length = 64 }\n",
            " tuned = dense\n",
        ),
        _ => ("", ""),
    };
    format!(
        "model m = local \"{at}/tests/reference/bert-tiny\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 320 }}\n\
         {before}stage s = train {{\n model = m\n data = d.train\n adapter = {written}\n{beside} optimizer = adamw {{ weight_decay = 0.01 }}\n\
         lr = {rate}\n steps = 20\n batch = 16\n max_length = 64\n clip = 0\n dropout = 0\n shuffle = false\n}}\n{more}"
    )
}

/// The JSON lines of a log.
fn log(path: &Path) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(path).map_err(io)?;
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|e| e.to_string()))
        .collect()
}

/// The largest difference of two lists of numbers.
fn apart(one: &[f64], other: &[f64]) -> f64 {
    if one.len() != other.len() {
        return f64::INFINITY;
    }
    let pairs = one.iter().zip(other);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The scores that an evaluation wrote.
fn scores(dir: &Path, stage: &str) -> Result<Vec<f64>, String> {
    let path = dir.join(format!(".peftc/runs/r/{stage}/predictions.tsv"));
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let is_score = |i: usize| head.get(i).is_some_and(|name| name.starts_with("score"));
    let cells = lines.flat_map(|line| line.split('\t').enumerate());
    cells
        .filter(|(i, _)| is_score(*i))
        .map(|(_, cell)| cell.parse().map_err(|_| format!("`{cell}` is no score")))
        .collect()
}

/// All files below a folder of this name.
fn named(dir: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .flat_map(|path| match path.is_dir() && !path.is_symlink() {
            true => named(&path, name),
            false if path.ends_with(name) => vec![path],
            false => Vec::new(),
        })
        .collect()
}

/// Whether a run that is killed in its midst goes on to the same losses and the same tensors as one that was not.
fn goes_on(case: &Case, root: &Path, whole: &Path) -> Result<bool, String> {
    let dir = tempfile::tempdir().map_err(io)?;
    let dir = dir.path();
    let path = dir.join("r.peft");
    std::fs::write(&path, recipe(case, root, "")).map_err(io)?;
    let mut run = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args(["run", "--quiet", "--checkpoint-every", "0"])
        .arg(&path)
        .stdout(Stdio::null())
        .spawn()
        .map_err(io)?;
    let begun = Instant::now();
    while run.try_wait().map_err(io)?.is_none() && begun.elapsed() < Duration::from_secs(60) {
        let logs = named(&dir.join(".peftc"), "metrics.jsonl");
        let lines = logs.iter().filter_map(|p| std::fs::read_to_string(p).ok());
        if lines.map(|text| text.lines().count()).max() >= Some(7) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let alive = run.try_wait().map_err(io)?.is_none();
    run.kill().map_err(io)?;
    run.wait().map_err(io)?;
    if !alive {
        return Err("the run was over before it could be killed".to_owned());
    }
    peftc(&["run"], &path, &recipe(case, root, ""))?;
    let file = ".peftc/runs/r/s/metrics.jsonl";
    let losses = |dir: &Path| -> Result<Vec<Value>, String> {
        let log = log(&dir.join(file))?;
        Ok(log.iter().map(|line| line["loss"].clone()).collect())
    };
    let tensors = |dir: &Path| -> Result<Vec<Vec<u8>>, String> {
        let at = dir.join(".peftc/runs/r/s");
        let at = std::fs::canonicalize(&at).unwrap_or(at);
        let files = ["adapter/peftc.safetensors", "model/model.safetensors"].map(|f| at.join(f));
        let there = files.iter().filter(|f| f.exists());
        there.map(|f| std::fs::read(f).map_err(io)).collect()
    };
    Ok(losses(dir)? == losses(whole)? && tensors(dir)? == tensors(whole)?)
}

/// A number that has to be at most a bound, as a cell and as whether it is.
fn cell(value: Option<f64>, bound: f64) -> (String, bool) {
    let Some(value) = value else {
        return ("–".to_owned(), true);
    };
    (format!("{value:.1e}"), value <= bound)
}

/// What is counted of all methods: each as it is written, and whether `check` says the same.
fn counts(root: &Path) -> Result<Vec<(String, bool)>, String> {
    let dir = tempfile::tempdir().map_err(io)?;
    let text = std::fs::read(root.join("recipes/report/roberta-large.json")).map_err(io)?;
    let config: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    for model in counted::models(config) {
        std::fs::write(dir.path().join("config.json"), model.config.to_string()).map_err(io)?;
        let path = dir.path().join("r.peft");
        let checked = peftc(&["check", "--offline"], &path, &model.recipe())?;
        let own = model.trained(&checked).into_iter();
        let pairs = model
            .counts
            .iter()
            .zip(own.map(Some).chain(std::iter::repeat(None)));
        all.extend(pairs.map(|((method, want), own)| ((*method).to_owned(), own == Some(*want))));
    }
    Ok(all)
}

/// How many of a method's counts are met, as a cell and as whether all are.
fn met(all: &[(String, bool)], name: &str) -> (String, bool) {
    let own = all
        .iter()
        .filter(|(written, _)| written.split(' ').next() == Some(name));
    let own: Vec<bool> = own.map(|(_, met)| *met).collect();
    let holding = own.iter().filter(|met| **met).count();
    match own.len() {
        0 => ("–".to_owned(), true),
        n => (format!("{holding} of {n}"), holding == n),
    }
}

/// The gradient's cell: of a method whose step has no gradient, or needs another stage's weights, there is none.
fn gradient(case: &Case, root: &Path, dir: &Path) -> Result<(String, bool), String> {
    let text = recipe(case, root, "");
    if text.contains(" tuned = ") {
        return Ok(cell(None, STEEP));
    }
    let split = text.replace(
        " batch = 16\n",
        " batch = 16\n micro_batch = 4\n features = 0B\n",
    );
    let model = root.join("tests/reference/bert-tiny");
    Ok(cell(gradients::apart(dir, &model, &split)?, STEEP))
}

/// Prints a method's row; whether all of it holds.
fn row(case: &Case, root: &Path, all: &[(String, bool)]) -> Result<bool, String> {
    let dir = tempfile::tempdir().map_err(io)?;
    let dir = dir.path();
    let path = dir.join("r.peft");
    let eval = |name: &str, keys: &str| {
        format!("stage {name} = eval {{ {keys}, data = d.test, max_length = 64 }}\n")
    };
    let mut more = eval("e", "from = s");
    let folds = case.method.folds();
    if folds {
        more += "stage f = merge { from = s }\n";
        more += &eval("fe", "from = f");
    }
    let result = peftc(&["run"], &path, &recipe(case, root, &more))?;
    let mut stages = result["stages"].as_array().into_iter().flatten();
    let stage = stages.find(|stage| stage["name"] == "s");
    let stage = stage.ok_or("the stage is not in the result")?;
    let losses: Vec<f64> = log(&dir.join(".peftc/runs/r/s/metrics.jsonl"))?
        .iter()
        .filter_map(|line| line["loss"].as_f64())
        .collect();
    let torch = (!case.losses.is_empty()).then(|| apart(&losses, &case.losses));
    let plain = scores(dir, "e")?;
    let merged = folds
        .then(|| scores(dir, "fe").map(|s| apart(&plain, &s)))
        .transpose()?;
    let adapter = dir.join(".peftc/runs/r/s/adapter");
    let read = adapter.join("adapter_config.json").exists().then(|| {
        let keys = format!("model = m, adapter = peft \"{}\"", adapter.display());
        let text = recipe(case, root, &eval("p", &keys));
        peftc(&["run"], &path, &text)?;
        scores(dir, "p").map(|s| apart(&plain, &s))
    });
    let read = read.transpose()?;
    let bytes = |key: &str| stage[key].as_f64().unwrap_or(f64::NAN);
    let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
    let same = goes_on(case, root, dir)?;
    let counted = met(all, case.method.schema().name);
    let steep = gradient(case, root, dir)?;
    let cells = [
        counted,
        steep,
        cell(torch, NEAR),
        cell(merged, CLOSE),
        cell(read, CLOSE),
    ];
    let [counted, steep, torch, merged, read] = cells.each_ref().map(|(text, _)| text);
    let trained = &stage["trainable_parameters"];
    let killed = if same { "same" } else { "DIFFERS" };
    println!(
        "| `{}` | {trained} | {counted} | {steep} | {torch} | {merged} | {read} | {ratio:.4} | {killed} |",
        case.written
    );
    Ok(same && ALLOWED.contains(&ratio) && cells.iter().all(|(_, holds)| *holds))
}

fn table() -> Result<bool, String> {
    let names: Vec<&str> = METHODS.iter().map(|m| m.schema().name).collect();
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let wanted = match args.is_empty() {
        true => Vec::new(),
        false => some_of(&args.join(","), &names)?,
    };
    let root = std::env::current_dir().map_err(io)?;
    let counts = counts(&root)?;
    println!(
        "| method | trained | counted | gradient | PyTorch | merged | peft | measured | killed |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
    let mut all = true;
    for method in METHODS {
        let name = method.schema().name.to_owned();
        if wanted.is_empty() || wanted.contains(&name) {
            let holds = case(*method, &root).and_then(|case| row(&case, &root, &counts));
            all &= holds.unwrap_or_else(|why| {
                println!("| `{name}` | {} |", why.trim().replace('\n', " "));
                false
            });
        }
    }
    Ok(all)
}

fn main() -> ExitCode {
    match table() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("not all of it holds");
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
