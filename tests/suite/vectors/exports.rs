//! The way into folders of sentence-transformers and of peft.

use super::*;

#[test]
fn exports_are_those_of_a_model_without_a_head_and_come_back() {
    let dir = folder();
    let text = recipe(
        "roberta-tiny",
        "stage s = train { model = m, data = pairs.train, objective = embed { pooling = first, normalize = true }, adapter = lora { rank = 4 }, lr = 1e-2, steps = 4, batch = 8 }\n\
         stage whole = merge { from = s, to = \"whole\" }\n\
         stage e = eval { from = s, data = pairs.dev, metrics = [mrr_at_10, loss] }\n\
         stage f = eval { from = whole, data = pairs.dev, metrics = [mrr_at_10, loss] }\n",
    );
    let result = run(&written(dir.path(), &text), &[]);
    let runs = dir.path().join(".peftc/runs/r");
    let adapter = json(runs.join("s/adapter/adapter_config.json"));
    assert_eq!(adapter["task_type"], "FEATURE_EXTRACTION");
    assert!(
        adapter["modules_to_save"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    for target in adapter["target_modules"].as_array().expect("targets") {
        assert!(
            target
                .as_str()
                .expect("a path")
                .starts_with("encoder.layer."),
            "{target}"
        );
    }
    let model = runs.join("whole/model");
    assert_eq!(
        json(model.join("config.json"))["architectures"],
        json!(["RobertaModel"])
    );
    let modules = json(model.join("modules.json"));
    assert_eq!(modules.as_array().map(Vec::len), Some(3));
    let pooling = json(model.join("1_Pooling/config.json"));
    assert_eq!(pooling["pooling_mode_cls_token"], true);
    assert_eq!(pooling["pooling_mode_mean_tokens"], false);
    let copied = json(dir.path().join("whole/1_Pooling/config.json"));
    assert_eq!(copied, pooling);
    let value = |of: &Value, name: &str, key: &str| {
        stage(of, name)["metrics"][key].as_f64().expect("a number")
    };
    let want = value(&result, "e", "loss");
    assert!((value(&result, "f", "loss") - want).abs() < 1e-4);
    // The folder says how its vectors are made, and peft's adapter stands on the model that was there before.
    let again = format!(
        "{}model own = local \"{}\"\n\
         stage g = eval {{ model = own, objective = embed, data = pairs.dev, metrics = [mrr_at_10, loss] }}\n\
         stage h = eval {{ model = m, adapter = peft \"{}\", objective = embed {{ pooling = first }}, data = pairs.dev, metrics = [mrr_at_10, loss] }}\n",
        recipe("roberta-tiny", ""),
        model.display(),
        runs.join("s/adapter").display(),
    );
    let other = folder();
    let result = run(&written(other.path(), &again), &[]);
    for name in ["g", "h"] {
        let is = value(&result, name, "loss");
        assert!((is - want).abs() < 1e-4, "{name}: {is} for {want}");
    }
    let input = dir.path().join("dev.jsonl");
    predicts_unit_vectors(&model, &input);
    // Without a word of ours it is a folder of sentence-transformers.
    let bare = dir.path().join("bare");
    for folder in ["", "1_Pooling"] {
        std::fs::create_dir_all(bare.join(folder)).expect("made");
        for file in std::fs::read_dir(model.join(folder)).expect("a folder") {
            let file = file.expect("a file");
            let is_file = file.file_type().expect("a kind").is_file();
            if is_file && file.file_name() != "peftc.json" {
                let to = bare.join(folder).join(file.file_name());
                std::fs::copy(file.path(), to).expect("copied");
            }
        }
    }
    predicts_unit_vectors(&bare, &input);
}

fn predicts_unit_vectors(model: &Path, input: &Path) {
    let predict = |more: &[&str]| {
        let mut command = program();
        command.args(["predict", "--quiet"]).arg(model);
        command
            .arg("--input")
            .arg(input)
            .args(more)
            .output()
            .expect("starts")
    };
    let output = predict(&["--text", "b"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    for line in stdout_of(&output).lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let length: f64 = numbers(&line["embedding"]).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    let refused = predict(&["--text", "a,b"]);
    assert!(!refused.status.success());
    assert!(stderr_of(&refused).contains("column"));
}
