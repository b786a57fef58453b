//! Encoders with a decoder against transformers: the loss of a split, and full fine-tuning by SGD; methods on every map of both
//! stacks; what is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::decoders::{losses, run, write_model};
use super::support::{program, stderr_of, stdout_of};

mod bart;
mod generation;

/// The traces.
fn traces() -> Value {
    super::support::json("tests/reference/seq2seq.json")
}

/// Writes the model of a case, whose tokenizer puts the token that ends a text behind each.
fn write(dir: &Path, case: &Value) {
    write_model(dir, case);
    let path = dir.join("tokenizer.json");
    let mut tokenizer = super::support::json(&path);
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "<end>", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": { "<end>": { "id": "<end>", "ids": [1], "tokens": ["<end>"] } },
    });
    std::fs::write(path, tokenizer.to_string()).expect("written");
}

/// Writes the pairs of the traces.
fn write_pairs(dir: &Path, traces: &Value) {
    let words = |list: &Value| {
        let ids = list.as_array().expect("tokens").iter();
        let words: Vec<String> = ids
            .filter(|id| **id != 1)
            .map(|id| format!("w{id}"))
            .collect();
        words.join(" ")
    };
    let rows = traces["pairs"].as_array().expect("pairs").iter();
    let text: String = rows
        .map(|p| json!({ "source": words(&p[0]), "target": words(&p[1]) }).to_string() + "\n")
        .collect();
    for split in ["train", "test"] {
        std::fs::write(dir.join(format!("{split}.jsonl")), &text).expect("written");
    }
}

const DATA: &str = "data d = local \".\" { prompt = source, completion = target }\n";

#[test]
fn every_pair_of_stacks_has_the_loss_and_the_gradients_of_transformers() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_pairs(dir.path(), &traces);
    let (rate, batch) = (&traces["rate"], &traces["batch"]);
    let cases = traces["cases"].as_array().expect("cases");
    let mut text = format!("peftc 1\n{DATA}");
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        write(&dir.path().join(name), case);
        let steps = case["curve"].as_array().expect("a curve").len();
        text += &format!(
            "model m_{name} = local \"{name}\"\n\
             stage e_{name} = eval {{ model = m_{name}, data = d.test, objective = seq2seq, metrics = [loss], batch = 5 }}\n\
             stage t_{name} = train {{ model = m_{name}, data = d.train, objective = seq2seq, adapter = full, lr = {rate}, \
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
        let got = stage(&format!("e_{name}"))["metrics"]["loss"].as_f64();
        let (got, want) = (got.expect("a loss"), case["loss"].as_f64().expect("a loss"));
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
        for stage in ["e", "t"].map(|kind| stage(&format!("{kind}_{name}"))) {
            let bytes = |key: &str| stage[key].as_f64().expect("bytes");
            let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
            if !(0.98..=1.0).contains(&share) {
                wrong.push(format!("{}: {share} of the estimate", stage["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn methods_on_both_stacks_meet_their_estimates_and_merge_to_the_same() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_pairs(dir.path(), &traces);
    let cases = traces["cases"].as_array().expect("cases").iter();
    let case = cases.clone().find(|c| c["name"] == "t5_v11");
    write(&dir.path().join("m"), case.expect("a case"));
    let all = "on = { attention.*, cross_attention.*, ffn.* }";
    let methods = [
        ("lora", format!("lora {{ rank = 4, {all} }}")),
        (
            "dora",
            "dora { rank = 4, on = { cross_attention.{key, value} } }".to_owned(),
        ),
        ("hira", format!("hira {{ rank = 4, {all} }}")),
        (
            "ia",
            "ia3 { on = { cross_attention.{key, value}, ffn.down } }".to_owned(),
        ),
        ("oft", format!("oft {{ block_size = 4, {all} }}")),
        ("mixture", format!("lily {{ rank = 2, stride = 2, {all} }}")),
        ("houl", "houlsby { size = 4 }".to_owned()),
        ("norms", "ln_tuning".to_owned()),
        ("last", "last_n { n = 1 }".to_owned()),
        ("all", "full".to_owned()),
    ];
    let common = "data = d.train, objective = seq2seq, lr = 1e-2, steps = 4, batch = 8";
    let mut text = format!(
        "peftc 1\n{DATA}model m = local \"m\"\nmodel h = local \"m\" {{ dtype = bf16, activations = bf16 }}\n"
    );
    for (name, method) in &methods {
        text += &format!(
            "stage {name} = train {{ model = m, {common}, adapter = {method}, dev = d.test }}\n"
        );
    }
    let lora = &methods[0].1;
    text += &format!(
        "stage micro = train {{ model = m, {common}, adapter = {lora}, micro_batch = 3, recompute = true }}\n\
         stage tokens = train {{ model = m, data = d.train, objective = seq2seq, lr = 1e-2, steps = 4, batch = 120 tokens, adapter = {lora} }}\n\
         stage half = train {{ model = h, {common}, adapter = {lora} }}\n\
         stage zero = mezo {{ model = m, data = d.train, objective = seq2seq, lr = 1e-5, steps = 3, batch = 8, adapter = full }}\n\
         stage own = eval {{ from = lora, data = d.test, metrics = [loss, perplexity, token_accuracy] }}\n\
         stage merged = merge {{ from = lora }}\n\
         stage same = eval {{ from = merged, data = d.test, metrics = [loss] }}\n"
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
    for (a, b) in curve("lora").iter().zip(curve("half")) {
        assert!((a - b).abs() < 0.05, "{a} {b}");
    }
    let loss = |name: &str| stage(name)["metrics"]["loss"].as_f64().expect("a loss");
    assert!((loss("own") - loss("same")).abs() < 1e-5);
    let (first, last) = (&stage("lora")["loss_first"], &stage("lora")["loss_last"]);
    assert!(last.as_f64() < first.as_f64());
    let at = |rest: &str| dir.path().join(".peftc/runs/all").join(rest);
    let table = std::fs::read_to_string(at("own/predictions.tsv")).expect("a table");
    let pairs = traces["pairs"].as_array().expect("pairs").iter();
    let told: usize = pairs.map(|p| p[1].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(table.lines().count(), 1 + told);
    let config = super::support::json(at("merged/model/config.json"));
    assert_eq!(config["architectures"][0], "T5ForConditionalGeneration");
    let adapter = super::support::json(at("lora/adapter/adapter_config.json"));
    assert_eq!(adapter["task_type"], "SEQ_2_SEQ_LM");
}

#[test]
fn what_two_streams_have_no_place_for_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_pairs(dir.path(), &traces);
    write(&dir.path().join("m"), &traces["cases"][0]);
    let decoders = super::decoders::traces();
    write_model(&dir.path().join("c"), &decoders["cases"][0]);
    let train = |rest: &str| {
        format!("stage s = train {{ data = d.train, steps = 2, batch = 4, lr = 1e-3, {rest} }}\n")
    };
    for (stage, said) in [
        (train("model = m, objective = seq2seq, adapter = lst { r = 4 }"), "network beside the blocks"),
        (train("model = m, objective = seq2seq, adapter = prompt_tuning { tokens = 2 }"), "puts something into texts"),
        (train("model = m, objective = seq2seq, adapter = prefix_tuning { tokens = 2 }"), "puts something into texts"),
        (
            train("model = m, objective = seq2seq, adapter = poly { rank = 2, tasks = 2, task = 1, skills = 2, on = { ffn.* } }"),
            "reads each text as a whole",
        ),
        (train("model = m, objective = seq2seq, adapter = llama_adapter { tokens = 2 }"), "matches no"),
        (train("model = m, objective = causal_lm, adapter = full"), "no head for the next token"),
        (train("model = m, objective = classify, adapter = full"), "no head for whole texts"),
        (train("model = c, objective = seq2seq, adapter = full"), "no decoder behind its encoder"),
        (
            "stage s = eval { model = m, data = d.test, objective = seq2seq, generate = { num_beams = 2, temperature = 1 } }\n".to_owned(),
            "drawing beside `num_beams` is not built",
        ),
        (
            "stage s = eval { model = m, data = d.test, objective = seq2seq, generate = { length_penalty = 2 } }\n".to_owned(),
            "`num_beams` is 1",
        ),
        (
            "stage s = eval { model = m, data = d.test, objective = seq2seq, generate = { max_new_tokens = 40000 } }\n".to_owned(),
            "longer than the 32768",
        ),
        (
            "data t = local \".\" { text = source }\nstage s = eval { model = m, data = t.test, objective = seq2seq }\n".to_owned(),
            "learns targets from their sources",
        ),
    ] {
        let text = format!("peftc 1\n{DATA}model m = local \"m\"\nmodel c = local \"c\"\n{stage}");
        let path = dir.path().join("one.peft");
        std::fs::write(&path, text).expect("written");
        let output = program().arg("check").arg(&path).output().expect("starts");
        let stderr = stderr_of(&output).replace('│', " ");
        let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!output.status.success() && stderr.contains(said), "{stage}\n{stderr}");
    }
}
