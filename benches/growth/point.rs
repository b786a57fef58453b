//! One point of a curve: a training of a method at a size, in a process of its own.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::points::{io, peftc, write_config, write_data};

/// The least time that the timed steps of a point take together, in seconds.
const ENOUGH: f64 = 0.5;
/// Most timed steps.
const MOST_STEPS: u64 = 400;
/// Batches of texts; after these they come again in another order.
const BATCHES: u64 = 4;
const TOKENIZER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/recipes/reviews-mini/tokenizer.json"
);

/// Methods by name, and how a stage says them.
pub const METHODS: [(&str, &str); 4] = [
    ("full", "train { adapter = full, lr = 1e-5"),
    (
        "lora",
        "train { adapter = lora { rank = 4, on = { attention.*, ffn.* } }, lr = 1e-4",
    ),
    ("lst", "train { adapter = lst { r = 8 }, lr = 1e-4"),
    ("mezo", "mezo { lr = 1e-7"),
];

/// What a point is measured at.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Texts a step.
    pub batch: u64,
    /// Tokens of every text, two special ones among them.
    pub length: u64,
    /// Blocks of the model.
    pub layers: u64,
}

impl Size {
    /// Tokens of a step.
    pub fn tokens(&self) -> u64 {
        self.batch * self.length
    }
}

/// What was measured there.
#[derive(Clone, Debug)]
pub struct Point {
    pub size: Size,
    /// Median seconds of a step.
    pub step_s: f64,
    /// Arithmetic of a step as `check` counts it.
    pub flops: f64,
    /// Tensor bytes as `check` tells them.
    pub estimated: f64,
    /// Tensor bytes of the run.
    pub measured: f64,
    /// Most bytes of the process.
    pub process: f64,
}

impl Point {
    pub fn samples_per_s(&self) -> f64 {
        self.size.batch as f64 / self.step_s
    }
}

/// Where points are run, and with what.
pub struct Bench {
    root: PathBuf,
    words: Vec<String>,
    hidden: u64,
    steps: u64,
}

impl Bench {
    /// A bench in an empty folder, of models of this width, which times so many steps of a point or more.
    pub fn new(root: &Path, hidden: u64, steps: u64) -> Result<Self, String> {
        let text = std::fs::read_to_string(TOKENIZER).map_err(io)?;
        let json: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let vocabulary = json["model"]["vocab"].as_object().into_iter().flatten();
        let whole = |w: &str| w.len() > 2 && w.bytes().all(|b| b.is_ascii_lowercase());
        let words: Vec<String> = vocabulary
            .map(|(word, _)| word.clone())
            .filter(|w| whole(w))
            .collect();
        if words.is_empty() {
            return Err(format!("{TOKENIZER} has no words"));
        }
        let folder = root.join("tokenizer");
        std::fs::create_dir_all(&folder).map_err(io)?;
        std::fs::write(folder.join("tokenizer.json"), text).map_err(io)?;
        Ok(Self {
            root: root.to_path_buf(),
            words,
            hidden,
            steps,
        })
    }

    fn config(&self, layers: u64) -> Value {
        json!({
            "model_type": "roberta", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1, "hidden_size": self.hidden, "intermediate_size": 4 * self.hidden,
            "layer_norm_eps": 1e-5, "max_position_embeddings": 514, "num_attention_heads": self.hidden / 64,
            "num_hidden_layers": layers, "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 6000,
        })
    }

    /// A text of whole words, each one token; other words in each text.
    fn text(&self, i: u64, length: u64) -> String {
        let n = self.words.len() as u64;
        let word = |j: u64| self.words[((i * length + j) * 2_654_435_761 % n) as usize].as_str();
        let words: Vec<&str> = (0..length - 2).map(word).collect();
        words.join(" ")
    }

    /// Measures a point; the first step is not among those timed, and steps too short to be timed
    /// together are run again as more of them.
    pub fn measure(&self, method: &str, size: Size) -> Result<Point, String> {
        write_config(&self.root.join("model"), &self.config(size.layers))?;
        let texts = (size.batch * BATCHES).max(2);
        let text = |i| self.text(i, size.length);
        write_data(&self.root.join("data"), texts, text)?;
        let (point, times) = self.run(method, size, self.steps)?;
        let more = (ENOUGH / point.step_s).ceil().min(MOST_STEPS as f64) as u64;
        if times.iter().sum::<f64>() >= ENOUGH || more <= self.steps {
            return Ok(point);
        }
        Ok(self.run(method, size, more)?.0)
    }

    /// A point by so many timed steps, and their seconds.
    fn run(&self, method: &str, size: Size, steps: u64) -> Result<(Point, Vec<f64>), String> {
        let said = METHODS.iter().find(|m| m.0 == method);
        let stage = said.ok_or(format!("`{method}` is no method"))?.1;
        let text = format!(
            "model m = local \"model\" {{ init = random, tokenizer = \"tokenizer\" }}\n\
             data d = local \"data\" {{ text = sentence, label = label }}\n\
             stage point = {stage}, model = m, data = d.train, features = 0B, steps = {}, batch = {}, max_length = {} }}\n",
            steps + 1,
            size.batch,
            size.length
        );
        let recipe = self.root.join("point.peft");
        let told = peftc(&["check"], &recipe, &text)?;
        let planned = &told["recipes"][0]["stages"][0];
        let number = |json: &Value| json.as_f64().ok_or("a number is missing in the JSON");
        if planned["max_tokens"] != json!(size.tokens()) {
            let tokens = &planned["max_tokens"];
            return Err(format!("{size:?} came to {tokens} tokens a step"));
        }
        let (store, out) = (self.root.join("store"), self.root.join("out"));
        let folders = [("--store", &store), ("--out", &out)].map(|(o, d)| (o, d.to_string_lossy()));
        let mut command = vec!["run", "--checkpoint-every", "1000000"];
        command.extend(folders.iter().flat_map(|(o, d)| [*o, d.as_ref()]));
        let result = peftc(&command, &recipe, &text)?;
        let times = step_times(&out.join("point/metrics.jsonl"), size.batch)?;
        // A trained model takes as much of the disk as of the memory.
        for folder in [store, out] {
            std::fs::remove_dir_all(folder).map_err(io)?;
        }
        let ran = &result["stages"][0];
        let point = Point {
            size,
            step_s: median(&times).ok_or("no step was timed")?,
            flops: number(&planned["flops_per_step"])?,
            estimated: number(&ran["estimated_peak_bytes"])?,
            measured: number(&ran["measured_peak_bytes"])?,
            process: number(&ran["measured_process_bytes"])?,
        };
        Ok((point, times))
    }
}

/// Seconds of each step but the first, from a log, whose rates are over all steps so far.
fn step_times(log: &Path, batch: u64) -> Result<Vec<f64>, String> {
    let text = std::fs::read_to_string(log).map_err(io)?;
    let until: Option<Vec<f64>> = text
        .lines()
        .zip(1u64..)
        .map(|(line, step)| {
            let json: Value = serde_json::from_str(line).ok()?;
            Some((step * batch) as f64 / json["samples_per_s"].as_f64()?)
        })
        .collect();
    let until = until.ok_or("a line of the log cannot be read")?;
    Ok(until.windows(2).map(|w| w[1] - w[0]).collect())
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (a, b) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted[a] + sorted[b]) / 2.0)
}
