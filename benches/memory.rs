//! Estimated and measured tensor bytes of training, over methods, models, batches and lengths: a
//! table, and an exit code that tells whether every estimate was met. Models are the usual shapes
//! with random weights; every sentence has exactly as many tokens as its point says.
//!
//! `cargo bench --profile dev --bench memory -- [--layers N] [--shape S,…] [--method M,…] [--batch B,…] [--length L,…]`

mod points;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use peftc::library::method::METHODS;
use points::{io, one, or_all, peftc, some_of, write_config};
use serde_json::{Value, json};

/// The methods of the whole table; `--method` names any.
const USUAL: [&str; 6] = ["full", "head_only", "last_n", "bitfit", "lora", "siva"];
const SHAPES: [&str; 3] = ["bert-base", "roberta-base", "distilbert-base"];
const BATCHES: [u64; 4] = [1, 4, 16, 32];
const LENGTHS: [u64; 3] = [16, 64, 256];
/// Where measured/estimated has to lie.
const ALLOWED: std::ops::RangeInclusive<f64> = 0.98..=1.0;
const STEPS: u64 = 2;
const EVERYWHERE: &str = "{attention.{query, key, value, output}, ffn.{up, down}}";

/// What part of the table is wanted; an empty list is everything.
#[derive(Default)]
struct Part {
    layers: Option<u64>,
    shapes: Vec<String>,
    methods: Vec<String>,
    batches: Vec<u64>,
    lengths: Vec<u64>,
}

impl Part {
    fn from_args() -> Result<Self, String> {
        let mut part = Self::default();
        let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
        while let Some(arg) = args.next() {
            let value = args.next().ok_or(format!("`{arg}` lacks a value"))?;
            match arg.as_str() {
                "--layers" => part.layers = Some(one(&value)?).filter(|&n| n > 0),
                "--shape" => part.shapes = some_of(&value, &SHAPES)?,
                "--method" => {
                    let known: Vec<&str> = METHODS.iter().map(|m| m.schema().name).collect();
                    part.methods = some_of(&value, &known)?;
                }
                "--batch" => part.batches = value.split(',').map(one).collect::<Result<_, _>>()?,
                "--length" => part.lengths = value.split(',').map(one).collect::<Result<_, _>>()?,
                _ => return Err(format!("there is no argument `{arg}`")),
            }
        }
        if part.batches.contains(&0) || part.lengths.iter().any(|n| !(3..=512).contains(n)) {
            return Err("a batch is at least 1, a length from 3 to 512".to_owned());
        }
        Ok(part)
    }
}

fn layers(shape: &str, part: &Part) -> u64 {
    let all = if shape == "distilbert-base" { 6 } else { 12 };
    part.layers.map_or(all, |n| n.min(all))
}

/// The `config.json` of a shape.
fn config(shape: &str, layers: u64) -> Value {
    match shape {
        "distilbert-base" => json!({
            "model_type": "distilbert", "activation": "gelu", "attention_dropout": 0.1, "dim": 768, "dropout": 0.1,
            "hidden_dim": 3072, "max_position_embeddings": 512, "n_heads": 12, "n_layers": layers,
            "seq_classif_dropout": 0.2, "vocab_size": 30522,
        }),
        _ => {
            let roberta = shape == "roberta-base";
            json!({
                "model_type": if roberta { "roberta" } else { "bert" }, "attention_probs_dropout_prob": 0.1,
                "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "intermediate_size": 3072,
                "layer_norm_eps": if roberta { 1e-5 } else { 1e-12 },
                "max_position_embeddings": if roberta { 514 } else { 512 }, "num_attention_heads": 12,
                "num_hidden_layers": layers, "pad_token_id": u8::from(roberta),
                "type_vocab_size": if roberta { 1 } else { 2 }, "vocab_size": if roberta { 50265 } else { 30522 },
            })
        }
    }
}

fn method(name: &str, layers: u64) -> String {
    match name {
        "last_n" => format!(
            "last_n {{ n = {} }}",
            if layers > 6 { 3 } else { layers.min(2) }
        ),
        "lora" | "siva" => format!("{name} {{ rank = 4, on = {EVERYWHERE} }}"),
        _ => name.to_owned(),
    }
}

/// Sentences of `length` tokens, two of them special; enough for every step.
fn write_data(dir: &Path, batch: u64, length: u64) -> Result<(), String> {
    let words = vec!["word"; length as usize - 2].join(" ");
    points::write_data(dir, (batch * STEPS).max(2), |_| words.clone())
}

/// What was estimated and measured of a stage.
struct Row {
    batch: u64,
    length: u64,
    note: &'static str,
    estimated: u64,
    measured: u64,
}

impl Row {
    fn of(stage: &Value, batch: u64, length: u64, note: &'static str) -> Option<Self> {
        Some(Self {
            batch,
            length,
            note,
            estimated: stage["estimated_peak_bytes"].as_u64()?,
            measured: stage["measured_peak_bytes"].as_u64()?,
        })
    }

    fn ratio(&self) -> f64 {
        self.measured as f64 / self.estimated as f64
    }
}

/// Runs a point. SiVA's points go on from one decomposition a model, which is a row of its own.
#[expect(
    clippy::too_many_arguments,
    reason = "what one row of the table is measured of"
)]
fn run(
    root: &Path,
    shape: &str,
    name: &str,
    layers: u64,
    batch: u64,
    length: u64,
) -> Result<Vec<Row>, String> {
    write_data(&root.join("data"), batch, length)?;
    let adapter = method(name, layers);
    let stage = |name: &str, rest: &str, batch: u64, length: u64| {
        format!(
            "stage {name} = train {{ {rest}, lr = 1e-5, steps = {STEPS}, batch = {batch}, max_length = {length} }}\n"
        )
    };
    let mut text = format!(
        "model m = local \"{shape}\" {{ init = random, tokenizer = \"tokenizer\" }}\n\
         data d = local \"data\" {{ text = sentence, label = label }}\n"
    );
    if name == "siva" {
        text.push_str("data first = local \"first\" { text = sentence, label = label }\n");
        let from = format!("model = m, data = first.train, adapter = {adapter}");
        text.push_str(&stage("decompose", &from, 1, 16));
        text.push_str(&stage(
            "point",
            "from = decompose, data = d.train",
            batch,
            length,
        ));
    } else {
        let from = format!("model = m, data = d.train, adapter = {adapter}");
        text.push_str(&stage("point", &from, batch, length));
    }
    let command = ["run", "--checkpoint-every", "1000000"];
    let result = peftc(&command, &root.join("point.peft"), &text)?;
    let mut rows = Vec::new();
    for stage in result["stages"].as_array().into_iter().flatten() {
        match stage["name"].as_str() {
            Some("point") => rows.extend(Row::of(stage, batch, length, "")),
            _ if stage["cached"] == json!(false) => {
                rows.extend(Row::of(stage, 1, 16, ", decomposing"));
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Fills the table; the least and the largest ratio.
fn table(part: &Part, root: &Path) -> Result<(f64, f64), String> {
    std::fs::create_dir_all(root.join("tokenizer")).map_err(io)?;
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n";
    std::fs::write(root.join("tokenizer/vocab.txt"), vocabulary).map_err(io)?;
    write_data(&root.join("first"), 1, 16)?;
    println!("| model | method | batch | length | estimated bytes | measured bytes | ratio |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    let (mut least, mut largest) = (f64::INFINITY, 0f64);
    let store = root.join(".peftc");
    for shape in or_all(&part.shapes, SHAPES.map(str::to_owned)) {
        let layers = layers(&shape, part);
        write_config(&root.join(&shape), &config(&shape, layers))?;
        for name in or_all(&part.methods, USUAL.map(str::to_owned)) {
            for batch in or_all(&part.batches, BATCHES) {
                for length in or_all(&part.lengths, LENGTHS) {
                    for row in run(root, &shape, &name, layers, batch, length)? {
                        println!(
                            "| {shape} | {name}{} | {} | {} | {} | {} | {:.4} |",
                            row.note,
                            row.batch,
                            row.length,
                            row.estimated,
                            row.measured,
                            row.ratio()
                        );
                        least = least.min(row.ratio());
                        largest = largest.max(row.ratio());
                    }
                    std::io::stdout().flush().map_err(io)?;
                    // A trained model takes as much of the disk as of the memory.
                    if name != "siva" {
                        std::fs::remove_dir_all(&store).map_err(io)?;
                    }
                }
            }
            if store.exists() {
                std::fs::remove_dir_all(&store).map_err(io)?;
            }
        }
    }
    Ok((least, largest))
}

fn main() -> ExitCode {
    let part = match Part::from_args() {
        Ok(part) => part,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let root = match tempfile::tempdir() {
        Ok(root) => root,
        Err(why) => {
            eprintln!("no scratch directory: {why}");
            return ExitCode::FAILURE;
        }
    };
    match table(&part, root.path()) {
        Ok((least, largest)) => {
            println!("\nmeasured/estimated: least {least:.4}, largest {largest:.4}");
            if ALLOWED.contains(&least) && ALLOWED.contains(&largest) {
                ExitCode::SUCCESS
            } else {
                eprintln!("a ratio lies outside {ALLOWED:?}");
                ExitCode::FAILURE
            }
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
