//! BART and its kin: methods at their maps, what their files hold, and configs that are refused.

use super::*;

/// The case of a name.
fn case<'a>(traces: &'a Value, name: &str) -> &'a Value {
    let cases = traces["cases"].as_array().expect("cases").iter();
    cases.clone().find(|c| c["name"] == name).expect("a case")
}

/// Names and shapes of the tensors of a file.
fn held(file: &Path) -> Vec<(String, Vec<usize>)> {
    let bytes = std::fs::read(file).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let each = file.iter();
    each.map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec()))
        .collect()
}

#[test]
fn methods_stand_in_both_stacks_and_buffers_stay_as_they_are() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_pairs(dir.path(), &traces);
    for name in ["bart", "marian", "m2m100"] {
        write(&dir.path().join(name), case(&traces, name));
    }
    let all = "on = { attention.*, cross_attention.*, ffn.* }";
    let common = "data = d.train, objective = seq2seq, lr = 1e-2, steps = 3, batch = 8";
    let mut text = format!("peftc 1\n{DATA}");
    for name in ["bart", "marian", "m2m100"] {
        text += &format!(
            "model m_{name} = local \"{name}\"\n\
             stage lora_{name} = train {{ model = m_{name}, {common}, adapter = lora {{ rank = 4, {all} }} }}\n\
             stage all_{name} = train {{ model = m_{name}, {common}, adapter = full }}\n\
             stage own_{name} = eval {{ from = lora_{name}, data = d.test, metrics = [loss] }}\n\
             stage merged_{name} = merge {{ from = lora_{name} }}\n\
             stage same_{name} = eval {{ from = merged_{name}, data = d.test, metrics = [loss] }}\n"
        );
    }
    for (name, method) in [
        ("biases", "bitfit"),
        (
            "ia",
            "ia3 { on = { cross_attention.{key, value}, ffn.down } }",
        ),
        ("last", "last_n { n = 1 }"),
        ("cross", "dora { rank = 2, on = { cross_attention.* } }"),
        ("houl", "houlsby { size = 4 }"),
    ] {
        text +=
            &format!("stage {name} = train {{ model = m_marian, {common}, adapter = {method} }}\n");
    }
    text += "stage both = train { model = m_bart, data = d.train, objective = seq2seq, lr = 1e-2, steps = 3, batch = 8, micro_batch = 3, \
             recompute = true, adapter = lora { rank = 4, on = { attention.*, cross_attention.*, ffn.* } } }\n";
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
    let loss = |name: &str| stage(name)["metrics"]["loss"].as_f64().expect("a loss");
    let at = |rest: String| dir.path().join(".peftc/runs/all").join(rest);
    for (name, class) in [
        ("bart", "BartForConditionalGeneration"),
        ("marian", "MarianMTModel"),
        ("m2m100", "M2M100ForConditionalGeneration"),
    ] {
        let (own, same) = (loss(&format!("own_{name}")), loss(&format!("same_{name}")));
        assert!((own - same).abs() < 1e-5, "{name}: {own} {same}");
        let config = super::super::support::json(at(format!("merged_{name}/model/config.json")));
        assert_eq!(config["architectures"][0], class);
        let adapter = at(format!("lora_{name}/adapter/adapter_config.json"));
        assert_eq!(
            super::super::support::json(adapter)["task_type"],
            "SEQ_2_SEQ_LM"
        );
        for folder in [format!("merged_{name}/model"), format!("all_{name}/model")] {
            let tensors = held(&at(format!("{folder}/model.safetensors")));
            let there = |end: &str| tensors.iter().find(|(name, _)| name.ends_with(end));
            let bias = there("final_logits_bias").map(|(_, shape)| shape.as_slice());
            assert_eq!(bias, (name != "m2m100").then_some(&[1, 50][..]), "{folder}");
            let places = there("embed_positions.weight").is_some();
            assert_eq!(places, name != "m2m100", "{folder}");
            assert!(there("embed_positions.weights").is_none(), "{folder}");
        }
    }
    let curve = |name: &str| losses(dir.path(), "all", name);
    for (a, b) in curve("lora_bart").iter().zip(curve("both")) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// What is written into the config of a case, and what is said of it; of a config as it is, by a target that is longer than 40.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "bart",
            json!({ "encoder_layerdrop": 0.1 }),
            "left out at random",
        ),
        (
            "bart",
            json!({ "hidden_size": 31 }),
            "two names of one size",
        ),
        (
            "bart",
            json!({ "decoder_attention_heads": 5 }),
            "cannot be split into 5 heads",
        ),
        (
            "bart",
            json!({ "activation_function": "mish" }),
            "`mish`, which is not built",
        ),
        (
            "bart",
            json!({ "decoder_start_token_id": null }),
            "which targets begin with",
        ),
        (
            "bart",
            json!({ "pad_token_id": 50 }),
            "no token of the vocabulary",
        ),
        (
            "bart",
            json!({ "forced_bos_token_id": 50 }),
            "no token that targets are made of",
        ),
        ("bart", json!({ "is_decoder": true }), "is_decoder"),
        (
            "bart",
            json!({ "decoder_layers": 2 }),
            "which this stage reads",
        ),
        ("bart", json!({}), "positions for 40 tokens of a target"),
        (
            "marian",
            json!({ "decoder_vocab_size": 40 }),
            "have one table",
        ),
        (
            "marian_three_tables",
            json!({ "decoder_vocab_size": 40 }),
            "embeddings of 40 tokens there",
        ),
    ]
}

#[test]
fn configs_that_ask_for_another_model_are_refused() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = traces();
    write_pairs(dir.path(), &traces);
    for (name, keys, said) in refusals() {
        let mut own = case(&traces, name).clone();
        for (key, value) in keys.as_object().expect("keys") {
            own["config"][key] = value.clone();
        }
        write(&dir.path().join("m"), &own);
        let path = dir.path().join("one.peft");
        let targets = match keys.as_object().is_some_and(serde_json::Map::is_empty) {
            true => " { target_length = 41 }",
            false => "",
        };
        let text = format!(
            "peftc 1\n{DATA}model m = local \"m\"\nstage s = eval {{ model = m, data = d.test, objective = seq2seq{targets} }}\n"
        );
        std::fs::write(&path, text).expect("written");
        let output = program().arg("check").arg(&path).output().expect("starts");
        let stderr = stderr_of(&output).replace('│', " ");
        let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            !output.status.success() && stderr.contains(said),
            "{keys}\n{stderr}"
        );
    }
}
