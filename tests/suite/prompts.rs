//! Prompts and prefixes on decoders: written in peft's format and read back they say the same, they take positions from texts,
//! and what a special token gets does not depend on the batch.

use std::path::Path;

use serde_json::Value;

use super::decoders::{run, traces, write_model, write_texts};

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
