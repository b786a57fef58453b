//! Tiny encoders of the families that have no checkpoint among the references, against transformers: losses and full
//! fine-tuning by SGD, on whole texts and on words at a mask.

use std::path::Path;

use serde_json::{Value, json};

use super::decoders::{losses, run, write_tokenizer, write_weights};
use super::support::{json, program, stderr_of};

const TRACES: &str = "tests/reference/encoders.json";

/// Writes the texts, with their classes by these names.
fn write_texts(dir: &Path, traces: &Value) {
    let row = |row: &Value| {
        let words = row[0].as_array().expect("words").iter();
        let words: Vec<String> = words.map(|w| format!("w{w}")).collect();
        json!({ "text": words.join(" "), "label": format!("LABEL_{}", row[1]) }).to_string() + "\n"
    };
    let rows = traces["texts"].as_array().expect("texts");
    let text: String = rows.iter().map(row).collect();
    for split in ["train", "test"] {
        std::fs::write(dir.join(format!("{split}.jsonl")), &text).expect("written");
    }
}

/// Writes a model of a case with one of its heads.
fn write_model(dir: &Path, case: &Value, head: &str) -> String {
    let name = format!("{}_{head}", case["name"].as_str().expect("a name"));
    let own = dir.join(&name);
    write_weights(&own, &case["config"], &case[head]["tensors"]);
    write_tokenizer(&own, ("<mask>", "mask_token"));
    name
}

fn share(stage: &Value) -> f64 {
    let bytes = |key: &str| stage[key].as_f64().expect("bytes");
    bytes("measured_peak_bytes") / bytes("estimated_peak_bytes")
}

#[test]
fn every_family_has_the_losses_and_the_gradients_of_transformers() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = json(TRACES);
    write_texts(dir.path(), &traces);
    let (rate, batch) = (&traces["rate"], &traces["batch"]);
    let cases = traces["cases"].as_array().expect("cases");
    let mut text = "peftc 1\ndata d = local \".\" { text = text, label = label }\n\
         prompt p = prompt { template = \"{text} {mask}\", verbalizer = { LABEL_0: \"w2\", LABEL_1: \"w3\", LABEL_2: \"w4\" } }\n"
        .to_owned();
    let mut all = Vec::new();
    for case in cases {
        for (head, how) in [
            ("classes", ""),
            ("words", ", objective = label_words, prompt = p"),
        ] {
            let name = write_model(dir.path(), case, head);
            let steps = case[head]["curve"].as_array().expect("a curve").len();
            text += &format!(
                "model m_{name} = local \"{name}\"\n\
                 stage e_{name} = eval {{ model = m_{name}, data = d.test, metrics = [loss]{how} }}\n\
                 stage t_{name} = train {{ model = m_{name}, data = d.train, adapter = full, lr = {rate}, optimizer = sgd, \
                 batch = {batch}, steps = {steps}, clip = 0, dropout = 0, shuffle = false{how} }}\n"
            );
            all.push((name, &case[head]));
        }
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    let stage = |name: &str| stages.iter().find(|s| s["name"] == name).expect("a stage");
    let mut wrong = Vec::new();
    for (name, case) in all {
        let got = &stage(&format!("e_{name}"))["metrics"]["loss"];
        let (got, want) = (got.as_f64().expect("a loss"), case["loss"].as_f64());
        if (got - want.expect("a loss")).abs() > 2e-5 {
            wrong.push(format!("{name}: a loss of {got} for {want:?}"));
        }
        let own = losses(dir.path(), "all", &format!("t_{name}"));
        let want = case["curve"].as_array().expect("a curve").iter();
        let want: Vec<f64> = want.map(|x| x.as_f64().expect("a loss")).collect();
        let far = own.iter().zip(&want).map(|(a, b)| (a - b).abs());
        if own.len() != want.len() || far.fold(0.0, f64::max) > 5e-5 {
            wrong.push(format!("{name}: {own:?} for {want:?}"));
        }
        let share = share(stage(&format!("t_{name}")));
        if !(0.98..=1.0).contains(&share) {
            wrong.push(format!("{name}: {share} of the estimate"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn methods_and_ladders_meet_their_estimates_and_merges_change_nothing() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = json(TRACES);
    write_texts(dir.path(), &traces);
    let methods = [
        ("lora", "lora { rank = 4, on = { attention.*, ffn.* } }"),
        ("prefix", "prefix_tuning { tokens = 3 }"),
        ("prompt", "prompt_tuning { tokens = 3 }"),
        ("norms", "ln_tuning"),
        ("last", "last_n { n = 1 }"),
        ("ladder", "lst { r = 4 }"),
        ("windows", "k_lst { r = 4, k = 3 }"),
    ];
    let mut text = "peftc 1\ndata d = local \".\" { text = text, label = label }\n".to_owned();
    let cases = traces["cases"].as_array().expect("cases").iter();
    let known = [
        "electra",
        "albert_groups",
        "modernbert_biases",
        "xlm_roberta_xl",
        "mpnet",
        "deberta_v3",
        "deberta_own_maps",
        "deberta_convolved",
        "bert_relative",
    ];
    for case in cases.filter(|c| known.iter().any(|k| c["name"] == *k)) {
        let name = write_model(dir.path(), case, "classes");
        text += &format!("model m_{name} = local \"{name}\"\n");
        // Nothing stands before texts where scores are by distance.
        let apart = ["mpnet", "deberta", "bert_relative"]
            .iter()
            .any(|own| name.starts_with(own));
        for (kind, method) in methods
            .into_iter()
            .filter(|own| !(apart && own.0 == "prefix"))
        {
            text += &format!(
                "stage {kind}_{name} = train {{ model = m_{name}, data = d.train, adapter = {method}, lr = 1e-2, batch = 8, \
                 steps = 4, dropout = 0.1, recompute = {} }}\n",
                kind == "lora"
            );
        }
        text += &format!(
            "stage own_{name} = eval {{ from = lora_{name}, data = d.test, metrics = [loss] }}\n\
             stage merged_{name} = merge {{ from = lora_{name} }}\n\
             stage same_{name} = eval {{ from = merged_{name}, data = d.test, metrics = [loss] }}\n"
        );
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, text).expect("written");
    let result = run(&path, &[]);
    let stages = result["stages"].as_array().expect("stages");
    assert_eq!(stages.len(), known.len() * (methods.len() + 3) - 5);
    for stage in stages {
        let share = share(stage);
        assert!((0.98..=1.0).contains(&share), "{}: {share}", stage["name"]);
    }
    let loss = |name: String| {
        let stage = stages.iter().find(|s| s["name"] == name).expect("a stage");
        stage["metrics"]["loss"].as_f64().expect("a loss")
    };
    for name in known {
        let (own, same) = (
            loss(format!("own_{name}_classes")),
            loss(format!("same_{name}_classes")),
        );
        assert!((own - same).abs() < 1e-5, "{name}: {own} {same}");
    }
}

#[test]
fn a_folder_of_sentence_transformers_is_the_model_inside() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = json(TRACES);
    write_texts(dir.path(), &traces);
    let case = &traces["cases"][0];
    let name = write_model(dir.path(), case, "classes");
    let outer = dir.path().join("outer");
    std::fs::create_dir(&outer).expect("created");
    std::fs::rename(dir.path().join(name), outer.join("0_Transformer")).expect("moved");
    let module = |kind: &str, path: &str| json!({ "type": format!("sentence_transformers.models.{kind}"), "path": path });
    let list = json!([
        module("Transformer", "0_Transformer"),
        module("Pooling", "1_Pooling")
    ]);
    std::fs::write(outer.join("modules.json"), list.to_string()).expect("written");
    let text = "peftc 1\ndata d = local \".\" { text = text, label = label }\nmodel m = local \"outer\"\n\
                stage e = eval { model = m, data = d.test, metrics = [loss] }\n";
    let path = dir.path().join("r.peft");
    std::fs::write(&path, text).expect("written");
    let loss = run(&path, &[])["stages"][0]["metrics"]["loss"].as_f64();
    let want = case["classes"]["loss"].as_f64().expect("a loss");
    assert!((loss.expect("a loss") - want).abs() < 2e-5);
}

#[test]
fn nothing_stands_before_texts_where_scores_are_by_distance() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let traces = json(TRACES);
    write_texts(dir.path(), &traces);
    let cases = traces["cases"].as_array().expect("cases");
    for (case, method, why) in [
        ("mpnet", "prefix_tuning { tokens = 3 }", "at no distance"),
        ("deberta_v3", "unipelt", "at no distance"),
        ("deberta_v3", "poly", "text by text"),
        ("deberta_v3", "lily", "text by text"),
        ("deberta_v3", "spiel { density = 0.1 }", "one use of a map"),
    ] {
        let of = cases
            .iter()
            .find(|own| own["name"] == case)
            .expect("a case");
        let name = write_model(dir.path(), of, "classes");
        let text = format!(
            "peftc 1\ndata d = local \".\" {{ text = text, label = label }}\nmodel m = local \"{name}\"\n\
             stage s = train {{ model = m, data = d.train, adapter = {method}, lr = 1e-3, steps = 2 }}\n"
        );
        let path = dir.path().join("r.peft");
        std::fs::write(&path, text).expect("written");
        let output = program().arg("check").arg(&path).output().expect("runs");
        let said = stderr_of(&output);
        assert!(
            !output.status.success() && said.contains(why),
            "{method}: {said}"
        );
    }
}
