//! Tiny decoders of every family against transformers: the loss of a split, and full fine-tuning by SGD.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde_json::{Value, json};

use super::support::{json, program, stderr_of};

/// `count` numbers of 32 bits, as `tests/reference/make_decoder_traces.py` has them.
fn mixed(seed: u32, count: usize) -> impl Iterator<Item = u32> {
    (0..count as u32).map(move |i| {
        let mut x = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9));
        x ^= x >> 16;
        x = x.wrapping_mul(0x85EB_CA6B);
        x ^= x >> 13;
        x = x.wrapping_mul(0xC2B2_AE35);
        x ^ (x >> 16)
    })
}

fn fnv(name: &str) -> u32 {
    name.bytes().fold(0x811C_9DC5, |x, byte| {
        (x ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The bytes of a tensor.
fn tensor(name: &str, shape: &[usize]) -> Vec<u8> {
    let name = &name.to_lowercase();
    let is_norm = name.contains("norm") || name.contains("ln_");
    let middle = if is_norm { 1.0 } else { 0.0 };
    mixed(fnv(name), shape.iter().product())
        .map(|x| (f64::from(x) / f64::from(1_u32 << 31) / 2.0 - 0.5) * 0.4 + middle)
        .flat_map(|x| (x as f32).to_le_bytes())
        .collect()
}

/// Writes the model of a case, with a tokenizer that knows the words `w2` to `w49`.
pub fn write_model(dir: &Path, case: &Value) {
    write_weights(dir, &case["config"], &case["tensors"]);
    write_tokenizer(dir, ("<end>", "eos_token"));
}

/// Writes config and weights.
pub fn write_weights(dir: &Path, config: &Value, shapes: &Value) {
    std::fs::create_dir_all(dir).expect("created");
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let shapes: BTreeMap<String, Vec<usize>> =
        serde_json::from_value(shapes.clone()).expect("shapes");
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| (name.clone(), shape.clone(), tensor(&name, &shape)))
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
        (name.as_str(), view)
    });
    serialize_to_file(views, None, &dir.join("model.safetensors")).expect("written");
}

/// Writes a tokenizer of the words `w2` to `w49`, whose token 1 has a role.
pub fn write_tokenizer(dir: &Path, (own, role): (&str, &str)) {
    let vocab: serde_json::Map<String, Value> = ["<unk>".to_owned(), own.to_owned()]
        .into_iter()
        .chain((2..50).map(|i| format!("w{i}")))
        .enumerate()
        .map(|(i, word)| (word, json!(i)))
        .collect();
    let token = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "decoder": null, "added_tokens": [token(0, "<unk>"), token(1, own)],
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    let config =
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", role: own, "unk_token": "<unk>" });
    std::fs::write(dir.join("tokenizer_config.json"), config.to_string()).expect("written");
}

/// The traces.
pub fn traces() -> Value {
    let text = std::fs::read("tests/reference/decoders.json").expect("the traces");
    serde_json::from_slice(&text).expect("JSON")
}

/// Writes the texts of the traces.
pub fn write_texts(dir: &Path, traces: &Value) {
    let rows = traces["texts"].as_array().expect("texts");
    let row = |row: &Value| {
        let words = row.as_array().expect("words").iter();
        let words: Vec<String> = words.map(|w| format!("w{w}")).collect();
        json!({ "text": words.join(" ") }).to_string() + "\n"
    };
    let text: String = rows.iter().map(row).collect();
    for split in ["train", "test"] {
        std::fs::write(dir.join(format!("{split}.jsonl")), &text).expect("written");
    }
}

/// Runs a recipe; gives its result.
pub fn run(path: &Path, more: &[&str]) -> Value {
    let output = program()
        .args(["run", "--quiet"])
        .arg(path)
        .args(more)
        .output()
        .expect("starts");
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{}\n{stderr}", path.display());
    let name = path.file_stem().expect("a name");
    let result = path.with_file_name(format!(".peftc/runs/{}/result.json", name.display()));
    json(result)
}

/// The losses of a stage's steps.
pub fn losses(dir: &Path, run: &str, stage: &str) -> Vec<f64> {
    let log = dir.join(format!(".peftc/runs/{run}/{stage}/metrics.jsonl"));
    let log = std::fs::read_to_string(log).expect("a log");
    let rows = log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    rows.filter_map(|row| row["loss"].as_f64()).collect()
}

#[test]
fn every_family_has_the_loss_and_the_gradients_of_transformers() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_texts(dir.path(), &traces);
    let (rate, batch) = (&traces["rate"], &traces["batch"]);
    let cases = traces["cases"].as_array().expect("cases");
    let mut text = "peftc 1\ndata d = local \".\" { text = text }\n".to_owned();
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        write_model(&dir.path().join(name), case);
        let steps = case["curve"].as_array().expect("a curve").len();
        text += &format!(
            "model m_{name} = local \"{name}\"\n\
             stage e_{name} = eval {{ model = m_{name}, data = d.test, objective = causal_lm, metrics = [loss] }}\n\
             stage t_{name} = train {{ model = m_{name}, data = d.train, objective = causal_lm, adapter = full, lr = {rate}, \
             optimizer = sgd, batch = {batch}, steps = {steps}, clip = 0, dropout = 0, shuffle = false }}\n"
        );
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let got = &stage(&format!("e_{name}"))["metrics"]["loss"];
        let (got, want) = (
            got.as_f64().expect("a loss"),
            case["loss"].as_f64().expect("a loss"),
        );
        if (got - want).abs() > 2e-5 {
            wrong.push(format!("{name}: a loss of {got} for {want}"));
            continue;
        }
        let own = losses(dir.path(), "all", &format!("t_{name}"));
        let want = case["curve"].as_array().expect("a curve").iter();
        let want: Vec<f64> = want.map(|x| x.as_f64().expect("a loss")).collect();
        let far = own.iter().zip(&want).map(|(a, b)| (a - b).abs());
        if own.len() != want.len() || far.fold(0.0, f64::max) > 5e-5 {
            wrong.push(format!("{name}: {own:?} for {want:?}"));
        }
        let t = stage(&format!("t_{name}"));
        let bytes = |key: &str| t[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        if !(0.98..=1.0).contains(&share) {
            wrong.push(format!("{name}: {share} of the estimate"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn methods_meet_their_estimates_and_micro_batches_and_merges_change_nothing() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_texts(dir.path(), &traces);
    let case = traces["cases"].as_array().expect("cases").iter();
    let case = case
        .clone()
        .find(|c| c["name"] == "qwen2_windows")
        .expect("a case");
    write_model(&dir.path().join("m"), case);
    let labelled: String = (0..24)
        .map(|i| json!({ "text": format!("w{} w9 w{}", 2 + i, 3 + i), "label": if i % 2 == 0 { "a" } else { "b" } }).to_string() + "\n")
        .collect();
    std::fs::create_dir(dir.path().join("l")).expect("created");
    std::fs::write(dir.path().join("l/train.jsonl"), labelled).expect("written");
    let methods = [
        ("lora", "lora { rank = 4, on = { attention.*, ffn.* } }"),
        (
            "dora",
            "dora { rank = 4, on = { attention.query, ffn.down } }",
        ),
        ("siva", "siva { rank = 4, on = { attention.*, ffn.gate } }"),
        ("side", "side_lora { rank = 2, on = { attention.value } }"),
        ("vera", "vera { rank = 8, on = { attention.* } }"),
        ("ia3", "ia3"),
        ("norms", "ln_tuning"),
        ("shift", "beft"),
        ("oft", "oft { block_size = 4, on = { attention.*, ffn.* } }"),
        ("boft", "boft { on = { attention.* } }"),
        ("hra", "hra { rank = 4, on = { attention.*, ffn.down } }"),
        (
            "road",
            "road { group_size = 4, on = { attention.*, ffn.up } }",
        ),
        ("c3a", "c3a { block_size = 4, on = { attention.* } }"),
        ("svfit", "svfit { rank = 4, on = { attention.* } }"),
        (
            "svft",
            "svft { pattern = random, on = { attention.query } }",
        ),
        (
            "spectral",
            "spectral_adapter { rank = 2, rotate = true, on = { ffn.* } }",
        ),
        ("psoft", "psoft { rank = 4, on = { attention.* } }"),
        (
            "waveft",
            "waveft { frequencies = 30, wavelet = db2, on = { attention.*, ffn.up } }",
        ),
        (
            "topk",
            "svft { pattern = top_k, on = { attention.query, attention.key } }",
        ),
        ("osf", "osf { on = { attention.{query, key} } }"),
        ("deft", "deft { rank = 4, on = { ffn.* } }"),
        (
            "glora",
            "glora { rank = 4, on = { attention.query, ffn.up } }",
        ),
        ("peanut", "peanut { rank = 4, on = { attention.value } }"),
        (
            "super",
            "supertuning { sparsity = 0.9, rank = 2, on = { ffn.* } }",
        ),
        (
            "clusters",
            "adamss { rank = 4, subspaces = 2, on = { attention.query, ffn.down } }",
        ),
        (
            "skills",
            "poly { rank = 2, tasks = 2, task = 1, skills = 2, on = { ffn.* } }",
        ),
        (
            "mixture",
            "lily { rank = 2, stride = 2, on = { attention.* } }",
        ),
        ("basis", "frod { on = { attention.query, ffn.up } }"),
        ("prune", "movement_pruning { keep = 0.5, on = { ffn.* } }"),
        ("houl", "houlsby { size = 4 }"),
        ("beside", "parallel_adapter { size = 4 }"),
        (
            "prefix",
            "prefix_tuning { tokens = 3, projection = true, hidden = 6 }",
        ),
        ("prompt", "prompt_tuning { tokens = 3, init = vocabulary }"),
        (
            "ptune",
            "p_tuning { tokens = 2, encoder = lstm, hidden = 4 }",
        ),
        ("pasta", "pasta { vectors = 1 }"),
        ("gated", "llama_adapter { tokens = 3 }"),
        ("bias", "bitfit"),
        ("last", "last_n { n = 1 }"),
    ];
    let common =
        "model = m, data = d.train, objective = causal_lm, lr = 1e-2, steps = 4, batch = 8";
    let mut text = "peftc 1\nmodel m = local \"m\"\nmodel h = local \"m\" { dtype = bf16, activations = bf16 }\nmodel f = local \"m\" { dtype = f16 }\n\
                    data d = local \".\" { text = text }\ndata l = local \"l\" { text = text, label = label }\n"
        .to_owned();
    for (name, method) in methods {
        text += &format!("stage {name} = train {{ {common}, adapter = {method}, dev = d.test }}\n");
    }
    let lora = methods[0].1;
    text += &format!(
        "stage micro = train {{ {common}, adapter = {lora}, micro_batch = 3, recompute = true }}\n\
         stage half = train {{ model = h, data = d.train, objective = causal_lm, lr = 1e-2, steps = 4, batch = 8, adapter = {lora} }}\n\
         stage f16 = train {{ model = f, data = d.train, objective = causal_lm, lr = 1e-2, steps = 4, batch = 8, adapter = {lora} }}\n\
         stage zero = mezo {{ model = m, data = d.train, objective = causal_lm, lr = 1e-5, steps = 3, batch = 8, adapter = full }}\n\
         stage own = eval {{ from = lora, data = d.test, metrics = [loss, perplexity, token_accuracy] }}\n\
         stage merged = merge {{ from = lora }}\n\
         stage same = eval {{ from = merged, data = d.test, metrics = [loss] }}\n\
         stage class = train {{ model = m, data = l.train, objective = classify, lr = 1e-2, steps = 8, batch = 8, adapter = {lora} }}\n"
    );
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
    for stage in stages {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{}: {share}", stage["name"]);
    }
    let curve = |name: &str| losses(dir.path(), "all", name);
    for (a, b) in curve("lora").iter().zip(curve("micro")) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    for (a, b) in curve("lora").iter().zip(curve("f16")) {
        assert!((a - b).abs() < 0.01, "{a} {b}");
    }
    for (a, b) in curve("lora").iter().zip(curve("half")) {
        assert!((a - b).abs() < 0.05, "{a} {b}");
    }
    let loss = |name: &str| stage(name)["metrics"]["loss"].as_f64().expect("a loss");
    assert!((loss("own") - loss("same")).abs() < 1e-5);
    let first = |name: &str| stage(name)["loss_first"].as_f64().expect("a loss");
    let last = |name: &str| stage(name)["loss_last"].as_f64().expect("a loss");
    assert!(last("lora") < first("lora") - 0.1 && last("class") < first("class"));
    let table = std::fs::read_to_string(dir.path().join(".peftc/runs/all/own/predictions.tsv"))
        .expect("a table");
    let told: usize = traces["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .map(|t| t.as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(table.lines().count(), 1 + told);
    assert!(table.starts_with("index\tposition\ttoken\tprediction\tloss\n"));
    let sum: f64 = table
        .lines()
        .skip(1)
        .map(|l| {
            l.rsplit('\t')
                .next()
                .and_then(|x| x.parse::<f64>().ok())
                .expect("a loss")
        })
        .sum();
    assert!((sum / told as f64 - loss("own")).abs() < 1e-5);
    let config = std::fs::read(dir.path().join(".peftc/runs/all/merged/model/config.json"))
        .expect("a config");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["architectures"][0], "Qwen2ForCausalLM");
    let adapter = std::fs::read(
        dir.path()
            .join(".peftc/runs/all/lora/adapter/adapter_config.json"),
    )
    .expect("a config");
    let adapter: Value = serde_json::from_slice(&adapter).expect("JSON");
    assert_eq!(adapter["task_type"], "CAUSAL_LM");
}

#[test]
fn ladders_beside_decoders_have_the_losses_of_transformers_blocks() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_texts(dir.path(), &traces);
    let curves = std::fs::read("tests/reference/decoder_side.json").expect("the curves");
    let curves: Value = serde_json::from_slice(&curves).expect("JSON");
    let (lr, batch) = (&curves["lr"], &traces["batch"]);
    let curves = curves["curves"].as_array().expect("curves");
    let mut text = "peftc 1\ndata d = local \".\" { text = text }\n".to_owned();
    let mut known = std::collections::BTreeSet::new();
    for (i, curve) in curves.iter().enumerate() {
        let name = curve["model"].as_str().expect("a name");
        if known.insert(name) {
            let cases = traces["cases"].as_array().expect("cases");
            let case = cases.iter().find(|c| c["name"] == name).expect("a case");
            write_model(&dir.path().join(name), case);
            text += &format!("model m_{name} = local \"{name}\"\n");
        }
        let method = curve["method"].as_str().expect("a method");
        let steps = curve["loss"].as_array().expect("losses").len();
        text += &format!(
            "stage t{i} = train {{ model = m_{name}, data = d.train, objective = causal_lm, adapter = {method}, lr = {lr}, \
             optimizer = adamw {{ weight_decay = 0 }}, schedule = constant, batch = {batch}, steps = {steps}, clip = 0, dropout = 0, \
             shuffle = false }}\n"
        );
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    for (i, curve) in curves.iter().enumerate() {
        let want = curve["loss"].as_array().expect("losses").iter();
        let want: Vec<f64> = want.map(|x| x.as_f64().expect("a loss")).collect();
        let own = losses(dir.path(), "all", &format!("t{i}"));
        let far = own.iter().zip(&want).map(|(a, b)| (a - b).abs());
        assert!(
            own.len() == want.len() && far.fold(0.0, f64::max) < 1e-4,
            "{curve}: {own:?}"
        );
        let stage = stages.iter().find(|s| s["name"] == format!("t{i}"));
        let bytes = |key: &str| stage.expect("a stage")[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!(
            (0.98..=1.0).contains(&share),
            "{curve}: {share} of the estimate"
        );
    }
}

#[test]
fn sizes_that_no_model_has_are_refused_before_anything_is_made_of_them() {
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 100, "max_position_embeddings": 64,
    });
    assert!(peftc::library::model::parse(&config).is_ok());
    let blocks = "blocks; 512 are the most";
    for (key, value, said) in [
        ("vocab_size", 1_u64 << 31, "tokens are the most"),
        ("vocab_size", 1 << 25, "tokens are the most"),
        ("head_dim", 1 << 20, "columns; 16384 are the most"),
        (
            "hidden_size",
            1 << 31,
            "parameters; 1000000000000 are the most",
        ),
        ("num_hidden_layers", 1 << 31, blocks),
    ] {
        let mut own = config.clone();
        own[key] = serde_json::json!(value);
        let why = peftc::library::model::parse(&own).err().unwrap_or_default();
        assert!(why.contains(said), "{key}: {why}");
    }
    let bert = serde_json::json!({
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 1_u64 << 25, "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_act": "gelu",
    });
    let why = peftc::library::model::parse(&bert)
        .err()
        .unwrap_or_default();
    assert!(why.contains("tokens are the most"), "{why}");
}
