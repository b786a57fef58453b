//! Prompts and prefixes on decoders: written in peft's format and read back they say the same, they take positions from texts,
//! and what a special token gets does not depend on the batch.

use std::path::Path;

use serde_json::{Value, json};

use super::decoders::{run, traces, write_model, write_texts};
use super::lora_family::{assert_counted, refused};
use super::support::program;

/// Families whose keys have fewer heads than queries, whose maps are fused, whose table has a factor and whose windows are
/// narrower than a text.
const FAMILIES: [&str; 4] = ["llama", "gpt2", "gemma3", "qwen2_windows"];

/// Methods that peft has, and whether it has them on all of the families.
const METHODS: [(&str, &str, bool); 8] = [
    (
        "prompt",
        "prompt_tuning { tokens = 3, init = vocabulary }",
        true,
    ),
    (
        "encoded",
        "p_tuning { tokens = 2, encoder = lstm, hidden = 5 }",
        true,
    ),
    ("prefix", "prefix_tuning { tokens = 3 }", true),
    (
        "made",
        "prefix_tuning { tokens = 2, projection = true, hidden = 4 }",
        true,
    ),
    ("kept", "cartridge { tokens = 3 }", true),
    (
        "near",
        "cpt { token_ids = [5, 9, 7], types = [1, 2, 4] }",
        true,
    ),
    (
        "tasks",
        "multitask_prompt { tokens = 2, tasks = 3, task = 2 }",
        true,
    ),
    ("gated", "llama_adapter { tokens = 2 }", false),
];

fn models(dir: &Path) -> String {
    let traces = traces();
    write_texts(dir, &traces);
    let cases = traces["cases"].as_array().expect("cases");
    let mut recipe = "peftc 1\ndata d = local \".\" { text = text }\n".to_owned();
    for family in FAMILIES {
        let case = cases.iter().find(|c| c["name"] == family).expect("a case");
        write_model(&dir.join(family), case);
        recipe += &format!("model m_{family} = local \"{family}\"\n");
    }
    recipe
}

fn of<'a>(result: &'a Value, stage: &str) -> &'a Value {
    let stages = result["stages"].as_array().expect("stages");
    let found = stages.iter().find(|s| s["name"] == stage);
    found.unwrap_or_else(|| panic!("no stage {stage}"))
}

#[test]
fn what_is_written_for_peft_is_read_back_and_says_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recipe = models(dir.path());
    let pairs = || {
        FAMILIES
            .iter()
            .flat_map(|f| METHODS.iter().map(move |m| (*f, *m)))
    };
    for (family, (name, method, _)) in pairs() {
        recipe += &format!(
            "stage {name}_{family} = train {{ model = m_{family}, data = d.train, objective = causal_lm, adapter = {method}, \
             lr = 2e-2, steps = 3, batch = 4 }}\n\
             stage {name}_{family}_e = eval {{ from = {name}_{family}, data = d.test, metrics = [loss] }}\n"
        );
    }
    let path = dir.path().join("first.peft");
    std::fs::write(&path, &recipe).expect("written");
    let first = run(&path, &[]);
    let mut again = models(dir.path());
    for (family, (name, _, everywhere)) in pairs() {
        let folder = format!(".peftc/runs/first/{name}_{family}/adapter");
        let config = dir.path().join(&folder).join("adapter_config.json");
        assert_eq!(
            config.exists(),
            everywhere || family == "llama",
            "{name} on {family}"
        );
        if !config.exists() {
            continue;
        }
        let config: Value =
            serde_json::from_slice(&std::fs::read(&config).expect("read")).expect("JSON");
        let keys: Vec<&String> = config.as_object().expect("keys").keys().collect();
        assert!(keys.is_sorted(), "{keys:?}");
        again += &format!(
            "stage {name}_{family}_e = eval {{ model = m_{family}, data = d.test, objective = causal_lm, metrics = [loss], \
             adapter = peft \"{folder}\" }}\n"
        );
    }
    let path = dir.path().join("second.peft");
    std::fs::write(&path, &again).expect("written");
    let second = run(&path, &[]);
    let mut compared = 0;
    for stage in second["stages"].as_array().expect("stages") {
        let name = stage["name"].as_str().expect("a name");
        let loss = |stage: &Value| stage["metrics"]["loss"].as_f64().expect("a loss");
        let (want, got) = (loss(of(&first, name)), loss(stage));
        assert!((want - got).abs() < 1e-6, "{name}: {got} for {want}");
        compared += 1;
    }
    assert_eq!(compared, 7 * FAMILIES.len() + 1);
}

#[test]
fn micro_batches_recomputation_and_16_bits_change_no_more_than_rounding() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recipe = models(dir.path());
    recipe += "model h = local \"llama\" { dtype = bf16, activations = bf16 }\n";
    for (name, method, _) in METHODS {
        let common = format!(
            "data = d.train, objective = causal_lm, adapter = {method}, lr = 1e-3, steps = 3, batch = 6"
        );
        recipe += &format!(
            "stage {name} = train {{ model = m_llama, {common} }}\n\
             stage {name}_micro = train {{ model = m_llama, {common}, micro_batch = 2, recompute = true }}\n\
             stage {name}_half = train {{ model = h, {common} }}\n"
        );
    }
    let path = dir.path().join("ways.peft");
    std::fs::write(&path, &recipe).expect("written");
    let result = run(&path, &[]);
    for (name, ..) in METHODS {
        let loss = |stage: String| of(&result, &stage)["loss_last"].as_f64().expect("a loss");
        let whole = loss(name.to_owned());
        let (micro, half) = (loss(format!("{name}_micro")), loss(format!("{name}_half")));
        assert!((whole - micro).abs() < 1e-5, "{name}: {micro} for {whole}");
        assert!((whole - half).abs() < 0.05, "{name}: {half} for {whole}");
    }
    for stage in result["stages"].as_array().expect("stages") {
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.98..=1.0).contains(&share), "{}: {share}", stage["name"]);
    }
}

/// A text of numbers of tokens, which the tokenizers of the tiny decoders make nothing else of.
fn words(from: usize, count: usize) -> String {
    let each = (0..count).map(|i| format!("w{}", 5 + (from + 7 * i) % 40));
    each.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_prefix_that_begins_as_a_text_is_that_text_in_front() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recipe = models(dir.path());
    let row = |i: usize, front: &str| json!({ "q": format!("{front}{}", words(3 * i, 2 + i % 3)), "a": words(11 * i, 3 + i % 4) });
    for (name, front) in [
        ("plain", String::new()),
        ("whole", format!("{} ", words(1, 4))),
    ] {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).expect("made");
        let rows: String = (0..8).map(|i| format!("{}\n", row(i, &front))).collect();
        std::fs::write(folder.join("train.jsonl"), rows).expect("written");
        recipe += &format!("data {name} = local \"{name}\" {{ prompt = q, completion = a }}\n");
    }
    let text = words(1, 4);
    let begun = [
        (
            "kept",
            format!("cartridge {{ tokens = 4, frozen = 2, text = \"{text} w9\" }}"),
        ),
        (
            "prefix",
            format!("prefix_tuning {{ tokens = 4, text = \"{text}\" }}"),
        ),
    ];
    for family in FAMILIES {
        let common = format!("model = m_{family}, objective = causal_lm, metrics = [loss]");
        recipe += &format!("stage whole_{family} = eval {{ {common}, data = whole.train }}\n");
        for (name, method) in &begun {
            recipe += &format!(
                "stage {name}_{family} = train {{ model = m_{family}, data = plain.train, objective = causal_lm, adapter = {method}, \
                 lr = 1e-30, steps = 1, batch = 4 }}\n\
                 stage {name}_{family}_e = eval {{ from = {name}_{family}, data = plain.train, metrics = [loss] }}\n"
            );
        }
    }
    let path = dir.path().join("begun.peft");
    std::fs::write(&path, &recipe).expect("written");
    let result = run(&path, &[]);
    for stage in result["stages"].as_array().expect("stages") {
        assert_counted(&result, stage["name"].as_str().expect("a name"));
    }
    let loss = |stage: String| {
        of(&result, &stage)["metrics"]["loss"]
            .as_f64()
            .expect("a loss")
    };
    for family in FAMILIES {
        let want = loss(format!("whole_{family}"));
        for (name, _) in &begun {
            let got = loss(format!("{name}_{family}_e"));
            assert!(
                (want - got).abs() < 1e-5,
                "{name} of {family}: {got} for {want}"
            );
        }
    }
}

#[test]
fn what_begins_as_a_text_takes_the_memory_that_was_planned_and_refuses_what_cannot() {
    let dir = tempfile::tempdir().expect("a directory");
    let head =
        models(dir.path()) + "model h = local \"llama\" { dtype = bf16, activations = bf16 }\n";
    let drawn = "prefix_tuning { tokens = 12, init = vocabulary }";
    let common = "data = d.train, objective = causal_lm, lr = 1e-3, steps = 2, batch = 2";
    let mut recipe = head.clone();
    for (name, kind, rest) in [
        ("narrow", "train", format!("model = h, adapter = {drawn}")),
        (
            "components",
            "train",
            "model = h, adapter = lora { rank = 2, init = eva }".to_owned(),
        ),
        (
            "zeroth",
            "mezo",
            format!("model = m_gpt2, epsilon = 1e-3, adapter = {drawn}"),
        ),
        (
            "zeroth_too",
            "mezo",
            format!("model = m_gpt2, epsilon = 1e-3, seed = 7, adapter = {drawn}"),
        ),
    ] {
        recipe += &format!("stage {name} = {kind} {{ {common}, {rest} }}\n");
    }
    let path = dir.path().join("begun.peft");
    std::fs::write(&path, &recipe).expect("written");
    let result = run(&path, &[]);
    for stage in result["stages"].as_array().expect("stages") {
        assert_counted(&result, stage["name"].as_str().expect("a name"));
    }
    let left = |name: &str| {
        let file = format!(".peftc/runs/begun/{name}/adapter/adapter_model.safetensors");
        std::fs::read(dir.path().join(file)).expect("an adapter")
    };
    assert_ne!(
        left("zeroth"),
        left("zeroth_too"),
        "other tokens are drawn by another seed"
    );
    for (method, why) in [
        (
            "cartridge { tokens = 4, text = \"w5 w6\" }",
            "the text has 2 tokens, and 4 keys and values",
        ),
        (
            "cartridge { tokens = 1, frozen = 0, token_ids = [50] }",
            "and none is 50",
        ),
        (
            "prefix_tuning { tokens = 1, text = \"w5\", init = zero }",
            "both say what virtual tokens start at",
        ),
        (
            "prefix_tuning { tokens = 1, projection = true, init = vocabulary }",
            "cannot start as a text's",
        ),
        (
            "prefix_tuning { tokens = 1, projection = true, token_ids = [5] }",
            "cannot start as a text's",
        ),
    ] {
        let text =
            format!("{head}stage t = train {{ model = m_llama, {common}, adapter = {method} }}\n");
        let said = refused(dir.path(), &text);
        assert!(said.contains(why), "{method}: {said}");
    }
}

#[test]
fn a_killed_training_goes_on_with_the_frozen_keys_of_its_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let recipe = models(dir.path())
        + "stage s = train { model = m_llama, data = d.train, objective = causal_lm, lr = 1e-2, steps = 60, batch = 4, \
           adapter = cartridge { tokens = 3, frozen = 2, text = \"w5 w9 w7\" } }\n";
    let write = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, &recipe).expect("written");
        path
    };
    let (whole, killed) = (write("whole.peft"), write("killed.peft"));
    let store = ["--store", "own"];
    run(&whole, &[]);
    let log = dir.path().join(".peftc/runs/killed/s/metrics.jsonl");
    let steps = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = program()
        .args(["run", "--quiet", "--checkpoint-every", "0"])
        .arg(&killed)
        .args(store)
        .current_dir(dir.path())
        .spawn()
        .expect("starts");
    while child.try_wait().expect("waited for").is_none() && steps() < 5 {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(steps() < 60, "the run was over before it was killed");
    let output = program()
        .args(["run", "--quiet"])
        .arg(&killed)
        .args(store)
        .current_dir(dir.path())
        .output()
        .expect("starts");
    assert!(output.status.success());
    let left = |name: &str| {
        let file = format!(".peftc/runs/{name}/s/adapter/adapter_model.safetensors");
        std::fs::read(dir.path().join(file)).expect("an adapter")
    };
    assert_eq!(left("whole"), left("killed"));
}
