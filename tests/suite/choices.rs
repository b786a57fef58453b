//! Multiple choice by likelihood against lm-evaluation-harness' rules over transformers.

use serde_json::{Value, json};

use super::decoders::{run, traces, write_model};
use super::support::{json, program, stderr_of, stdout_of};

#[test]
fn options_have_the_likelihoods_and_accuracies_of_the_harness() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let made = json("tests/reference/choices.json");
    let rows = made["rows"].as_array().expect("rows");
    // The right option by its place, by its letter, and by its text where that is unlike the others.
    let answer = |i: usize, row: &Value| {
        let right = row["answer"].as_u64().expect("a place") as usize;
        let all = row["choices"].as_array().expect("options");
        let text = &all[right];
        match i % 3 {
            0 if all.iter().filter(|other| *other == text).count() == 1 => text.clone(),
            1 => json!(["A", "b", "C", "d"][right]),
            2 => json!(right.to_string()),
            _ => json!(right),
        }
    };
    let line = |(i, row): (usize, &Value)| {
        json!({ "q": row["prompt"], "c": { "text": row["choices"] }, "a": answer(i, row) })
            .to_string()
            + "\n"
    };
    let text: String = rows.iter().enumerate().map(line).collect();
    std::fs::write(dir.path().join("test.jsonl"), text).expect("written");
    let cases = traces();
    let mut text =
        "peftc 1\ndata d = local \".\" { prompt = q, choices = c.text, answer = a }\n".to_owned();
    let models = made["models"].as_array().expect("models");
    for own in models {
        let name = own["name"].as_str().expect("a name");
        let mut all = cases["cases"].as_array().expect("cases").iter();
        write_model(
            &dir.path().join(name),
            all.find(|c| c["name"] == name).expect("a case"),
        );
        text += &format!(
            "model m_{name} = local \"{name}\"\n\
             stage {name} = eval {{ model = m_{name}, data = d.test, objective = multiple_choice, batch = 7, max_length = {} }}\n",
            made["max_length"]
        );
    }
    let path = dir.path().join("all.peft");
    std::fs::write(&path, &text).expect("written");
    let result = run(&path, &[]);
    for own in models {
        let name = own["name"].as_str().expect("a name");
        let stages = result["stages"].as_array().expect("stages").iter();
        let stage = stages.clone().find(|s| s["name"] == name).expect("a stage");
        for key in ["acc", "acc_norm", "acc_token", "loss"] {
            let (got, want) = (
                stage["metrics"][key].as_f64(),
                own[key].as_f64().expect("a number"),
            );
            assert!(
                got.is_some_and(|got| (got - want).abs() < 1e-4),
                "{name}: {key} is {got:?} for {want}"
            );
        }
        let bytes = |key: &str| stage[key].as_f64().expect("bytes");
        let share = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!(
            (0.98..=1.0).contains(&share),
            "{name}: {share} of the estimate"
        );
        let table = dir
            .path()
            .join(format!(".peftc/runs/all/{name}/predictions.tsv"));
        let table = std::fs::read_to_string(table).expect("a table");
        let mut lines = table.lines();
        assert_eq!(
            lines.next(),
            Some("index\tanswer\tchoice\tchoice_norm\tchoice_token\tloglikelihoods")
        );
        for ((line, want), row) in lines.zip(own["sums"].as_array().expect("sums")).zip(rows) {
            let cells: Vec<&str> = line.split('\t').collect();
            assert_eq!(cells[1], row["answer"].to_string(), "{line}");
            let got: Vec<f64> = serde_json::from_str(cells[5]).expect("a list");
            let want: Vec<f64> = serde_json::from_value(want.clone()).expect("a list");
            let far = got
                .iter()
                .zip(&want)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(
                got.len() == want.len() && far < 2e-4,
                "{name}: {got:?} for {want:?}"
            );
        }
    }
}

#[test]
fn rows_whose_answer_is_none_of_the_options_are_refused_by_their_place() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let cases = traces();
    let mut all = cases["cases"].as_array().expect("cases").iter();
    write_model(
        &dir.path().join("llama"),
        all.find(|c| c["name"] == "llama").expect("a case"),
    );
    let recipe = dir.path().join("r.peft");
    let check = |rows: &[Value], keys: &str, stage: &str| {
        let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
        for split in ["train", "test"] {
            std::fs::write(dir.path().join(format!("{split}.jsonl")), &lines).expect("written");
        }
        let text = format!(
            "peftc 1\nmodel m = local \"llama\"\ndata d = local \".\" {{ {keys} }}\n{stage}\n"
        );
        std::fs::write(&recipe, text).expect("written");
        let output = program().arg("check").arg(&recipe).output();
        let output = output.expect("starts");
        assert!(!output.status.success(), "{}", stdout_of(&output));
        stderr_of(&output) + &stdout_of(&output)
    };
    let keys = "prompt = q, choices = c, answer = a";
    let eval = "stage s = eval { model = m, data = d.test, objective = multiple_choice }";
    let row = |choices: Value, answer: Value| json!({ "q": "w2", "c": choices, "a": answer });
    for (choices, answer, says) in [
        (json!(["w3", "w4"]), json!(2), "no option 2"),
        (json!(["w3", "w4"]), json!("E"), "no option 4"),
        (json!(["w3", "w4"]), json!("w9"), "none of the options"),
        (json!(["w3", "w3"]), json!("w3"), "several have it"),
        (json!(["0", "w3", "1"]), json!("1"), "may mean another"),
        (json!(["w3"]), json!(0), "1 options"),
        (json!(["w3", ""]), json!(0), "is empty"),
        (json!(["w3", ["w4"]]), json!(0), "no text among its options"),
    ] {
        let said = check(
            &[row(json!(["w3", "w4"]), json!(0)), row(choices, answer)],
            keys,
            eval,
        );
        assert!(
            said.contains(says) && said.contains("test.jsonl:2"),
            "{says}: {said}"
        );
    }
    let good = [row(json!(["w3", "w4"]), json!(0))];
    let train = "stage s = train { model = m, data = d.train, objective = multiple_choice, adapter = full, lr = 1e-3, epochs = 1 }";
    assert!(check(&good, keys, train).contains("nothing is trained by it"));
    let causal = "stage s = eval { model = m, data = d.test, objective = causal_lm }";
    assert!(check(&good, keys, causal).contains("objective = multiple_choice"));
    assert!(check(&good, "choices = c, answer = a", eval).contains("`prompt` is missing"));
    assert!(check(&good, "text = q", eval).contains("choices = COLUMN"));
}
